"""Collections with age, gender and further attributes of the face."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Value

from ...schema import columns
from .base import Collection, LayoutError, Row, base_name, find_images, index_images, photo, read_lines, require
from .expression import broken_lines
from .folders import filled, refuse_if_mostly_broken

# Terms of use, by layout. The owners' pages hold; these lines say where to look.
TERMS = {
    "celeba": "for non-commercial research; the images are not its authors' property",
    "utkface": "for non-commercial research; the images belong to their owners",
}

UTKFACE_RACES = ["white", "black", "asian", "indian", "others"]
UTKFACE_FOLDERS = [("",), ("UTKFace",), ("crop_part1",), ("part1", "part2", "part3")]
UTKFACE_NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_\d.*")
UTKFACE_MAX_AGE = 116
CELEBA_VALUES = {"-1": False, "0": False, "1": True}
CELEBA_SPLITS = {"0": "train", "1": "validation", "2": "test"}
CELEBA_IMAGE = re.compile(r"(?i)[^/\\]+\.(jpe?g|png)")


def read_utkface(root: Path) -> Collection:
    """UTKFace: age, gender and race of faces from the web, in the names of the files.

        ROOT/UTKFace/<age>_<gender>_<race>_<date>.jpg.chip.jpg       cropped
        ROOT/part1/<age>_<gender>_<race>_<date>.jpg                  in the wild, with part2 and part3

    The images are taken from the first of these that has any: ROOT, UTKFace, crop_part1 (a part of UTKFace), and part1
    to part3 together. The age goes from 0 to 116, gender is 0 male and 1 female, race 0 to 4 white, black, asian,
    indian, others, as the collection has them. A few files of the collection lack a field, and are broken.

    Raises:
        LayoutError: If there is no image, or most names are bad.
    """
    rows: list[Row] = []
    broken: list[tuple[str, str]] = []
    paths = _utkface_images(root)
    for path in paths:
        image, labels = photo(root, path), _utkface_labels(path.name)
        if labels is None:
            broken.append((image.name, "is not named age_gender_race_date, with 0 to 116, 0 or 1, and 0 to 4"))
        else:
            rows.append(Row(image, labels))
    refuse_if_mostly_broken(root, broken, len(paths))
    features = columns("age", "gender") | {"attributes": {"race": ClassLabel(names=UTKFACE_RACES)}}
    return Collection(features, {"train": rows}, broken=broken)


def _utkface_images(root: Path) -> list[Path]:
    for folders in UTKFACE_FOLDERS:
        paths = [path for name in folders if (root / name).is_dir() for path in find_images(root / name)]
        if paths:
            return paths
    raise LayoutError(root, "there is no image in it, and none in `UTKFace`, `crop_part1` or `part1` to `part3`.")


def _utkface_labels(name: str) -> dict[str, Any] | None:
    match = UTKFACE_NAME.fullmatch(name)
    if match is None:
        return None
    age, gender, race = map(int, match.groups())
    return {"age": age, "gender": gender, "attributes": {"race": race}} if age <= UTKFACE_MAX_AGE else None


def read_celeba(root: Path) -> Collection:
    """CelebA: 40 attributes of 202,599 faces of celebrities, with identities and splits.

        ROOT/Anno/list_attr_celeba.txt                number of rows; names of the attributes; 000001.jpg -1 1 ...
        ROOT/Anno/identity_CelebA.txt                 000001.jpg 2880
        ROOT/Anno/list_bbox_celeba.txt                number of rows; header; 000001.jpg 95 71 226 313
        ROOT/Eval/list_eval_partition.txt             000001.jpg 0
        ROOT/Img/img_align_celeba/000001.jpg          or, without it, Img/img_celeba/000001.jpg

    Every file may lie in ROOT, Anno or Eval, the images' folders in ROOT or Img, and img_align_celeba in a folder of
    the same name. Kaggle's csv files, with a header and no number of rows, do as well. Only the attributes must be
    there: without splits all rows are in train. An attribute is true at 1 and false at -1 or 0; the splits 0, 1 and 2
    are train, validation and test. The images may have another suffix than in the files. The boxes are those of the
    images in the wild, and not given to the aligned ones.

    Raises:
        LayoutError: If the attributes or the images are missing, a file does not have the number of rows or the header
            that it should, or most of its lines are bad.
    """
    broken: list[tuple[str, str]] = []
    names, flags = _read_table(root, CELEBA_FLAGS, broken)
    unnamed = len(broken) - sum(values is None for values in flags.values())
    _, identity = _read_table(root, CELEBA_IDENTITY, broken)
    _, partition = _read_table(root, CELEBA_PARTITION, broken)
    folder = _celeba_images(root)
    _, boxes = _read_table(root, CELEBA_BOX, broken) if folder.name == "img_celeba" else ([], None)
    splits: dict[str, list[Row]] = {split: [] for split in CELEBA_SPLITS.values()}
    images = index_images(find_images(folder))
    readable = {name: values for name, values in flags.items() if values is not None}
    without_identity = [name for name in readable if identity is not None and name not in identity]
    for name, values in readable.items():
        path = images.pop(name, folder / f"{name}.jpg")
        image = photo(root, path, boxes.get(name) if boxes else None)
        labels = {"attributes": dict(zip(names, values))} | ({"subject": identity.get(name)} if identity else {})
        split = partition.get(name) if partition else "train"
        if split is None:
            broken.append((image.name, "is in no split"))
        else:
            splits[split].append(Row(image, labels))
    left = [photo(root, path).name for name, path in images.items() if name not in flags]
    if len(left) > unnamed:  # A line whose name cannot be read is that of one of them.
        broken += [(name, f"has no line in `{CELEBA_FLAGS.stem}`") for name in left]
    if without_identity:
        reason = f"{len(without_identity)} images have no line, so no subject; the first is {without_identity[0]}"
        broken.append((CELEBA_IDENTITY.stem, reason))
    features = (columns("subject") if identity else {}) | {"attributes": dict.fromkeys(names, Value("bool"))}
    return Collection(features, filled(splits), broken=broken)


def _celeba_images(root: Path) -> Path:
    names = ("img_align_celeba", "img_align_celeba_png")
    aligned = [f"{base}{inner}{name}" for name in names for base in ("", "Img/") for inner in (f"{name}/", "")]
    return require(root, *aligned, "img_celeba", "Img/img_celeba")


@dataclass(frozen=True)
class _Table:
    """One of CelebA's label files.

    Args:
        stem: Its name without suffix.
        width: Values that a row has beside the image's name.
        parse: Makes a label of them; raises a ValueError or KeyError if one is bad.
        is_required: Whether it must be there.
    """

    stem: str
    width: int
    parse: Callable[[list[str]], Any]
    is_required: bool = False


def _parse_flags(cells: list[str]) -> list[bool]:
    return [CELEBA_VALUES[cell] for cell in cells]


def _parse_identity(cells: list[str]) -> str:
    return str(int(cells[0]))


def _parse_split(cells: list[str]) -> str:
    return CELEBA_SPLITS[cells[0]]


def _parse_box(cells: list[str]) -> tuple[int, int, int, int]:
    left, top, width, height = map(int, cells)
    if width <= 0 or height <= 0:
        raise ValueError("the box is empty")
    return left, top, left + width, top + height


CELEBA_FLAGS = _Table("list_attr_celeba", 40, _parse_flags, is_required=True)
CELEBA_IDENTITY = _Table("identity_CelebA", 1, _parse_identity)
CELEBA_PARTITION = _Table("list_eval_partition", 1, _parse_split)
CELEBA_BOX = _Table("list_bbox_celeba", 4, _parse_box)


def _read_table(root: Path, table: _Table, broken: list[tuple[str, str]]) -> tuple[list[str], dict[str, Any] | None]:
    """Names of the columns, and label by the image's name, None if there is no such file.

    Bad lines go to `broken`; the label of one whose name can be read is None.
    """
    places = [f"{folder}{table.stem}{suffix}" for suffix in (".txt", ".csv") for folder in ("", "Anno/", "Eval/")]
    if not table.is_required and not any((root / place).exists() for place in places):
        return [], None
    path = require(root, *places)
    separator = "," if path.suffix == ".csv" else None
    names, lines = _split_header(path, list(read_lines(path)), separator, table.width)
    rows: dict[str, Any] = {}
    bad = []
    for line, text in lines:
        name, *cells = text.split(separator)
        is_named = CELEBA_IMAGE.fullmatch(name)
        if is_named:
            rows[base_name(Path(name))] = None
        if not is_named or len(cells) != table.width:
            bad.append((line, f"must be the name of a .jpg file and {table.width} values, has {len(cells)}: `{name}`"))
            continue
        try:
            rows[base_name(Path(name))] = table.parse(cells)
        except (ValueError, KeyError) as error:
            bad.append((line, f"a value of `{name}` is bad: {error}"))
    broken += broken_lines(path, bad, len(lines))
    return names, rows


def _split_header(
    path: Path, lines: list[tuple[int, str]], separator: str | None, width: int
) -> tuple[list[str], list[tuple[int, str]]]:
    """Names of the columns, where the file has a header, and the lines of its rows."""
    if separator is None and width == 1:  # The text files with one value a row have neither number of rows nor header.
        return [], lines
    start = 1 if separator else 2
    header = [name.strip() for _, text in lines[start - 1 : start] for name in text.split(separator)]
    if len(header) not in (width, width + 1):  # With `image_id` or without.
        raise LayoutError(path, f"the header must name {width} columns, it has {len(header)} fields.", start)
    rows = len(lines) - start
    if start == 2 and lines[0][1] != str(rows):
        raise LayoutError(path, f"must be the number of rows, it is `{lines[0][1]}` and there are {rows}.", 1)
    return header[-width:], lines[start:]
