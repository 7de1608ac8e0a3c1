import numpy as np
import pytest

from modeling_pcl.probes import curve_pictures
from modeling_pcl.probes.curve_pictures import draw_histories, draw_roc
from modeling_pcl.probes.picture_style import FEATURES, LOOKS

FALSE, TRUE = np.array([0, 0.0005, 0.005, 0.5, 1]), np.array([0.1, 0.2, 0.4, 0.8, 1])
STRANGE = ["_hidden", "$", "a very $_{$ long name " * 4, "表情 \n x"]


@pytest.fixture
def as_figure(monkeypatch):
    """Drawing returns the matplotlib figure."""
    monkeypatch.setattr(curve_pictures, "rendered", lambda figure: figure)


def legend_labels(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def curve_of(axes, name: str):
    return next(line for line in axes.lines if line.get_color() == FEATURES[name][0] and len(line.get_xdata()) > 2)


def test_both_panels_show_the_whole_curve_as_steps(as_figure):
    figure = draw_roc({"face": (FALSE, TRUE)}, "title")
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "linear"]
    for axes in figure.axes:
        curve = curve_of(axes, "face")
        assert np.array_equal(curve.get_xydata(), np.stack([FALSE, TRUE], axis=1))
        assert curve.get_drawstyle() == "steps-post"
    assert figure.get_suptitle() == "title"


def test_marks_and_legend_say_the_rate_of_the_last_threshold_below_each_false_accept_rate(as_figure):
    figure = draw_roc({"face": (FALSE, TRUE)}, "")
    marks = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    assert marks[0].get_xydata().tolist() == [[0.01, 0.4], [0.001, 0.2]]
    area = sum((FALSE[i + 1] - FALSE[i]) * (TRUE[i] + TRUE[i + 1]) / 2 for i in range(4))
    assert legend_labels(figure) == [
        f"face: AUC {area:.3f}, TAR 0.400 at FAR 0.01, 0.200 at FAR 0.001",
        "chance",
    ]


def test_a_threshold_at_exactly_the_rate_counts(as_figure):
    figure = draw_roc({"face": ([0, 0.01, 0.01, 1], [0, 0.3, 0.6, 1])}, "")
    assert "TAR 0.600 at FAR 0.01, 0.000 at FAR 0.001" in legend_labels(figure)[0]


def test_the_chance_line_is_where_both_rates_are_equal(as_figure):
    for axes in draw_roc({"face": (FALSE, TRUE)}, "").axes:
        chance = axes.lines[-1].get_xydata()
        assert np.array_equal(chance[:, 0], chance[:, 1])
        assert len(chance) > 100  # Bent on the logarithmic axis.


@pytest.mark.parametrize(
    ("lowest", "left"), [(1e-6, 1e-4), (3e-4, 3e-4), (0.1, 5e-4)], ids=["many pairs", "pairs", "few pairs"]
)
def test_the_logarithmic_axis_begins_at_the_lowest_rate_and_shows_both_marks(as_figure, lowest, left):
    curves = {"face": ([0, lowest, 1], [0, 0.5, 1]), "pose": ([0, 0.2, 1], [0, 0.5, 1])}
    figure = draw_roc(curves, "")
    assert figure.axes[0].get_xlim() == pytest.approx((left, 1))
    assert figure.axes[1].get_xlim() == (0, 1)


@pytest.mark.parametrize(
    ("false", "true", "message"),
    [
        ([0, 1], [0, 0.5, 1], "two rates for each"),
        ([0], [0], "two rates for each"),
        ([[0, 1]], [[0, 1]], "two rates for each"),
        ([0, 0.5, 0.4, 1], [0, 0.5, 0.6, 1], "must rise"),
        ([0, 1], [1, 0], "must rise"),
        ([0.1, 1], [0, 1], "must rise"),
        ([0, 2], [0, 1], "must rise"),
        ([0, 1], [-0.1, 1], "must rise"),
        ([0, np.nan, 1], [0, 0.5, 1], "must rise"),
    ],
)
def test_rates_that_are_no_curve_are_refused_by_name(false, true, message):
    with pytest.raises(ValueError, match=message) as error:
        draw_roc({"good": ([0, 1], [0, 1]), "bad": (false, true)}, "")
    assert "`bad`" in str(error.value)


def test_no_curves_are_refused():
    with pytest.raises(ValueError, match="`curves` must hold at least one"):
        draw_roc({}, "")


def test_each_candidate_has_a_curve_over_the_epochs_and_a_star_marks_the_choice(as_figure):
    histories = {"lr 0.01": [0.3, 0.5, 0.4], "lr 0.001": [0.2, 0.6]}
    figure = draw_histories(histories, ("lr 0.001", 2), "title", "accuracy")
    (axes,) = figure.axes
    first, second, star = axes.lines
    assert first.get_xydata().tolist() == [[1, 0.3], [2, 0.5], [3, 0.4]]
    assert second.get_xydata().tolist() == [[1, 0.2], [2, 0.6]]
    assert star.get_xydata().tolist() == [[2, 0.6]]
    assert star.get_marker() == "*"
    assert star.get_color() == second.get_color() != first.get_color()
    assert legend_labels(figure) == ["lr 0.01", "lr 0.001", "chosen: lr 0.001,\nepoch 2, 0.600"]
    assert axes.get_ylabel() == "accuracy"


def test_many_candidates_and_curves_differ_in_colour_or_dashes(as_figure):
    names = [f"lr {i}" for i in range(2 * len(LOOKS))]
    histories = draw_histories({name: [0.1, 0.2] for name in names}, ("lr 0", 1), "", "").axes[0].lines[:-1]
    curves = draw_roc(dict.fromkeys(names, (FALSE, TRUE)), "").axes[1].lines[:-1]
    for lines in (histories, curves):
        assert len(lines) == len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(names)


def test_a_single_epoch_is_seen(as_figure):
    single, star = draw_histories({"lr 1": [0.5]}, ("lr 1", 1), "", "").axes[0].lines
    assert single.get_marker() == "."
    assert star.get_xydata().tolist() == [[1, 0.5]]


@pytest.mark.parametrize("chosen", [("lr 2", 1), ("lr 1", 0), ("lr 1", 3)])
def test_a_choice_that_is_not_among_the_histories_is_refused(chosen):
    with pytest.raises(ValueError, match="`chosen` must be a candidate of `histories`"):
        draw_histories({"lr 1": [0.5, 0.6]}, chosen, "", "")


def test_strange_labels_and_scores_that_are_not_finite_are_drawn():
    drawn = [draw_roc(dict.fromkeys(names, (FALSE, TRUE)), names[2]) for names in (STRANGE, ["x", "y", "z", "w"])]
    histories = {name: [np.nan, 0.5, np.inf] for name in STRANGE}
    drawn += [draw_histories(histories, (STRANGE[2], epoch), STRANGE[2], STRANGE[2]) for epoch in (1, 2)]
    assert {picture.mode for picture in drawn} == {"RGB"}
    assert len({picture.tobytes() for picture in drawn}) == 4
