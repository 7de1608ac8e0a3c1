"""Images without label files: what is known of them is the names of their folders."""

import os
import re
from pathlib import Path
from typing import Literal

from datasets import ClassLabel

from ...image_folders import SPLITS, list_folder
from ...schema import columns
from .base import Collection, LayoutError, Photo, Row, photo

# Terms of use, by layout. The owners' pages hold; these lines say where to look.
TERMS = {
    "voxceleb": "VoxCeleb; lists under CC BY 4.0, frames of videos that belong to their owners",
}

# A run of more than 18 digits does not fit into an int64: it is a name, not the number of a frame.
LAST_NUMBER = re.compile(r"(?<!\d)\d{1,18}(?=\D*$)")


def read_folders(root: Path, folder_is: Literal["subject", "expression"] = "subject") -> Collection:
    """Any images, in a folder for each subject or class, or in none.

        ROOT/<subject or class>/<image>               images may lie deeper, too
        ROOT/train/<subject or class>/<image>         with splits: all folders of the first level that have images
        ROOT/test/<subject or class>/<image>          are named like one (train, val, validation, dev, test, eval, ...)
        ROOT/<image>, ROOT/train/<image>              without labels

    Once there are folders of subjects or classes, an image beside them is broken. Links to folders are not followed.

    Args:
        root: The collection's folder.
        folder_is: What the folders mean. Classes are numbered by name, over all splits.

    Raises:
        LayoutError: If there is no image, or more lie beside the folders than in them.
        ValueError: If `folder_is` is neither of the two.
    """
    if folder_is not in ("subject", "expression"):
        raise ValueError(f"`folder_is` must be subject or expression, got {folder_is}.")
    broken: list[tuple[str, str]] = []
    photos = find_photos(root, broken)
    tops = {image.name.split("/")[0] for image in photos if "/" in image.name}
    has_splits = bool(tops) and all(top.lower() in SPLITS for top in tops)
    placed = [(image, *_place(image.name, has_splits)) for image in photos]
    names = sorted({folder for _, _, folder in placed if folder is not None})
    splits: dict[str, list[Row]] = {split: [] for split in ("train", "validation", "test")}
    for image, split, folder in placed:
        if split is None or (names and folder is None):
            broken.append((image.name, f"lies in no folder of {'a split' if split is None else f'one {folder_is}'}"))
        else:
            splits[split].append(Row(image, _label(folder_is, folder, names)))
    refuse_if_mostly_broken(root, broken, len(photos))
    return Collection(_columns(folder_is, names), filled(splits), broken=broken)


def _place(name: str, has_splits: bool) -> tuple[str | None, str | None]:
    """Split of an image, and its folder of a subject or class; None if it lies in none."""
    *folders, _ = name.split("/")
    split = "train"
    if has_splits:
        split = SPLITS[folders.pop(0).lower()] if folders else None
    return split, folders[0] if folders else None


def _label(folder_is: str, folder: str | None, names: list[str]) -> dict:
    if folder is None:
        return {}
    return {folder_is: folder if folder_is == "subject" else names.index(folder)}


def _columns(folder_is: str, names: list[str]) -> dict:
    if not names:
        return {}
    return columns("subject") if folder_is == "subject" else {"expression": ClassLabel(names=names)}


def read_voxceleb(root: Path) -> Collection:
    """VoxCeleb1 or 2, as face images cut from the videos.

        ROOT/<identity>/<video>/<frame>.jpg           id10001/1zcIwhmdeo4/0000375.jpg

    `frame` is the last number in the file's name. An image at another depth is broken, and links to
    folders are not followed.

    Raises:
        LayoutError: If most images lie at another depth, or there is none.
    """
    broken: list[tuple[str, str]] = []
    photos = find_photos(root, broken)
    rows = []
    for image in photos:
        *folders, file = image.name.split("/")
        if len(folders) == 2:
            labels = {"subject": folders[0], "video": folders[1], "frame": frame_number(file)}
            rows.append(Row(image, labels))
        else:
            broken.append((image.name, f"must lie in `<identity>/<video>/`, {len(folders)} folders deep is not 2"))
    refuse_if_mostly_broken(root, broken, len(photos))
    return Collection(columns("subject", "video", "frame"), {"train": rows}, broken=broken)


def filled(splits: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The splits that have rows."""
    return {split: rows for split, rows in splits.items() if rows}


def frame_number(file: str) -> int | None:
    """The last number in the name of a file, its suffix aside."""
    match = LAST_NUMBER.search(os.path.splitext(file)[0])
    return int(match[0]) if match else None


def find_photos(root: Path, broken: list[tuple[str, str]]) -> list[Photo]:
    """Every image below `root`, by name; links to folders are added to `broken`.

    Raises:
        LayoutError: If there is no image.
    """
    content = list_folder(root)
    broken += [(name, "a link to a folder, which is not followed") for name in content.links]
    content.links.clear()
    content.report_others(root)
    if not content.images:
        raise LayoutError(root, "there is no image in it or below, no .bmp, .jpg, .png or what else Pillow opens.")
    return [photo(root, root / name) for name in content.images]


def refuse_if_mostly_broken(root: Path, broken: list[tuple[str, str]], count: int):
    """Refuse a collection of `count` images if more than half of them are broken."""
    if 2 * len(broken) > count:
        name, reason = broken[0]
        raise LayoutError(root, f"{len(broken)} of {count} images do not fit the layout. The first: {name} {reason}.")
