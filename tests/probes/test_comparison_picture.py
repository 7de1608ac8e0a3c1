import numpy as np
import pytest

from modeling_pcl.probes import comparison_picture
from modeling_pcl.probes.comparison_picture import draw_comparison
from modeling_pcl.probes.picture_style import FEATURES

HIGHER, LOWER = "higher is better", "lower is better"
TABLE = {
    "accuracy": {
        "random initialisation": {"trunk": (0.3, 0.01), "face": (0.35, 0.02)},
        "PCL": {"trunk": (0.5, 0.03), "face": (0.6, None), "pose": (0.4, 0.0)},
    },
    "MAE": {"random initialisation": {"trunk": (9.0, 0.1), "pose": (8.0, 0.1)}, "SimCLR": {"trunk": (7.0, 0.1)}},
}
DIRECTIONS = {"accuracy": HIGHER, "MAE": LOWER}


@pytest.fixture
def as_figure(monkeypatch):
    """Drawing returns the matplotlib figure."""
    monkeypatch.setattr(comparison_picture, "rendered", lambda figure: figure)


def dots(axes) -> dict[tuple[str, int], tuple[float, float | None]]:
    """Mean and spread, as drawn, by feature and row."""
    found = {}
    for container in axes.containers:
        point, _, whiskers = container
        ((mean, height),) = point.get_xydata()
        assert (point.get_color(), point.get_marker()) == FEATURES[container.get_label()]
        ends = [line.get_segments()[0][:, 0] for line in whiskers]
        found[container.get_label(), round(height)] = (mean, np.ptp(ends[0]) / 2 if ends else None)
    return found


def legend_labels(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_each_mean_and_spread_stands_in_its_models_row_in_its_features_look(as_figure):
    accuracy, mae = draw_comparison(TABLE, DIRECTIONS).axes
    assert dots(accuracy) == {
        ("trunk", 0): (0.3, pytest.approx(0.01)),
        ("face", 0): (0.35, pytest.approx(0.02)),
        ("trunk", 1): (0.5, pytest.approx(0.03)),
        ("face", 1): (0.6, None),
        ("pose", 1): (0.4, pytest.approx(0)),
    }
    assert {place: mean for place, (mean, _) in dots(mae).items()} == {("trunk", 0): 9, ("pose", 0): 8, ("trunk", 2): 7}


def test_models_keep_their_order_from_the_top_and_are_named_once_a_row_of_panels(as_figure):
    accuracy, mae = draw_comparison(TABLE, DIRECTIONS).axes
    names = [text.get_text() for text in accuracy.get_yticklabels()]
    assert names == ["random initialisation", "PCL", "SimCLR"]
    assert not mae.yaxis.get_tick_params()["labelleft"]
    assert accuracy.get_ylim() == mae.get_ylim() == (2.5, -0.5)


def test_features_of_a_row_stand_apart_and_inside_it(as_figure):
    accuracy, _ = draw_comparison(TABLE, DIRECTIONS).axes
    heights = [container[0].get_ydata()[0] for container in accuracy.containers]
    assert len(set(heights)) == 5
    assert all(abs(height - round(height)) < 0.4 for height in heights)


def test_the_dashed_line_is_the_best_random_mean_in_the_measures_direction(as_figure):
    panels = draw_comparison(TABLE, DIRECTIONS).axes
    for axes, best in zip(panels, (0.35, 8.0)):
        dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert [line.get_xdata()[0] for line in dashed] == [best]
        assert axes.get_title() in (f"accuracy\n{HIGHER}", f"MAE\n{LOWER}")


def test_the_legend_names_the_features_and_the_dashed_line_only_where_there_is_one(as_figure):
    untrained = draw_comparison(TABLE, DIRECTIONS)
    assert legend_labels(untrained) == ["trunk", "face", "pose", "best of random initialisation"]
    trained = draw_comparison({"accuracy": {"PCL": {"face": (0.5, 0.1)}}}, DIRECTIONS)
    assert legend_labels(trained) == ["face"]
    assert not [line for line in trained.axes[0].lines if line.get_linestyle() == "--"]


def test_missing_values_leave_their_place_empty(as_figure):
    nan = float("nan")
    rows = {"random": {"trunk": (nan, nan), "face": None}, "a": {}, "b": {"trunk": (None, None), "face": (0.5, nan)}}
    (axes,) = draw_comparison({"accuracy": rows}, DIRECTIONS).axes
    assert dots(axes) == {("face", 2): (0.5, None)}
    assert not [line for line in axes.lines if line.get_linestyle() == "--"]


@pytest.mark.parametrize(("measures", "shape"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 2)), (7, (3, 3))])
def test_at_most_three_panels_stand_side_by_side(as_figure, measures, shape):
    names = [f"measure {i}" for i in range(measures)]
    figure = draw_comparison({name: {"a": {"trunk": (0.5, 0.1)}} for name in names}, dict.fromkeys(names, HIGHER))
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == names
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == shape


@pytest.mark.parametrize("table", [{}, {"accuracy": {}}])
def test_a_table_without_models_is_refused(table):
    with pytest.raises(ValueError, match="`table` must hold"):
        draw_comparison(table, DIRECTIONS)


@pytest.mark.parametrize("directions", [{"accuracy": HIGHER}, {"accuracy": HIGHER, "MAE": "up"}])
def test_a_measure_without_a_direction_is_refused(directions):
    with pytest.raises(ValueError, match="`directions` must be 'higher is better' or 'lower is better' for `MAE`"):
        draw_comparison(TABLE, directions)


def test_strange_names_are_drawn_and_a_changed_mean_changes_the_picture():
    def picture(mean: float):
        rows = {"_hidden $_{$": {"trunk": (mean, 0.1)}, "a long $_{$ name " * 5: {"表情 $": (0.2, 0.1)}}
        return draw_comparison({"表情 $\\frac{$": rows}, {"表情 $\\frac{$": HIGHER})

    assert picture(0.5).mode == "RGB"
    assert picture(0.5).tobytes() == picture(0.5).tobytes() != picture(0.4).tobytes()
