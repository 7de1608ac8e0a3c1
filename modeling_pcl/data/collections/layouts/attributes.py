"""Layouts of collections with age, gender and other attributes of faces."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Value

from ...schema import get_features
from .base import Collection, Download, LayoutError, Row, find_images, get_base_name, index_once, read_lines

UTKFACE_RACES = ["white", "black", "asian", "indian", "others"]
UTKFACE_FOLDERS = [("",), ("UTKFace",), ("crop_part1",), ("part1", "part2", "part3")]
UTKFACE_NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_\d.*")
UTKFACE_MAX_AGE = 116  # The age of the oldest person in the collection.
CELEBA_VALUES = {"-1": False, "0": False, "1": True}
CELEBA_SPLITS = {"0": "train", "1": "validation", "2": "test"}
ALIGNED_FOLDERS = ("img_align_celeba", "img_align_celeba_png")
CELEBA_IMAGE = re.compile(r"(?i)[^/\\]+\.(jpe?g|png)")


def read_utkface(root: Path) -> Collection:
    """Read UTKFace: faces from the web with age, gender and race, which are in the file names.

        ROOT/UTKFace/<age>_<gender>_<race>_<date>.jpg.chip.jpg       cropped
        ROOT/part1/<age>_<gender>_<race>_<date>.jpg                  in the wild, with part2 and part3

    The images are read from the first of these places that has any: ROOT, UTKFace, crop_part1 (a part of UTKFace), and
    part1 to part3 together. Ages are from 0 to 116, gender is 0 (male) or 1 (female), and race is 0 to 4: white, black,
    asian, indian, others, in the terms of the collection. A few file names of the collection lack a field; these images
    are counted as broken.

    Raises:
        LayoutError: If there is no image, or most names are invalid.
    """
    download = Download(root)

    def read(path: Path) -> Row:
        match = UTKFACE_NAME.fullmatch(path.name)
        age, gender, race = map(int, match.groups()) if match else (UTKFACE_MAX_AGE + 1, 0, 0)
        if age > UTKFACE_MAX_AGE:
            raise ValueError("is not named age_gender_race_date, with 0 to 116, 0 or 1, and 0 to 4")
        return Row(download.make_photo(path), {"age": age, "gender": gender, "attributes": {"race": race}})

    rows = download.read_images(_find_utkface_images(root), read, refuses_bad_majority=True)
    features = get_features("age", "gender") | {"attributes": {"race": ClassLabel(names=UTKFACE_RACES)}}
    return Collection(features, {"train": rows}, broken=download.broken)


def _find_utkface_images(root: Path) -> list[Path]:
    """List the images of the first place that has any."""
    for folders in UTKFACE_FOLDERS:
        paths = [path for name in folders if (root / name).is_dir() for path in find_images(root / name)]
        if paths:
            return paths
    raise LayoutError(root, "there is no image in it, and none in `UTKFace`, `crop_part1` or `part1` to `part3`.")


def read_celeba(root: Path) -> Collection:
    """Read CelebA: 202,599 faces of celebrities with 40 attributes, identities and splits.

        ROOT/Anno/list_attr_celeba.txt                number of rows; names of the attributes; 000001.jpg -1 1 ...
        ROOT/Anno/identity_CelebA.txt                 000001.jpg 2880
        ROOT/Anno/list_bbox_celeba.txt                number of rows; header; 000001.jpg 95 71 226 313
        ROOT/Eval/list_eval_partition.txt             000001.jpg 0
        ROOT/Img/img_align_celeba/000001.jpg          or, without it, Img/img_celeba/000001.jpg

    Every label file may lie in ROOT, Anno or Eval, the folders of images in ROOT or Img, and img_align_celeba in a
    folder of the same name. The csv files of Kaggle, which have a header but no number of rows, are read too. Only the
    attributes are required; without splits all rows are in train. Attributes are true for 1 and false for -1 and 0, and
    the splits 0, 1 and 2 are train, validation and test. Images may have another suffix than in the label files. Boxes
    are only used for images in the wild, not for aligned ones.

    Raises:
        LayoutError: If the attributes or the images are missing, or a label file has a wrong number of rows, a wrong
            header, or mostly invalid lines.
    """
    download = Download(root)
    download.find(*_list_places("list_attr_celeba"))  # The other files may be missing.
    names, flags = _read_table(download, "list_attr_celeba", 40, lambda cells: [CELEBA_VALUES[cell] for cell in cells])
    _, identity = _read_table(download, "identity_CelebA", 1, lambda cells: str(int(cells[0])))
    _, partition = _read_table(download, "list_eval_partition", 1, lambda cells: CELEBA_SPLITS[cells[0]])
    aligned = [
        f"{base}{inner}{name}" for name in ALIGNED_FOLDERS for base in ("", "Img/") for inner in (f"{name}/", "")
    ]
    folder = download.find(*aligned, "img_celeba", "Img/img_celeba")
    is_wild = folder.name == "img_celeba"
    _, boxes = _read_table(download, "list_bbox_celeba", 4, _parse_box) if is_wild else ([], None)
    images = index_once(find_images(folder))
    splits: dict[str, list[Row]] = {split: [] for split in CELEBA_SPLITS.values()}
    for name, values in flags.items():
        image = download.make_photo(images.pop(name, folder / f"{name}.jpg"), (boxes or {}).get(name))
        labels = {"attributes": dict(zip(names, values))} | ({"subject": identity.get(name)} if identity else {})
        split = partition.get(name) if partition else "train"
        if split is None:
            download.broken.append((image.name, "is in no split"))
        else:
            splits[split].append(Row(image, labels))
    # The remaining images have no line, or a line that is already listed as broken.
    reason = "has no line in `list_attr_celeba` that can be read"
    download.broken += [(download.get_name(path), reason) for path in images.values()]
    without_identity = [name for name in flags if identity is not None and name not in identity]
    if without_identity:
        reason = f"{len(without_identity)} images have no line, so no subject; the first is {without_identity[0]}"
        download.broken.append(("identity_CelebA", reason))
    features = (get_features("subject") if identity else {}) | {"attributes": dict.fromkeys(names, Value("bool"))}
    return Collection(features, splits, broken=download.broken)


def _parse_box(cells: list[str]) -> tuple[int, int, int, int]:
    left, top, width, height = map(int, cells)
    if width <= 0 or height <= 0:
        raise ValueError("the box is empty")
    return left, top, left + width, top + height


def _list_places(stem: str) -> list[str]:
    """List the places where a label file of CelebA may be."""
    return [f"{folder}{stem}{suffix}" for suffix in (".txt", ".csv") for folder in ("", "Anno/", "Eval/")]


def _read_table(
    download: Download, stem: str, width: int, parse: Callable[[list[str]], Any]
) -> tuple[list[str], dict[str, Any] | None]:
    """Read a label file of CelebA.

    Args:
        download: Folder of the collection.
        stem: Name of the file without suffix.
        width: Number of values in a row, without the name of the image.
        parse: Function that converts the values to a label, and raises a ValueError or KeyError if one is invalid.

    Returns:
        Names of the columns, empty if the file has no header; and the labels by name of the image, None if the file
        does not exist.
    """
    if not any((download.root / place).exists() for place in _list_places(stem)):
        return [], None
    path = download.find(*_list_places(stem))
    separator = "," if path.suffix == ".csv" else None
    names, lines = _split_header(path, list(read_lines(path)), separator, width)

    def read(line: str) -> tuple[str, Any]:
        name, *cells = line.split(separator)
        if not CELEBA_IMAGE.fullmatch(name) or len(cells) != width:
            raise ValueError(f"must be the name of a .jpg file and {width} values, has {len(cells)}: `{name}`")
        try:
            return get_base_name(Path(name)), parse(cells)
        except (ValueError, KeyError) as error:
            raise ValueError(f"a value of `{name}` is invalid: {error}") from error

    return names, dict(download.read_lines(path, read, lines))


def _split_header(
    path: Path, lines: list[tuple[int, str]], separator: str | None, width: int
) -> tuple[list[str], list[tuple[int, str]]]:
    """Split the lines of a file into the names of the columns and the lines of the rows."""
    if separator is None and width == 1:  # Text files with one value per row have no number of rows and no header.
        return [], lines
    start = 1 if separator else 2
    header = [name.strip() for _, text in lines[start - 1 : start] for name in text.split(separator)]
    if len(header) not in (width, width + 1):  # With or without a column `image_id`.
        raise LayoutError(path, f"the header must name {width} columns, it has {len(header)} fields.", start)
    rows = len(lines) - start
    if start == 2 and lines[0][1] != str(rows):
        raise LayoutError(path, f"must be the number of rows, it is `{lines[0][1]}` and there are {rows}.", 1)
    return header[-width:], lines[start:]
