"""Images without label files: what is known of them is the names of their folders."""

import re
from collections import defaultdict
from collections.abc import Sequence
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
NUMBER = re.compile(r"(?<!\d)\d{1,18}(?!\d)")
# What those who cut faces out of frames add to a name: `_crop256`, `_112x112`, `_face1`, `_0` after the number.
ADDED = re.compile(r"(?i)(?<![a-z0-9])(\d+x\d+|\d+px|(crop|cropped|face|size|resized|aligned)[ _-]?\d+)(?![a-z0-9])")


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

    `frame` is the number in the file's name that tells the images of a video apart (`frame_numbers`). An image at
    another depth is broken, and links to folders are not followed.

    Raises:
        LayoutError: If most images lie at another depth, there is none, or two of a video have one number.
    """
    broken: list[tuple[str, str]] = []
    photos = find_photos(root, broken)
    videos = defaultdict(list)
    for image in photos:
        videos[image.source.parent].append(image.source)
    frames = {path: number for paths in videos.values() for path, number in frame_numbers(paths).items()}
    rows = []
    for image in photos:
        folders = image.name.split("/")[:-1]
        if len(folders) == 2:
            labels = {"subject": folders[0], "video": folders[1], "frame": frames[image.source]}
            rows.append(Row(image, labels))
        else:
            broken.append((image.name, f"must lie in `<identity>/<video>/`, {len(folders)} folders deep is not 2"))
    refuse_if_mostly_broken(root, broken, len(photos))
    return Collection(columns("subject", "video", "frame"), {"train": rows}, broken=broken)


def filled(splits: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The splits that have rows."""
    return {split: rows for split, rows in splits.items() if rows}


def frame_numbers(paths: Sequence[Path]) -> dict[Path, int | None]:
    """The numbers of the frames of one sequence, by their names; None where a name has no number.

    Among names that are alike but for their numbers, as `SN001_0017_left`, it is the number in which most of them
    differ; in a name like no other, the last. Sizes and counts of faces that were added to a name are none.

    Raises:
        LayoutError: If two images have one number.
    """
    alike = defaultdict(list)
    for path in paths:
        bare = ADDED.sub("", re.sub(r"(?<=\d)_0$", "", path.stem))
        stem = bare if NUMBER.search(bare) else path.stem
        alike[NUMBER.sub("#", stem)].append((path, [int(number) for number in NUMBER.findall(stem)]))
    numbers: dict[Path, int | None] = {}
    for group in alike.values():
        counts = [len(set(values)) for values in zip(*(found for _, found in group))]
        # The first of the places with most values; of a single name all places have one.
        place = counts.index(max(counts)) if counts and len(group) > 1 else -1
        numbers |= {path: found[place] if found else None for path, found in group}
    first: dict[int, Path] = {}
    for path in paths:
        number = numbers[path]
        if number is not None and first.setdefault(number, path) is not path:
            raise LayoutError(
                path, f"is a second image of frame {number}, as its name says, beside `{first[number].name}`: keep one."
            )
    return numbers


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
