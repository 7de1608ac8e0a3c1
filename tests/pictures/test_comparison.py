import numpy as np
from PIL import Image

from modeling_pcl.pictures.comparison import draw_comparison, draw_leakage

TABLE = {
    "accuracy": {
        "random initialisation": {"trunk": (0.2, 0.01), "face": (0.3, None)},
        "ours": {"trunk": (0.5, float("nan")), "face": None},
    },
    "error": {"random initialisation": {"trunk": (9.0, 0.5)}, "ours": {"trunk": (7.0, None)}},
}
DIRECTIONS = {"accuracy": "higher is better", "error": "lower is better"}


def test_every_known_mean_is_a_dot_and_the_best_baseline_a_line(figures):
    draw_comparison(TABLE, DIRECTIONS)
    accuracy, error = figures[0].axes
    assert sorted(container[0].get_xdata()[0] for container in accuracy.containers) == [0.2, 0.3, 0.5]
    assert [container.has_xerr for container in accuracy.containers] == [True, False, False]
    dashed = [axes.lines[-1].get_xdata()[0] for axes in (accuracy, error)]
    assert dashed == [0.3, 9.0]
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["random initialisation", "ours"]
    assert accuracy.get_title() == "accuracy\nhigher is better"


def test_readings_are_bars_with_their_numbers_and_swaps_stand_below(figures):
    readings = {"pose R²": {"face": 0.25, "pose": None}, "identity": {"face": -0.5, "pose": 0.75}}
    bare = draw_leakage(readings, {"face": 1.0, "pose": 2.0}, None, "leaks")
    pose, identity, mirror = figures[0].axes
    assert [text.get_text() for text in pose.texts] == ["0.250", "missing"]
    assert [bar.get_height() for bar in identity.patches] == [-0.5, 0.75]
    assert mirror.get_title() == "how far mirroring moves it"
    both = draw_leakage(readings, {"face": 1.0}, Image.new("RGB", (50, 100), "red"), "leaks")
    assert both.size[1] > 2 * bare.size[1]
    assert (np.asarray(both)[-10, both.width // 2] == [255, 0, 0]).all()
