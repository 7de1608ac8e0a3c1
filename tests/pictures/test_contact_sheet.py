import io
import warnings

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value, concatenate_datasets
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image as PILImage

from modeling_pcl.data import schema
from modeling_pcl.pictures.contact_sheet import (
    draw_class_predictions,
    draw_corpus,
    draw_pairs,
    draw_pose_predictions,
)

NAN = float("nan")
RAW = Image(decode=False)
NOSE = np.array([31, 119, 180])
EXPRESSION = ClassLabel(names=["a $5 bill", "under_score_$x^2$", "two\nlines", "😀 laughs", "微笑", "x" * 60])


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # What tests of other files left open, such as Gradio's event loops, may be collected while one of these runs.
        warnings.simplefilter("ignore", ResourceWarning)
        yield


def image(number: int) -> dict:
    """A face of one colour of its own."""
    file = io.BytesIO()
    PILImage.new("RGB", (30, 40), (number, 90, 80)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def table(count: int, features: dict | None = None, **columns) -> Dataset:
    columns = {"image": [image(number) for number in range(count)], **columns}
    return Dataset.from_dict(columns, features=Features({"image": RAW, **(features or {})}))


def pair_table(same: list, fold: list) -> Dataset:
    columns = {"image_a": [image(row) for row in range(len(same))], "image_b": [image(200) for _ in same]}
    features = Features({"image_a": RAW, "image_b": RAW, "same": Value("bool"), "fold": Value("int32")})
    return Dataset.from_dict({**columns, "same": same, "fold": fold}, features=features)


def texts(figure: Figure, side: str) -> list[str]:
    """What is written on one side of the tiles: their texts end above an image or begin below it."""
    (axes,) = figure.axes
    return [text.get_text().replace("\xa0", " ") for text in axes.texts if text.get_va() == side]


def marks(figure: Figure) -> list[str]:
    return texts(figure, "bottom")


def captions(figure: Figure) -> list[str]:
    return texts(figure, "top")


def chart_titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def heading(figure: Figure) -> str:
    return figure.get_suptitle()


def pixels(figure: Figure) -> list[np.ndarray]:
    """The pixels of each tile."""
    (axes,) = figure.axes
    return [np.asarray(image.get_array()) for image in axes.images]


def frames(figure: Figure) -> list[tuple]:
    """The colour of each tile's frame."""
    (axes,) = figure.axes
    return [frame.get_edgecolor() for frame in axes.patches]


def test_a_tile_shows_its_image_and_the_labels_of_the_same_row(figures):
    draw_corpus(table(12, {"subject": Value("string")}, subject=[f"s{row}" for row in range(12)]), "faces")
    assert heading(figures[0]) == "faces: 12 rows, 12 subjects"
    rows = [tile[80, 80, 0] for tile in pixels(figures[0])]
    assert sorted(rows) == list(range(12))
    assert captions(figures[0]) == [f"subject s{row}" for row in rows]


def test_the_same_seed_gives_the_same_pixels_and_another_one_other_samples():
    corpus = table(20, {"subject": Value("string")}, subject=[f"s{row % 7}" for row in range(20)])
    pairs = pair_table([True, False] * 10, [1, 2] * 10)
    for draw, rows in ((draw_corpus, corpus), (draw_pairs, pairs)):
        first, same, other = (np.asarray(draw(rows, "faces", samples=4, seed=seed)) for seed in (3, 3, 4))
        np.testing.assert_array_equal(first, same)
        assert first.shape != other.shape or (first != other).any()


@pytest.mark.parametrize(("angle", "axis"), [("yaw", 1), ("pitch", 0)])
@pytest.mark.parametrize("turn", [-40, 40])
def test_the_nose_is_drawn_on_the_side_that_the_sign_says(figures, angle, axis, turn):
    pose = {"yaw": [0.0], "pitch": [0.0], "roll": [0.0]} | {angle: [float(turn)]}
    draw_corpus(table(1, dict.fromkeys(pose, Value("float32")), **pose), "faces")
    places = (np.abs(pixels(figures[0])[0] - NOSE).max(axis=2) < 30).nonzero()[axis]
    # Yaw above zero is to the right, pitch above zero is up, where rows count downwards.
    assert np.sign(places.mean() - 80) == np.sign(turn if angle == "yaw" else -turn)


def test_extremes_are_marked_and_the_axes_explained_once(figures):
    angles = [float(10 * row % 7) for row in range(7)]
    features = dict.fromkeys(("yaw", "pitch", "roll"), Value("float32"))
    draw_corpus(table(7, features, yaw=angles, pitch=[0.0] * 7, roll=angles), "faces", samples=4)
    written = marks(figures[0])
    assert written[0] == "lowest yaw, lowest pitch,\nlowest roll"
    assert ["lowest yaw" in mark for mark in written] == [True, True, False, False]
    assert len(figures[0].legends) == 1


BROKEN = {
    "the file is empty": {"bytes": b"", "path": "face.jpg"},
    "no image format that": {"bytes": b"nonsense", "path": None},
    "the row holds no image": None,
    "No such file": {"bytes": None, "path": "/nowhere/with_a_$very$_long_name_of_a_file/and_a_folder/00001.jpg"},
}


@pytest.mark.parametrize(("reason", "record"), BROKEN.items())
def test_an_image_that_does_not_decode_is_a_grey_tile_with_the_reason(figures, reason, record):
    features = Features({"image": RAW, **dict.fromkeys(("yaw", "pitch", "roll"), Value("float32"))})
    corpus = Dataset.from_dict({"image": [record], "yaw": [9.0], "pitch": [9.0], "roll": [9.0]}, features=features)
    draw_corpus(corpus, "faces")
    (told,) = texts(figures[0], "center")
    assert reason in told.replace("\n", " ")
    assert (pixels(figures[0])[0] == 190).all()  # No axes cover the reason.
    assert captions(figures[0]) == ["yaw +9 pitch +9 roll +9"]


def test_labels_are_written_as_they_are_and_no_tile_covers_another(figures):
    corpus = table(
        12,
        {"expression": EXPRESSION, "subject": Value("string"), "attributes": {"$a_b$": Value("bool")}},
        expression=[row % 6 for row in range(12)],
        subject=["$x$_\n微笑😀 and many, many more letters"] * 12,
        attributes=[{"$a_b$": row % 2 == 0} for row in range(12)],
    )
    draw_corpus(corpus, "$a_title$ 微笑 " + "very long " * 40)
    assert heading(figures[0]).startswith("$a_title$ 微笑 very long")
    written = " ".join(captions(figures[0])).replace("\n", " ")
    for name in ("a $5 bill", "under_score_$x^2$", "two lines", "😀 laughs", "微笑", "subject $x$_ 微笑😀 and many…"):
        assert name in written
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Measured once more, outside of `render_figure`.
        (axes,) = figures[0].axes
        tiles = zip(axes.images, axes.texts[::2], axes.texts[1::2], strict=True)
        boxes = [Bbox.union([artist.get_window_extent() for artist in tile]) for tile in tiles]
    for i, box in enumerate(boxes):
        assert -1 <= box.x0 < box.x1 <= figures[0].bbox.width + 1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_corpus_without_labels_has_no_charts(figures, count):
    draw_corpus(table(count), "faces")
    assert heading(figures[0]) == ("faces: 1 row" if count == 1 else f"faces: {count} rows")
    assert len(figures) == 1
    assert len(pixels(figures[0])) == count


@pytest.mark.parametrize("count", [1, 2])
def test_a_corpus_of_which_nothing_is_known_is_drawn(figures, count):
    features = {name: schema.COLUMNS[name] for name in ("subject", "yaw", "pitch", "roll", "smile", "age", "gender")}
    features |= {"expression": EXPRESSION, "AU1": schema.PRESENCE, "AU2": schema.INTENSITY}
    columns = {name: [None] * count for name in features}
    features["attributes"] = {"x": Value("bool"), "race": ClassLabel(names=["A"])}
    draw_corpus(table(count, features, **columns, attributes=[None] * count), "faces")
    assert heading(figures[0]).endswith(", 0 subjects")
    assert captions(figures[0]) == [""] * count
    assert len(chart_titles(figures[1])) == 12


def test_the_charts_count_all_rows_not_only_the_samples(figures):
    draw_corpus(table(50, {"smile": schema.COLUMNS["smile"]}, smile=[0] * 40 + [1] * 10), "faces", samples=4)
    assert len(pixels(figures[0])) == 4
    assert [bar.get_height() for bar in figures[1].axes[0].patches] == [40, 10]


def test_selected_and_joined_corpora_in_any_format_are_drawn_alike():
    features = {"subject": Value("string"), "attributes": {"bald": Value("bool")}}
    corpus = table(8, features, subject=[f"s{row}" for row in range(8)], attributes=[{"bald": True}] * 8)
    joined = concatenate_datasets([corpus.select(range(5)), corpus.select(range(5, 8))]).with_format("torch")
    np.testing.assert_array_equal(*(np.asarray(draw_corpus(one, "faces")) for one in (corpus, joined)))


def test_pairs_stand_side_by_side_framed_by_what_they_are_and_counted_by_fold(figures):
    draw_pairs(pair_table([True, False, True, None], [1, 2, 2, None]), "faces")
    assert heading(figures[0]) == "faces: 4 pairs"
    words = captions(figures[0])
    assert sorted(words[:2]) == ["same, fold 1", "same, fold 2"]
    assert words[2:] == ["different, fold 2", ""]
    assert chart_titles(figures[1]) == ["pairs by fold, 1 missing"]
    first, second, third, _ = frames(figures[0])
    assert first == second != third
    assert pixels(figures[0])[0][80, [80, 240], 0].tolist() in ([0, 200], [2, 200])


def test_predictions_stand_beside_labels(figures):
    draw_class_predictions([image(0), image(1)], ["a", "b"], ["a", "c"], "classes")
    assert marks(figures[0]) == ["labelled a", "labelled b"]
    assert captions(figures[0]) == ["predicted a", "predicted c"]
    right, wrong = frames(figures[0])
    assert right != wrong
    draw_pose_predictions([image(0)], [[10, 0, 0]], [[-20, 5, 1]], "poses")
    assert marks(figures[1]) == ["labelled", "predicted"]
    assert captions(figures[1]) == ["yaw +10 pitch +0 roll +0", "yaw -20 pitch +5 roll +1"]
