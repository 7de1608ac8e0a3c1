import io
import warnings

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value, concatenate_datasets
from matplotlib.figure import Figure
from PIL import Image as PILImage

from modeling_pcl.data import contact_sheet, schema
from modeling_pcl.data.contact_sheet import GAP_PX, HEADING_PX, TILE_PX, draw_corpus, draw_pairs
from modeling_pcl.data.pixel_figure import rendered

NAN = float("nan")
RAW = Image(decode=False)
NOSE, GREY, GREEN, RED = (0, 0x30, 0xFF), (190, 190, 190), (0, 0x9A, 0), (0xD0, 0, 0)
EXPRESSION = ClassLabel(names=["a $5 bill", "under_score_$x^2$", "two\nlines", "😀 laughs", "微笑", "x" * 60])


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures of all pages that are drawn."""
    seen = []

    def remember(figure: Figure) -> PILImage.Image:
        seen.append(figure)
        return rendered(figure)

    monkeypatch.setattr(contact_sheet, "rendered", remember)
    return seen


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


def captions(figure: Figure) -> list[str]:
    return [axes.get_xlabel().replace("\xa0", " ") for axes in tiles(figure)]


def tiles(figure: Figure) -> list:
    return [axes for axes in figure.axes if axes.images]


def titles(figure: Figure) -> list[str]:
    """Those of the charts."""
    return [axes.get_title() for axes in figure.axes if not axes.images]


def heading(figure: Figure) -> str:
    return figure.texts[0].get_text()


def first_tile(picture: PILImage.Image, above_px: int = 0) -> np.ndarray:
    left, top = GAP_PX // 2, HEADING_PX + above_px
    return np.asarray(picture)[top : top + TILE_PX, left : left + TILE_PX]


def test_a_tile_shows_its_image_and_the_labels_of_the_same_row(figures):
    count = 12
    draw_corpus(table(count, {"subject": Value("string")}, subject=[f"s{row}" for row in range(count)]), "faces")
    assert heading(figures[0]) == "faces: 12 rows, 12 subjects"
    rows = [axes.images[0].get_array()[80, 80, 0] for axes in tiles(figures[0])]
    assert sorted(rows) == list(range(count))
    assert captions(figures[0]) == [f"subject s{row}" for row in rows]


def test_an_image_is_drawn_to_the_pixel_with_the_crop_of_the_package():
    halves = PILImage.new("RGB", (320, 160), "red")
    halves.paste("blue", (160, 0, 320, 160))
    file = io.BytesIO()
    halves.save(file, "PNG")
    corpus = Dataset.from_dict({"image": [{"bytes": file.getvalue(), "path": None}]}, features=Features({"image": RAW}))
    tile = first_tile(draw_corpus(corpus, "faces"))
    assert (tile[2:-2, 2:78] == [255, 0, 0]).all()
    assert (tile[2:-2, 82:-2] == [0, 0, 255]).all()


def test_the_same_seed_gives_the_same_pixels_and_another_one_other_samples():
    corpus = table(20, {"subject": Value("string")}, subject=[f"s{row % 7}" for row in range(20)])
    pictures = [np.asarray(draw_corpus(corpus, "faces", samples=4, seed=seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()
    pairs = pair_table([True, False] * 10, [1, 2] * 10)
    pictures = [np.asarray(draw_pairs(pairs, "faces", samples=4, seed=seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


@pytest.mark.parametrize(("angle", "axis"), [("yaw", 1), ("pitch", 0)])
@pytest.mark.parametrize("turn", [-40, 40])
def test_the_nose_is_drawn_on_the_side_that_the_sign_says(angle, axis, turn):
    pose = {"yaw": [0.0], "pitch": [0.0], "roll": [0.0]} | {angle: [float(turn)]}
    corpus = table(1, dict.fromkeys(pose, Value("float32")), **pose)
    words = "lowest yaw, lowest pitch, lowest roll"
    tile = first_tile(draw_corpus(corpus, "faces"), above_px=13 * (1 + len(words) // 28))
    places = (tile == NOSE).all(axis=2).nonzero()[axis]
    # Yaw above zero is to the right, pitch above zero is up, where rows count downwards.
    assert np.sign(places.mean() - TILE_PX / 2) == np.sign(turn if angle == "yaw" else -turn)
    assert len(places) > 100


def test_extremes_are_marked_and_the_axes_explained_once(figures):
    angles = [float(10 * row % 7) for row in range(7)]
    features = dict.fromkeys(("yaw", "pitch", "roll"), Value("float32"))
    draw_corpus(table(7, features, yaw=angles, pitch=[0.0] * 4 + [NAN, 0, 0], roll=angles), "faces", samples=4)
    marks = [axes.get_title() for axes in tiles(figures[0])]
    assert marks[0] == "lowest yaw, lowest pitch,\nlowest roll"
    assert ["lowest yaw" in mark for mark in marks] == [True, True, False, False]
    assert ["highest yaw" in mark for mark in marks] == [False, False, True, True]
    assert [caption.split()[1] for caption in captions(figures[0])] == ["+0", "+1", "+5", "+6"]
    assert len(figures[0].legends) == 1
    assert [len(axes.lines) > 0 for axes in tiles(figures[0])] == [True, True, False, True]


@pytest.mark.parametrize("pose", [[NAN] * 3, [None] * 3, [NAN, None, 1.0]])
def test_without_a_whole_pose_no_axes_are_drawn(figures, pose):
    angles = dict.fromkeys(("yaw", "pitch", "roll"), Value("float32"))
    draw_corpus(table(3, angles, yaw=pose, pitch=[None] * 3, roll=pose), "faces")
    assert figures[0].legends == []
    assert all(not axes.lines for axes in tiles(figures[0]))
    assert "pitch, 3 missing" in titles(figures[0])


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
    picture = draw_corpus(corpus, "faces")
    (axes,) = tiles(figures[0])
    assert reason in " ".join(text.get_text().replace("\n", " ") for text in axes.texts)
    assert not axes.lines  # They would cover the reason.
    assert axes.get_xlabel() == "yaw +9 pitch +9 roll +9"
    tile = first_tile(picture, above_px=26)
    assert (tile == GREY).all(axis=2).mean() > 0.7
    box, words = axes.get_window_extent(), axes.texts[0].get_window_extent()
    assert box.x0 <= words.x0 < words.x1 <= box.x1
    assert box.y0 <= words.y0 < words.y1 <= box.y1


def test_one_broken_image_of_a_pair_leaves_the_other_to_see(figures):
    pairs = pair_table([True], [1]).map(lambda row: {"image_b": {"bytes": b"", "path": None}})
    draw_pairs(pairs.cast_column("image_b", RAW), "faces")
    (axes,) = tiles(figures[0])
    whole, broken = (shown.get_array()[80, 80].tolist() for shown in axes.images)
    assert (whole, broken) == ([0, 90, 80], list(GREY))


def odd_corpus() -> Dataset:
    features = {"expression": EXPRESSION, "subject": Value("string"), "attributes": {"$a_b$": Value("bool")}}
    return table(
        12,
        features | {"AU1": schema.INTENSITY, "yaw": Value("float32"), "pitch": Value("float32")},
        expression=[row % 6 for row in range(12)],
        subject=["$x$_\n微笑😀 and many, many more letters"] * 12,
        attributes=[{"$a_b$": row % 2 == 0} for row in range(12)],
        AU1=[row % 6 for row in range(12)],
        yaw=[float(row) for row in range(12)],
        pitch=[float(-row) for row in range(12)],
    )


def test_no_words_overlap_or_leave_the_page_whatever_the_labels(figures):
    picture = draw_corpus(odd_corpus(), "$a_title$ 微笑 " + "very long " * 40)
    (figure,) = figures
    assert heading(figure).startswith("$a_title$ 微笑 very long")
    words = [text for axes in tiles(figure) for text in (axes.title, axes.xaxis.label) if text.get_text()]
    assert len(words) > 12
    boxes = [text.get_window_extent() for text in [*words, figure.texts[0]]]
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= picture.width
        assert 0 <= box.y0 < box.y1 <= picture.height
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert not any(box.overlaps(axes.get_window_extent()) for axes in tiles(figure))


def test_labels_are_written_as_they_are(figures):
    draw_corpus(odd_corpus(), "faces")
    written = " ".join(captions(figures[0])).replace("\n", " ")
    for name in ("a $5 bill", "under_score_$x^2$", "two lines", "😀 laughs", "微笑"):
        assert name in written
    assert "subject $x$_ 微笑😀 and many…" in written


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_corpus_without_labels_has_no_charts(figures, count):
    draw_corpus(table(count), "faces")
    assert heading(figures[0]) == ("faces: 1 row" if count == 1 else f"faces: {count} rows")
    assert len(tiles(figures[0])) == len(figures[0].axes) == count


@pytest.mark.parametrize("count", [1, 2])
def test_a_corpus_of_which_nothing_is_known_is_drawn(figures, count):
    features = {name: schema.COLUMNS[name] for name in ("subject", "yaw", "pitch", "roll", "smile", "age", "gender")}
    features |= {"expression": EXPRESSION, "AU1": schema.PRESENCE, "AU2": schema.INTENSITY}
    columns = {name: [None] * count for name in features}
    features["attributes"] = {"x": Value("bool"), "race": ClassLabel(names=["A"])}
    draw_corpus(table(count, features, **columns, attributes=[None] * count), "faces")
    assert heading(figures[0]).endswith(", 0 subjects")
    assert captions(figures[0]) == [""] * count
    assert len(titles(figures[0])) == 12
    unknown = [title for title in titles(figures[0]) if not title.startswith("action units")]
    assert all(title.endswith(f", {count} missing") for title in unknown)


def test_the_charts_count_all_rows_not_only_the_samples(figures):
    corpus = table(50, {"smile": schema.COLUMNS["smile"]}, smile=[0] * 40 + [1] * 10)
    draw_corpus(corpus, "faces", samples=4)
    assert len(tiles(figures[0])) == 4
    (chart,) = (axes for axes in figures[0].axes if not axes.images)
    assert [bar.get_height() for bar in chart.patches] == [40, 10]


def test_selected_and_joined_corpora_in_any_format_are_drawn_alike(figures):
    features = {"subject": Value("string"), "attributes": {"bald": Value("bool")}}
    labels = {"subject": [f"s{row}" for row in range(8)], "attributes": [{"bald": True}] * 8}
    corpus = table(8, features, **labels)
    joined = concatenate_datasets([corpus.select(range(5)), corpus.select(range(5, 8))]).with_format("torch")
    whole, parts = (np.asarray(draw_corpus(one, "faces")) for one in (corpus, joined))
    np.testing.assert_array_equal(whole, parts)
    draw_corpus(corpus.select([3]), "faces")
    assert captions(figures[-1]) == ["bald, subject s3"]


def test_pairs_are_framed_by_what_they_are_and_counted_by_fold(figures):
    picture = np.asarray(draw_pairs(pair_table([True, False, True, None], [1, 2, 2, None]), "faces"))
    assert heading(figures[0]) == "faces: 4 pairs"
    words = captions(figures[0])
    assert sorted(words[:2]) == ["same, fold 1", "same, fold 2"]
    assert words[2:] == ["different, fold 2", ""]
    assert titles(figures[0]) == ["pairs by fold, 1 missing"]
    middle = HEADING_PX + TILE_PX // 2
    cell = 2 * TILE_PX + GAP_PX
    frames = [tuple(picture[middle, GAP_PX // 2 + cell * column].tolist()) for column in range(3)]
    assert frames == [GREEN, GREEN, RED]


def test_the_two_images_of_a_pair_stand_side_by_side_in_their_order(figures):
    draw_pairs(pair_table([True, True], [1, 1]), "faces", samples=1)
    (axes,) = tiles(figures[0])
    first, second = axes.images
    assert first.get_array()[80, 80, 0] in (0, 1)
    assert second.get_array()[80, 80, 0] == 200
    assert (first.get_extent()[1], second.get_extent()[0]) == (TILE_PX, TILE_PX)
    assert axes.get_window_extent().width == pytest.approx(2 * axes.get_window_extent().height)


@pytest.mark.parametrize("samples", [0, -3])
def test_no_samples_are_refused(samples):
    with pytest.raises(ValueError, match="`samples` of at least 1"):
        draw_corpus(table(2), "faces", samples=samples)
    with pytest.raises(ValueError, match="`samples` of at least 1"):
        draw_pairs(pair_table([True], [1]), "faces", samples=samples)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="rows to draw"):
        draw_corpus(table(2).select([]), "faces")
    with pytest.raises(ValueError, match="rows to draw"):
        draw_pairs(pair_table([True], [1]).select([]), "faces")
