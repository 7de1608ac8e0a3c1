import numpy as np
import pytest
from matplotlib.colors import to_rgba

from modeling_pcl.probes import pictures
from modeling_pcl.probes.pictures import draw_confusion, draw_pose_errors, draw_unit_scores

STRANGE = ["$", "a very $_{$ long name " * 4, "表情 \n x"]


@pytest.fixture
def as_figure(monkeypatch):
    """Drawing returns the matplotlib figure."""
    monkeypatch.setattr(pictures, "rendered", lambda figure: figure)


def tick_labels(axis) -> list[str]:
    return [text.get_text() for text in axis.get_ticklabels()]


def test_a_cell_says_and_shows_the_share_of_its_row(as_figure):
    (axes,) = draw_confusion([[1, 3], [1000, 0]], ["no", "yes"], "title").axes
    cells = {tuple(map(int, text.get_position()[::-1])): text for text in axes.texts}
    said = {place: text.get_text() for place, text in cells.items()}
    assert said == {(0, 0): "25%\n1", (0, 1): "75%\n3", (1, 0): "100%\n1,000", (1, 1): "0%\n0"}
    assert axes.images[0].get_array().tolist() == [[0.25, 0.75], [1, 0]]
    assert axes.images[0].get_clim() == (0, 1)
    assert (cells[0, 0].get_color(), cells[0, 1].get_color()) == ("black", "white")  # Readable on pale and on dark.
    assert tick_labels(axes.yaxis) == tick_labels(axes.xaxis) == ["no", "yes"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("predicted", "labelled", "title")


def test_labelled_classes_stand_from_the_top_of_the_picture():
    picture = np.asarray(draw_confusion([[0, 5], [0, 5]], ["a", "b"], ""))
    is_dark_blue = (picture == [8, 48, 107]).all(axis=2)  # The colour map's end.
    both = is_dark_blue.sum()
    upper = np.asarray(draw_confusion([[0, 5], [0, 0]], ["a", "b"], ""))
    is_dark_blue_above = (upper == [8, 48, 107]).all(axis=2)
    assert is_dark_blue_above.sum() == pytest.approx(both / 2, rel=0.02)
    assert is_dark_blue_above.nonzero()[0].max() < is_dark_blue.nonzero()[0].mean()


@pytest.mark.filterwarnings("error")
def test_a_row_without_images_is_blank(as_figure):
    (axes,) = draw_confusion(np.array([[2, 2], [0, 0]]), ["a", "b"], "").axes
    assert [text.get_position()[1] for text in axes.texts] == [0, 0]
    assert np.isnan(np.ma.filled(axes.images[0].get_array().astype(float), np.nan)[1]).all()


def test_cells_of_many_classes_stay_large_enough_for_their_numbers(as_figure):
    few, many = (draw_confusion(np.ones((n, n), int), ["x"] * n, "") for n in (2, 12))
    assert few.get_figwidth() / 2 == pytest.approx(pictures.CELL_PX / 100)
    assert many.get_figwidth() / 12 == pytest.approx(pictures.LEAST_CELL_PX / 100)


def test_class_names_are_slanted_where_they_are_wider_than_a_cell(as_figure):
    (short,), (long,) = (draw_confusion(np.ones((2, 2), int), ["no", name], "").axes for name in ("yes", "y" * 30))
    assert {text.get_rotation() for text in short.get_xticklabels()} == {0}
    assert {text.get_rotation() for text in long.get_xticklabels()} == {45}


@pytest.mark.parametrize(("counts", "names"), [([], []), ([[1, 2]], ["a", "b"]), ([[1]], ["a", "b"]), ([1], ["a"])])
def test_a_table_that_is_not_square_or_has_other_names_is_refused(counts, names):
    with pytest.raises(ValueError, match="`counts` must have a row and a column for each"):
        draw_confusion(counts, names, "")


def test_each_angle_has_its_points_its_error_and_equal_axes(as_figure):
    labelled = np.array([[0.0, 10, -20], [40, -10, 20]])
    predicted = labelled + np.array([[1, -2, 0], [2, 4, 0]])
    panels = draw_pose_errors(predicted, labelled, "title").axes
    said = [panel.get_title() for panel in panels]
    assert said == [
        f"{name}: mean absolute error {mae}°" for name, mae in [("yaw", "1.50"), ("pitch", "3.00"), ("roll", "0.00")]
    ]
    for panel, labels, values in zip(panels, labelled.T, predicted.T):
        points = panel.collections[0].get_offsets()
        assert points.tolist() == np.stack([labels, values], axis=1).tolist()
        assert panel.get_xlim() == panel.get_ylim()
        assert panel.get_xlim()[0] < points.min()
        assert points.max() < panel.get_xlim()[1]
        assert panel.get_aspect() == 1
        diagonal = panel.lines[0]
        assert (diagonal.get_slope(), diagonal.get_xy1()) == (1, (0, 0))


def test_many_points_are_paler_than_few(as_figure):
    few, many = (draw_pose_errors(np.zeros((n, 3)), np.ones((n, 3)), "").axes[0].collections[0] for n in (10, 4000))
    assert many.get_alpha() == pytest.approx(0.1)
    assert few.get_alpha() == pytest.approx(0.6)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 3)), ((2, 2), (2, 2)), ((0, 3), (0, 3)), ((3,), (3,))])
def test_poses_of_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match=r"must both be `\(images, 3\)`"):
        draw_pose_errors(*map(np.zeros, shapes), "")


@pytest.mark.parametrize("place", [0, 1])
def test_a_pose_that_is_not_finite_is_refused(place):
    poses = [np.zeros((2, 3)), np.zeros((2, 3))]
    poses[place][1, 2] = np.nan
    with pytest.raises(ValueError, match="finite"):
        draw_pose_errors(*poses, "")


def test_units_have_bars_numbers_and_the_mean_of_those_that_have_a_score(as_figure):
    (axes,) = draw_unit_scores({"AU1": 0.5, "AU2": None, "AU4": 0.0, "AU12": 1.0}, "title", "F1").axes
    assert [bar.get_height() for bar in axes.patches] == [0.5, 0, 0, 1]
    assert [text.get_text() for text in axes.texts] == ["0.50", "no F1", "0.00", "1.00", "mean 0.500"]
    assert [text.xy for text in axes.texts[:4]] == [(0, 0.5), (1, 0), (2, 0), (3, 1)]
    assert list(axes.lines[0].get_ydata()) == [0.5, 0.5]
    assert axes.lines[0].get_linestyle() == "--"
    assert tick_labels(axes.xaxis) == ["AU1", "AU2", "AU4", "AU12"]
    assert axes.get_ylabel() == "F1"


def test_units_without_any_score_have_no_mean(as_figure):
    (axes,) = draw_unit_scores({"AU1": None, "AU2": None}, "", "F1").axes
    assert not axes.lines
    assert {text.get_text() for text in axes.texts} == {"no F1"}


@pytest.mark.parametrize("scores", [{}, {"AU1": 1.1}, {"AU1": 0.5, "AU2": -0.1}, {"AU1": float("nan")}])
def test_scores_out_of_their_range_or_of_no_unit_are_refused(scores):
    with pytest.raises(ValueError, match="`scores` must name at least one unit"):
        draw_unit_scores(scores, "", "F1")


def test_strange_labels_are_drawn_and_change_the_picture():
    table = np.eye(3, dtype=int)
    drawn = [draw_confusion(table, names, names[1]) for names in (STRANGE, ["x", "y", "z"])]
    drawn += [draw_unit_scores(dict.fromkeys(names, 0.5), names[1], names[1]) for names in (STRANGE, ["x", "y", "z"])]
    drawn += [draw_pose_errors(np.zeros((1, 3)), np.zeros((1, 3)), title) for title in (STRANGE[1], "x")]
    assert {picture.mode for picture in drawn} == {"RGB"}
    for strange, plain in zip(drawn[::2], drawn[1::2]):
        assert strange.tobytes() != plain.tobytes()


def test_bars_are_seen_in_the_picture():
    def blue(score: float) -> int:
        colour = [round(255 * part) for part in to_rgba(pictures.COLOUR)[:3]]
        return (np.asarray(draw_unit_scores({"AU1": score}, "", "F1")) == colour).all(axis=2).sum()

    assert blue(0.8) == pytest.approx(2 * blue(0.4), rel=0.03)
