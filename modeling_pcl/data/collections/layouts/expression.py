"""Collections with a basic expression for each image."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import ClassLabel

from ...image_folders import SPLITS
from .base import Collection, Download, LayoutError, Photo, Row, base_name, find_folders, find_images, index_once

# What folders of classes are called; the first or second of each pair is a collection's own name.
WORDS = [
    ("angry", "anger"),
    ("disgust", "disgusted"),
    ("fear", "fearful"),
    ("happy", "happiness"),
    ("sad", "sadness"),
    ("surprise", "surprised"),
    ("neutral",),
]
FER2013_NAMES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
FER2013_TABLES = ("fer2013.csv", "icml_face_data.csv", "train.csv")
FER2013_SPLITS = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
FER2013_SIZE_PX = 48
GREY_LEVELS = {str(level): level for level in range(256)}  # To look 2304 texts up is faster than to parse them.
RAFDB_NAMES = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]
RAFDB_LIST = "list_patition_label.txt"  # Its own spelling.
RAFDB_IMAGE = re.compile(r"((?:train|test)_\d+)\.(?:jpe?g|png)", re.IGNORECASE)


def read_fer2013(root: Path) -> Collection:
    """FER2013: grey faces of 48 x 48 px with one of seven expressions, as Kaggle's table or in class folders.

        ROOT/fer2013.csv                              emotion,pixels,Usage
        ROOT/icml_face_data.csv                       or this: emotion, Usage, pixels

        ROOT/train/angry/<image>                      or class folders, in train, validation and test
        ROOT/test/angry/<image>

    Both may lie in a folder of ROOT, or in one of that, as in Kaggle's archives. `train.csv` without usages is all
    Training. The table's emotions 0 to 6 are angry, disgust, fear, happy, sad, surprise, neutral; the class folders,
    whose names may be capitalised, are numbered in the same way. Of its usages, Training is train, PublicTest
    validation and PrivateTest test.

    Raises:
        LayoutError: If there is neither, the table's header is another, most of its lines are bad, or a folder has
            another name.
    """
    download = Download(root)
    splits: dict[str, list[Row]] = {split: [] for split in FER2013_SPLITS.values()}
    tables = (place / name for place in _places(root) for name in FER2013_TABLES if (place / name).exists())
    table = next(tables, None)
    if table is not None:
        path = download.require(download.name(table))
        for split, row in download.read_lines(path, _parse_face, _records(path)):
            splits[split].append(row)
    elif (folders := _split_folders(root)) is not None:
        _add_class_rows(download, folders, splits, FER2013_NAMES)
    if not any(splits.values()):
        raise LayoutError(root, "there is no `fer2013.csv` or `icml_face_data.csv` in it, and no class folder.")
    return Collection({"expression": ClassLabel(names=FER2013_NAMES)}, splits, broken=download.broken)


def _records(path: Path) -> Iterator[tuple[int, tuple[str, dict[str, str]]]]:
    """Number of each line below the header, and what its face is called with its cells by column."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            header = [cell.strip() for cell in next(reader, [])]
            is_without_usage = path.name == "train.csv" and set(header) == {"emotion", "pixels"}
            if set(header) != {"emotion", "pixels", "Usage"} and not is_without_usage:
                raise LayoutError(path, f"the header must be `emotion,pixels,Usage`, it is `{','.join(header)}`.", 1)
            no_usage = {"Usage": "Training"} if is_without_usage else {}
            for cells in filter(None, reader):
                yield reader.line_num, (f"{path.name}:{reader.line_num}", dict(zip(header, cells)) | no_usage)
        except (csv.Error, UnicodeDecodeError) as error:
            raise LayoutError(path, f"is not a table of text: {error}", reader.line_num) from error


def _parse_face(record: tuple[str, dict[str, str]]) -> tuple[str, Row]:
    """Split and row of one line of the table."""
    name, cells = record
    if len(cells) != 3:
        raise ValueError(f"has {len(cells)} fields, not 3")
    emotion, usage = cells["emotion"].strip(), cells["Usage"].strip()
    if usage not in FER2013_SPLITS:
        raise ValueError(f"the usage `{usage}` is none of {', '.join(FER2013_SPLITS)}")
    if emotion not in list("0123456"):
        raise ValueError(f"the emotion `{emotion}` is no number from 0 to 6")
    pixels = cells["pixels"].split()
    if len(pixels) != FER2013_SIZE_PX**2:
        raise ValueError(f"has {len(pixels)} pixels, not {FER2013_SIZE_PX**2}")
    try:
        levels = np.frombuffer(bytes(map(GREY_LEVELS.__getitem__, pixels)), np.uint8)
    except KeyError as error:
        raise ValueError(f"the pixel {error} is no number from 0 to 255") from error
    face = Photo(levels.reshape(FER2013_SIZE_PX, FER2013_SIZE_PX), name)
    return FER2013_SPLITS[usage], Row(face, {"expression": int(emotion)})


def _places(root: Path) -> list[Path]:
    """The folder, and those in it and one level below, where archives put what they hold."""
    below = find_folders(root)
    return [root, *below, *(folder for inner in below for folder in find_folders(inner))]


def _split_folders(root: Path) -> list[Path] | None:
    """The folders of the place whose folders are splits, if possible all of them; None if there is none."""
    folders = [inner for place in _places(root) if (inner := find_folders(place))]
    for is_one in (all, any):
        for inner in folders:
            if is_one(folder.name.lower() in SPLITS and find_folders(folder) for folder in inner):
                return inner
    return None


def _add_class_rows(
    download: Download,
    folders: list[Path],
    splits: dict[str, list[Row]],
    names: list[str],
    numbered_from: int | None = None,
):
    """Sort the images of class folders into splits.

    Args:
        download: The collection.
        folders: Those of the splits.
        splits: Get the rows.
        names: Of the classes.
        numbered_from: The first class's number, where folders may be called by it.

    Raises:
        LayoutError: If a folder is no split, or is named like no class.
    """
    numbers = {word: names.index(name) for words in WORDS for name in words if name in names for word in words}
    if numbered_from is not None:
        numbers |= {str(number): place for place, number in enumerate(range(numbered_from, numbered_from + len(names)))}
    for folder in folders:
        split = SPLITS.get(folder.name.lower())
        if split not in splits:
            *others, last = splits
            raise LayoutError(folder, f"is no split: its name must be {', '.join(others)} or {last}.")
        for class_folder in find_folders(folder):
            number = numbers.get(class_folder.name.lower())
            if number is None:
                raise LayoutError(class_folder, f"is no class: its name must be one of {', '.join(names)}.")
            for path in find_images(class_folder):
                splits[split].append(Row(download.photo(path), {"expression": number}))


def read_rafdb(root: Path) -> Collection:
    """RAF-DB, its basic part: aligned faces from the web with one of seven expressions.

        ROOT/EmoLabel/list_patition_label.txt         train_00001.jpg 5
        ROOT/Image/aligned/train_00001_aligned.jpg

        ROOT/train/5/train_00001_aligned.jpg          or class folders, as on Kaggle, named by number or word, in
        ROOT/test/5/test_0001_aligned.jpg             ROOT or a folder in it

    Images may have another suffix. Both may lie in ROOT/basic/, and the list in ROOT itself; the images may lie in
    `aligned/` beside the list. The labels 1 to 7 are surprise, fear, disgust, happiness, sadness, anger, neutral. The
    split is in the image's name.

    Raises:
        LayoutError: If there is no list, there are no aligned images, or most lines are bad.
    """
    download = Download(root)
    splits: dict[str, list[Row]] = {"train": [], "test": []}
    features = {"expression": ClassLabel(names=RAFDB_NAMES)}
    places = (f"basic/EmoLabel/{RAFDB_LIST}", f"EmoLabel/{RAFDB_LIST}", RAFDB_LIST)
    folders = _split_folders(root)
    if folders is not None and not any((root / place).exists() for place in places):
        _add_class_rows(download, folders, splits, RAFDB_NAMES, numbered_from=1)
        return Collection(features, splits)
    labels = download.require(*places)
    beside = labels.parent
    base = beside.parent if beside.name == "EmoLabel" else beside
    folder = download.require(download.name(base / "Image/aligned"), download.name(beside / "aligned"))
    images = index_once(find_images(folder), lambda path: base_name(path).removesuffix("_aligned"))
    for name, expression in download.read_lines(labels, _parse_label):
        image = download.photo(images.pop(name, folder / f"{name}_aligned.jpg"))
        splits[name.partition("_")[0]].append(Row(image, {"expression": expression}))
    download.broken += [(download.name(path), f"has no line in `{labels.name}`") for path in images.values()]
    return Collection(features, splits, broken=download.broken)


def _parse_label(text: str) -> tuple[str, int]:
    """Name without suffix, and class number from 0."""
    fields = text.split()
    if len(fields) != 2:
        raise ValueError(f"has {len(fields)} fields, not a name and a label")
    name, label = fields
    match = RAFDB_IMAGE.fullmatch(name)
    if match is None:
        raise ValueError(f"the name `{name}` is not like train_00001.jpg or test_0001.jpg")
    if label not in list("1234567"):
        raise ValueError(f"the label `{label}` is no number from 1 to 7")
    return match[1], int(label) - 1
