import numpy as np
import pytest
from matplotlib.figure import Figure

from modeling_pcl.pictures.charts import (
    draw_confusion,
    draw_errors,
    draw_histories,
    draw_learning_curve,
    draw_roc,
    draw_unit_scores,
)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_row_of_confusions_is_its_shares_and_names_count_images(figures):
    draw_confusion([[3, 1, 0], [0, 2, 0], [0, 0, 0]], ["happy", "$sad$", "none"], "faces")
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.texts] == ["75%", "25%", "0%", "0%", "100%", "0%", "0%", "0%", "0%"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["happy (4)", "$sad$ (2)", "none (0)"]
    assert figures[0].get_suptitle() == "faces"


@pytest.mark.parametrize(("counts", "names"), [([], []), ([[1, 2]], ["a"]), ([[1]], ["a", "b"])])
def test_confusions_without_a_row_and_column_a_name_are_refused(counts, names):
    with pytest.raises(ValueError, match="`counts` must have a row and a column"):
        draw_confusion(counts, names, "")


def test_each_angle_has_its_points_and_its_error(figures):
    labels = np.array([[0.0, 10, 20], [5, 0, -40]])
    draw_errors(labels + np.array([1, -2, 4]), labels, ("yaw", "pitch", "roll"), "poses", unit="degrees")
    for axes, column, error in zip(figures[0].axes, range(3), (1, 2, 4)):
        points = axes.collections[0].get_offsets()
        np.testing.assert_allclose(points[:, 0], labels[:, column])
        np.testing.assert_allclose(np.abs(points[:, 1] - points[:, 0]), error)
        assert f"error {error}.00°" in axes.get_title()


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros((2, 2)), np.full((2, 3), np.nan)])
def test_poses_of_another_kind_are_refused(bad):
    with pytest.raises(ValueError, match="`predictions` and `references` must be"):
        draw_errors(bad, np.zeros(bad.shape), ("yaw", "pitch", "roll"), "")


def test_units_have_a_bar_each_and_the_mean_is_of_those_with_a_score(figures):
    draw_unit_scores({"AU1": 0.5, "AU2": None, "AU4": 0.7}, "units", "F1")
    (axes,) = figures[0].axes
    assert [bar.get_height() for bar in axes.patches] == [0.5, 0, 0.7]
    assert [text.get_text() for text in axes.texts] == ["0.50", "no F1", "0.70"]
    assert axes.get_title() == "mean 0.600"


@pytest.mark.parametrize("scores", [{}, {"AU1": 1.2}])
def test_unit_scores_that_are_none_are_refused(scores):
    with pytest.raises(ValueError, match="`scores` must name at least one unit"):
        draw_unit_scores(scores, "", "")


def test_a_roc_curve_says_what_is_reached_at_low_rates_without_interpolation(figures):
    draw_roc({"face": (np.array([0, 0.005, 0.5, 1]), np.array([0.2, 0.4, 0.9, 1]))}, "pairs")
    assert legend(figures[0]) == ["face: AUC 0.798, TAR 0.400 at FAR 0.01, 0.200 at FAR 0.001", "chance"]
    assert figures[0].axes[0].get_xscale() == "log"


@pytest.mark.parametrize(
    "curve", [([0, 1], [0.5]), ([0.1, 1], [0, 1]), ([0, 1], [1, 0]), ([0, 2], [0, 1]), ([[0]], [[1]])]
)
def test_rates_that_do_not_rise_from_zero_are_refused(curve):
    with pytest.raises(ValueError, match="`curves` must"):
        draw_roc({"a": tuple(map(np.array, curve))}, "")
    with pytest.raises(ValueError, match="at least one curve"):
        draw_roc({}, "")


def test_histories_have_a_line_each_and_a_star_at_the_choice(figures):
    draw_histories({"rate 0.1": [0.1, 0.5, 0.4], "rate 1": [0.3]}, ("rate 0.1", 2), "epochs", "score")
    (axes,) = figures[0].axes
    assert [line.get_ydata().tolist() for line in axes.lines[:2]] == [[0.1, 0.5, 0.4], [0.3]]
    assert axes.lines[2].get_xydata().tolist() == [[2, 0.5]]
    assert legend(figures[0])[-1] == "chosen: rate 0.1,\nepoch 2, 0.500"


@pytest.mark.parametrize("chosen", [("b", 1), ("a", 0), ("a", 3)])
def test_a_choice_that_is_none_is_refused(chosen):
    with pytest.raises(ValueError, match="`chosen` must be a candidate"):
        draw_histories({"a": [1, 2]}, chosen, "", "")


def test_a_learning_curve_has_a_line_for_each_side_of_one_feature(figures):
    scores = dict.fromkeys(("expression_accuracy", "verification_auc", "yaw_r2", "age_mae"), "0.5")
    rows = [
        {"images_seen": str(10**6 * step), "side": side, "feature": feature, **scores}
        for step in (1, 2)
        for side in ("64", "100")
        for feature in ("trunk", "face")
    ]
    draw_learning_curve(rows)
    assert len(figures[0].axes) == 4
    assert [line.get_xdata().tolist() for line in figures[0].axes[0].lines] == [[1, 2], [1, 2]]
    assert legend(figures[0]) == ["at 64 px", "at 100 px"]
