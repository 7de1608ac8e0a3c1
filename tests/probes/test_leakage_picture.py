import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from modeling_pcl.probes import leakage_picture
from modeling_pcl.probes.leakage_picture import MIRRORING, draw_leakage
from modeling_pcl.probes.picture_style import FEATURES

READINGS = {
    "pose R²": {"trunk": 0.6, "face": -0.1, "pose": 0.7},
    "identity AUC": {"trunk": 0.7, "face": None, "pose": float("nan")},
}
MIRROR = {"trunk": 0.3, "face": 0.05, "pose": 1.25}


@pytest.fixture
def as_figure(monkeypatch):
    """Drawing returns the matplotlib figure."""
    monkeypatch.setattr(leakage_picture, "rendered", lambda figure: figure)


def test_every_measure_and_mirroring_have_a_panel_of_bars_with_numbers(as_figure):
    figure = draw_leakage(READINGS, MIRROR, None, "title")
    assert [axes.get_title() for axes in figure.axes] == ["pose R²", "identity AUC", MIRRORING]
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    assert heights == [[0.6, -0.1, 0.7], [0.7, 0, 0], [0.3, 0.05, 1.25]]
    words = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert words == [["0.600", "-0.100", "0.700"], ["0.700", "missing", "missing"], ["0.300", "0.050", "1.250"]]
    for axes in figure.axes:
        assert [text.get_text() for text in axes.get_xticklabels()] == ["trunk", "face", "pose"]
        assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == [
            FEATURES[name][0] for name in ("trunk", "face", "pose")
        ]
    assert figure.get_suptitle() == "title"


def test_each_panel_has_its_own_axis_from_zero_and_room_for_the_numbers(as_figure):
    pose, identity, mirror = (axes.get_ylim() for axes in draw_leakage(READINGS, MIRROR, None, "").axes)
    assert pose[0] < -0.15
    assert identity[0] == mirror[0] == 0
    assert 0.75 < identity[1] < 0.9
    assert 1.3 < mirror[1] < 1.5


def test_numbers_stand_beyond_the_ends_of_their_bars(as_figure):
    texts = draw_leakage(READINGS, MIRROR, None, "").axes[0].texts
    assert [(text.xy, text.get_va()) for text in texts] == [
        ((0, 0.6), "bottom"),
        ((1, -0.1), "top"),
        ((2, 0.7), "bottom"),
    ]


def test_swaps_stand_below_the_charts_as_wide_as_they(as_figure, monkeypatch):
    monkeypatch.undo()
    charts = draw_leakage(READINGS, MIRROR, None, "title")
    swaps = Image.new("RGBA", (40, 20), (255, 0, 255, 255))
    picture = draw_leakage(READINGS, MIRROR, swaps, "title")
    assert picture.size == (charts.width, charts.height + round(charts.width / 2))
    pixels = np.asarray(picture)
    assert np.array_equal(pixels[: charts.height], np.asarray(charts))
    assert (pixels[charts.height :] == [255, 0, 255]).all()


@pytest.mark.parametrize(("readings", "mirror"), [({"pose R²": {}}, MIRROR), (READINGS, {})])
def test_a_panel_without_features_is_refused(readings, mirror):
    with pytest.raises(ValueError, match="`readings` and `mirror` must hold at least one feature"):
        draw_leakage(readings, mirror, None, "")


def test_strange_names_are_drawn_and_a_changed_value_changes_the_picture():
    def picture(value: float):
        return draw_leakage(
            {"表情 $\\frac{$ " * 9: {"_a $_{$": value}}, {"$_{$ a very long name": 0.0}, None, "$_{$ 表情"
        )

    assert picture(0.5).mode == "RGB"
    assert picture(0.5).tobytes() != picture(-0.5).tobytes()
