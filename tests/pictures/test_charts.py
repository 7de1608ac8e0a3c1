import numpy as np
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


def test_each_angle_has_its_points_and_its_error(figures):
    labels = np.array([[0.0, 10, 20], [5, 0, -40]])
    draw_errors(labels + np.array([1, -2, 4]), labels, ("yaw", "pitch", "roll"), "poses", unit="degrees")
    for axes, column, error in zip(figures[0].axes, range(3), (1, 2, 4)):
        points = axes.collections[0].get_offsets()
        np.testing.assert_allclose(points[:, 0], labels[:, column])
        np.testing.assert_allclose(np.abs(points[:, 1] - points[:, 0]), error)
        assert f"error {error}.00°" in axes.get_title()


def test_units_have_a_bar_each_and_the_mean_is_of_those_with_a_score(figures):
    draw_unit_scores({"AU1": 0.5, "AU2": None, "AU4": 0.7}, "units", "F1")
    (axes,) = figures[0].axes
    assert [bar.get_height() for bar in axes.patches] == [0.5, 0, 0.7]
    assert [text.get_text() for text in axes.texts] == ["0.50", "no F1", "0.70"]
    assert axes.get_title() == "mean 0.600"


def test_a_roc_curve_says_what_is_reached_at_low_rates_without_interpolation(figures):
    draw_roc({"face": (np.array([0, 0.005, 0.5, 1]), np.array([0.2, 0.4, 0.9, 1]))}, "pairs")
    assert legend(figures[0]) == ["face: AUC 0.798, TAR 0.400 at FAR 0.01, 0.200 at FAR 0.001", "chance"]
    assert figures[0].axes[0].get_xscale() == "log"


def test_histories_have_a_line_each_and_a_star_at_the_choice(figures):
    draw_histories({"rate 0.1": [0.1, 0.5, 0.4], "rate 1": [0.3]}, ("rate 0.1", 2), "epochs", "score")
    (axes,) = figures[0].axes
    assert [line.get_ydata().tolist() for line in axes.lines[:2]] == [[0.1, 0.5, 0.4], [0.3]]
    assert axes.lines[2].get_xydata().tolist() == [[2, 0.5]]
    assert legend(figures[0])[-1] == "chosen: rate 0.1,\nepoch 2, 0.500"


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
