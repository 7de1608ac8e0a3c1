"""Layouts of collections with a basic expression for each image."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import ClassLabel

from ...image_folders import SPLITS
from .base import Collection, Download, LayoutError, Photo, Row, find_folders, find_images, get_base_name, index_once

# Names of class folders. Each class has one or two names; collections use one of them as the class name.
CLASS_WORDS = [
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
GREY_LEVELS = {str(level): level for level in range(256)}  # Looking up 2304 strings is faster than parsing them.
RAFDB_NAMES = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]
RAFDB_LIST = "list_patition_label.txt"  # The collection spells it like this.
RAFDB_IMAGE = re.compile(r"((?:train|test)_\d+)\.(?:jpe?g|png)", re.IGNORECASE)


def read_fer2013(root: Path) -> Collection:
    """Read FER2013: grey faces of 48 x 48 px with one of seven expressions, in Kaggle's table or in class folders.

        ROOT/fer2013.csv                              emotion,pixels,Usage
        ROOT/icml_face_data.csv                       or this: emotion, Usage, pixels

        ROOT/train/angry/<image>                      or class folders, in train, validation and test
        ROOT/test/angry/<image>

    The table or folders may also lie one or two folders below ROOT, as in Kaggle's archives. All rows of `train.csv`,
    which has no column Usage, are Training. The emotions 0 to 6 are angry, disgust, fear, happy, sad, surprise,
    neutral; class folders, whose names may be capitalised, get the same numbers. The usages Training, PublicTest and
    PrivateTest become train, validation and test.

    Raises:
        LayoutError: If there is neither a table nor a class folder, the table has another header or mostly invalid
            lines, or a folder has another name.
    """
    download = Download(root)
    splits: dict[str, list[Row]] = {split: [] for split in FER2013_SPLITS.values()}
    tables = (place / name for place in _list_places(root) for name in FER2013_TABLES if (place / name).exists())
    table = next(tables, None)
    if table is not None:
        path = download.find(download.get_name(table))
        for split, row in download.read_lines(path, _parse_face, _read_table(path)):
            splits[split].append(row)
    elif (folders := _find_split_folders(root)) is not None:
        _add_class_rows(download, folders, splits, FER2013_NAMES)
    if not any(splits.values()):
        raise LayoutError(root, "there is no `fer2013.csv` or `icml_face_data.csv` in it, and no class folder.")
    return Collection({"expression": ClassLabel(names=FER2013_NAMES)}, splits, broken=download.broken)


def _read_table(path: Path) -> Iterator[tuple[int, tuple[str, dict[str, str]]]]:
    """Read the lines below the header: the number of each line, and the name of the face with its cells by column."""
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
    """Parse the split and the row of one line of the table."""
    name, cells = record
    if len(cells) != 3:
        raise ValueError(f"has {len(cells)} fields, not 3")
    emotion, usage = cells["emotion"].strip(), cells["Usage"].strip()
    if usage not in FER2013_SPLITS:
        raise ValueError(f"the usage `{usage}` is none of {', '.join(FER2013_SPLITS)}")
    if emotion not in list("0123456"):
        raise ValueError(f"the emotion `{emotion}` is not a number from 0 to 6")
    pixels = cells["pixels"].split()
    if len(pixels) != FER2013_SIZE_PX**2:
        raise ValueError(f"has {len(pixels)} pixels, not {FER2013_SIZE_PX**2}")
    try:
        levels = np.frombuffer(bytes(map(GREY_LEVELS.__getitem__, pixels)), np.uint8)
    except KeyError as error:
        raise ValueError(f"the pixel {error} is not a number from 0 to 255") from error
    face = Photo(levels.reshape(FER2013_SIZE_PX, FER2013_SIZE_PX), name)
    return FER2013_SPLITS[usage], Row(face, {"expression": int(emotion)})


def _list_places(root: Path) -> list[Path]:
    """List a folder and two levels of its subfolders, where the content of archives may be."""
    subfolders = find_folders(root)
    return [root, *subfolders, *(folder for inner in subfolders for folder in find_folders(inner))]


def _find_split_folders(root: Path) -> list[Path] | None:
    """Find the folders of splits.

    Returns:
        The subfolders of the first place where all of them are named like a split and have subfolders; otherwise those
        of the first place where any of them is; None if there is no such place.
    """
    candidates = [folders for place in _list_places(root) if (folders := find_folders(place))]
    for quantifier in (all, any):
        for folders in candidates:
            if quantifier(folder.name.lower() in SPLITS and find_folders(folder) for folder in folders):
                return folders
    return None


def _add_class_rows(
    download: Download,
    folders: list[Path],
    splits: dict[str, list[Row]],
    names: list[str],
    numbered_from: int | None = None,
):
    """Add the images of class folders to splits.

    Args:
        download: Folder of the collection.
        folders: Folders of the splits.
        splits: Rows by split, to which the rows are added.
        names: Names of the classes.
        numbered_from: Number of the first class in names of class folders; None if their names are words only.

    Raises:
        LayoutError: If a folder is not named like a split, or a class folder not like a class.
    """
    numbers = {word: names.index(name) for words in CLASS_WORDS for name in words if name in names for word in words}
    if numbered_from is not None:
        numbers |= {str(number): index for index, number in enumerate(range(numbered_from, numbered_from + len(names)))}
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
                splits[split].append(Row(download.make_photo(path), {"expression": number}))


def read_rafdb(root: Path) -> Collection:
    """Read the basic part of RAF-DB: aligned faces from the web with one of seven expressions.

        ROOT/EmoLabel/list_patition_label.txt         train_00001.jpg 5
        ROOT/Image/aligned/train_00001_aligned.jpg

        ROOT/train/5/train_00001_aligned.jpg          or class folders, as on Kaggle, named by number or word, in
        ROOT/test/5/test_0001_aligned.jpg             ROOT or a folder in it

    Images may have another suffix. The folders may also lie in ROOT/basic/, the list in ROOT itself, and the images in
    `aligned/` beside the list. The labels 1 to 7 are surprise, fear, disgust, happiness, sadness, anger, neutral. The
    split is part of the name of an image.

    Raises:
        LayoutError: If the list or the aligned images are missing, or most lines are invalid.
    """
    download = Download(root)
    splits: dict[str, list[Row]] = {"train": [], "test": []}
    features = {"expression": ClassLabel(names=RAFDB_NAMES)}
    places = (f"basic/EmoLabel/{RAFDB_LIST}", f"EmoLabel/{RAFDB_LIST}", RAFDB_LIST)
    folders = _find_split_folders(root)
    if folders is not None and not any((root / place).exists() for place in places):
        _add_class_rows(download, folders, splits, RAFDB_NAMES, numbered_from=1)
        return Collection(features, splits)
    labels = download.find(*places)
    list_folder = labels.parent
    base = list_folder.parent if list_folder.name == "EmoLabel" else list_folder
    folder = download.find(download.get_name(base / "Image/aligned"), download.get_name(list_folder / "aligned"))
    images = index_once(find_images(folder), lambda path: get_base_name(path).removesuffix("_aligned"))
    for name, expression in download.read_lines(labels, _parse_label):
        image = download.make_photo(images.pop(name, folder / f"{name}_aligned.jpg"))
        splits[name.partition("_")[0]].append(Row(image, {"expression": expression}))
    download.broken += [(download.get_name(path), f"has no line in `{labels.name}`") for path in images.values()]
    return Collection(features, splits, broken=download.broken)


def _parse_label(text: str) -> tuple[str, int]:
    """Parse a line to the name of the image without suffix, and the number of the class from 0."""
    fields = text.split()
    if len(fields) != 2:
        raise ValueError(f"has {len(fields)} fields, not a name and a label")
    name, label = fields
    match = RAFDB_IMAGE.fullmatch(name)
    if match is None:
        raise ValueError(f"the name `{name}` is not like train_00001.jpg or test_0001.jpg")
    if label not in list("1234567"):
        raise ValueError(f"the label `{label}` is not a number from 1 to 7")
    return match[1], int(label) - 1
