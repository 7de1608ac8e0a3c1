import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from modeling_pcl.data import contact_sheet
from modeling_pcl.data.contact_sheet import FRAMES, HEADING_PX, TILE_PX
from modeling_pcl.data.pixel_figure import LINE_PX, rendered
from modeling_pcl.data.prediction_sheet import draw_class_predictions, draw_pose_predictions


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures of all pages that are drawn."""
    seen = []
    monkeypatch.setattr(contact_sheet, "rendered", lambda figure: seen.append(figure) or rendered(figure))
    return seen


def face(level: int) -> dict:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (level, 90, 80)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def tiles(figures: list[Figure]) -> list:
    """Axes with an image, in the order of the page, without the legend's."""
    return [axes for axes in figures[0].axes if axes.images]


def has(picture: Image.Image, colour: str) -> bool:
    wanted = tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return bool((np.asarray(picture) == wanted).all(axis=2).any())


class TestClasses:
    def test_each_face_says_label_and_prediction(self, figures):
        names = ["sad", "happy", "sad"]
        picture = draw_class_predictions([face(0), face(100), face(200)], names, ["sad", "sad", "sad"], "three faces")
        assert picture.mode == "RGB"
        assert [axes.get_title() for axes in tiles(figures)] == ["labelled sad", "labelled happy", "labelled sad"]
        assert [axes.get_xlabel() for axes in tiles(figures)] == ["predicted sad"] * 3
        assert [axes.images[0].get_array()[0, 0, 0] for axes in tiles(figures)] == [0, 100, 200]
        assert "three faces" in [text.get_text() for text in figures[0].texts]

    def test_right_ones_are_framed_green_and_wrong_ones_red(self):
        right = draw_class_predictions([face(0)], ["sad"], ["sad"], "")
        wrong = draw_class_predictions([face(0)], ["sad"], ["happy"], "")
        (green, _), (red, _) = FRAMES[True], FRAMES[False]
        assert (has(right, green), has(right, red)) == (True, False)
        assert (has(wrong, green), has(wrong, red)) == (False, True)

    def test_names_of_any_kind_are_cut_and_taken_literally(self, figures):
        name = "$x_2$ a name that is longer than the tile is wide"
        draw_class_predictions([face(0)], [name], ["_"], "$title")
        (axes,) = tiles(figures)
        assert axes.get_title().startswith("labelled $x_2$ a name")
        assert axes.get_title().endswith("…")
        assert axes.get_xlabel() == "predicted _"

    def test_an_image_that_does_not_decode_is_grey_and_keeps_its_words(self, figures):
        draw_class_predictions([{"bytes": b"no", "path": None}, face(9)], ["sad", "sad"], ["sad", "happy"], "")
        broken, whole = tiles(figures)
        assert set(np.unique(broken.images[0].get_array())) == {contact_sheet.GREY}
        assert "no image format" in " ".join(text.get_text() for text in broken.texts)
        assert (broken.get_xlabel(), whole.get_xlabel()) == ("predicted sad", "predicted happy")

    def test_lists_of_different_length_are_refused(self):
        with pytest.raises(ValueError, match=r"shorter|longer"):
            draw_class_predictions([face(0), face(1)], ["sad", "sad"], ["sad"], "")


class TestPoses:
    def test_each_face_is_drawn_with_the_labelled_and_with_the_predicted_pose(self, figures):
        labelled, predicted = [[30.2, -10.0, 0.0], [-80.0, 5.0, 20.0]], [[12.6, -9.5, 3.0], [-70.0, 1.0, 19.0]]
        draw_pose_predictions([face(0), face(100)], labelled, predicted, "two faces")
        shown = tiles(figures)[:4]
        assert [axes.get_title() for axes in shown] == ["labelled", "predicted"] * 2
        assert [axes.get_xlabel() for axes in shown] == [
            "yaw +30 pitch -10 roll +0",
            "yaw +13 pitch -10 roll +3",
            "yaw -80 pitch +5 roll +20",
            "yaw -70 pitch +1 roll +19",
        ]
        assert [axes.images[0].get_array()[0, 0, 0] for axes in shown] == [0, 0, 100, 100]

    def test_another_pose_draws_other_axes(self):
        same = draw_pose_predictions([face(0)], [[0.0, 0.0, 0.0]], [[0.4, 0.4, 0.4]], "")
        other = draw_pose_predictions([face(0)], [[0.0, 0.0, 0.0]], [[60.0, 0.4, 0.4]], "")
        assert same.size == other.size
        top = HEADING_PX + LINE_PX
        same, other = (np.asarray(picture)[top : top + TILE_PX] for picture in (same, other))  # Without the captions.
        columns = np.flatnonzero((same != other).any(axis=(0, 2)))
        assert columns.min() > TILE_PX  # Only the second tile, the predicted pose, has changed.
        assert len(columns) > 20
