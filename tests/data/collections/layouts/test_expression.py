from pathlib import Path

import numpy as np
import pytest
from miniatures import draw as make

from modeling_pcl.data.collections.layouts.base import LayoutError
from modeling_pcl.data.collections.layouts.expression import read_fer2013, read_rafdb

FER2013 = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
RAFDB = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]


def make_face(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (48, 48), dtype=np.uint8)


def format_pixels(number: int) -> str:
    return " ".join(map(str, make_face(number).ravel()))


def write_table(root: Path, *bad: str) -> list[str]:
    usages = ["Training", "Training", "PublicTest", "PrivateTest", "Training", "Training", "PrivateTest"]
    lines = [f"{number},{format_pixels(number)},{usage}" for number, usage in enumerate(usages)]
    (root / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *lines, *bad]) + "\n")
    return usages


def test_the_table_of_fer2013_becomes_grey_pixels_by_split(tmp_path):
    write_table(tmp_path)
    collection = read_fer2013(tmp_path)
    assert collection.columns["expression"].names == FER2013
    assert {
        split: [(row.image.name, row.labels["expression"]) for row in rows] for split, rows in collection.splits.items()
    } == {
        "train": [("fer2013.csv:2", 0), ("fer2013.csv:3", 1), ("fer2013.csv:6", 4), ("fer2013.csv:7", 5)],
        "validation": [("fer2013.csv:4", 2)],
        "test": [("fer2013.csv:5", 3), ("fer2013.csv:8", 6)],
    }
    image = collection.splits["validation"][0].image
    assert image.source.dtype == np.uint8
    np.testing.assert_array_equal(image.source, make_face(2))
    assert collection.broken == []


def test_the_order_of_the_table_s_columns_is_that_of_its_header(tmp_path):
    lines = ["emotion, Usage, pixels", f"3,PublicTest,{format_pixels(5)}"]
    (tmp_path / "icml_face_data.csv").write_text("\n".join(lines))
    (row,) = read_fer2013(tmp_path).splits["validation"]
    assert (row.image.name, row.labels) == ("icml_face_data.csv:2", {"expression": 3})
    np.testing.assert_array_equal(row.image.source, make_face(5))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("emotion,pixels\n0,1\n", r"fer2013.csv, line 1: the header must be `emotion,pixels,Usage`, it is"),
        ("", r"line 1: the header must be"),
        ("emotion,pixels,Usage\n", "not a single line"),
        (
            "emotion,pixels,Usage\n0,1 2,Training\n",
            r"1 of 1 do not fit .* fer2013.csv:2: has 2 pixels",
        ),
        (f"emotion,pixels,Usage\n0,{'1 ' * 70_000},Training\n", "line 2: is not a table of text: field larger"),
    ],
)
def test_another_table_is_refused(tmp_path, text, error):
    (tmp_path / "fer2013.csv").write_text(text)
    with pytest.raises(LayoutError, match=error):
        read_fer2013(tmp_path)


def test_a_table_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "fer2013.csv").write_bytes(b"emotion,pixels,Usage\n\xff\xfe\x00")
    with pytest.raises(LayoutError, match="is not a table of text"):
        read_fer2013(tmp_path)


def test_class_folders_of_fer2013_are_numbered_as_in_the_table(tmp_path):
    make(tmp_path, *(f"train/{name}/im{number}.png" for name in FER2013 for number in (10, 9)))
    make(tmp_path, "test/Anger/a.jpg", "test/Happiness/b.jpg", "validation/NEUTRAL/c.jpg")
    collection = read_fer2013(tmp_path)
    assert collection.columns["expression"].names == FER2013
    train = collection.splits["train"]
    assert [row.image.name for row in train[:2]] == ["train/angry/im9.png", "train/angry/im10.png"]
    assert all(FER2013[row.labels["expression"]] == row.image.name.split("/")[1] for row in train)
    assert len(train) == 14
    assert [row.labels["expression"] for row in collection.splits["test"]] == [0, 3]
    assert [row.labels["expression"] for row in collection.splits["validation"]] == [6]


@pytest.mark.parametrize(
    ("image", "error"),
    [
        ("train/contempt/1.png", r"train/contempt: is no class: its name must be one of angry, disgust"),
        ("faces/angry/1.png", r"faces: is no split: its name must be train, validation or test"),
    ],
)
def test_a_folder_of_another_name_is_refused(tmp_path, image, error):
    make(tmp_path, "train/angry/1.png", image)
    with pytest.raises(LayoutError, match=error):
        read_fer2013(tmp_path)


def write_rafdb(folder: Path, *bad: str, images: str = "Image/aligned", labels: str = "EmoLabel"):
    lines = [f"train_{number:05}.jpg {number}" for number in range(1, 8)] + ["test_0001.jpg 4"]
    (folder / labels).mkdir(parents=True, exist_ok=True)
    (folder / labels / "list_patition_label.txt").write_text("\n".join(lines + list(bad)) + "\n")
    make(folder / images, *(f"{line.split('.')[0]}_aligned.jpg" for line in lines))


@pytest.mark.parametrize(
    ("base", "labels", "images"),
    [
        ("", "EmoLabel", "Image/aligned"),
        ("basic/", "EmoLabel", "Image/aligned"),
        ("", "", "Image/aligned"),
        ("", "", "aligned"),
    ],
)
def test_rafdb_is_read_in_its_own_order_of_classes(tmp_path, base, labels, images):
    write_rafdb(tmp_path / base, images=images, labels=labels)
    collection = read_rafdb(tmp_path)
    assert collection.columns["expression"].names == RAFDB
    assert [(row.image.name, row.labels["expression"]) for row in collection.splits["train"]] == [
        (f"{base}{images}/train_{number:05}_aligned.jpg", number - 1) for number in range(1, 8)
    ]
    (row,) = collection.splits["test"]
    assert RAFDB[row.labels["expression"]] == "happiness"
    assert row.image.source.exists()
    assert collection.broken == []
