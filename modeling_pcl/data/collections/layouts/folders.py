"""Images without label files: what is known of them is the names of their folders."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from datasets import ClassLabel

from ...image_folders import SPLITS, list_folder
from ...schema import get_features
from .base import Collection, Download, LayoutError, Photo, Row, index_once

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
    """
    download = Download(root)
    photos = find_photos(download)
    tops = {name.split("/")[0] for name in photos if "/" in name}
    has_splits = bool(tops) and all(top.lower() in SPLITS for top in tops)
    is_labelled = any(name.count("/") > has_splits for name in photos)

    def place(image: Photo) -> tuple[Photo, str, str | None]:
        """The image, its split, and its folder of a subject or class."""
        folders = image.name.split("/")[:-1]
        if has_splits and not folders:
            raise ValueError("lies in no folder of a split")
        split = SPLITS[folders.pop(0).lower()] if has_splits else "train"
        if is_labelled and not folders:
            raise ValueError(f"lies in no folder of one {folder_is}")
        return image, split, folders[0] if folders else None

    placed = download.read_each(photos.items(), place, root)
    names = sorted({folder for _, _, folder in placed if folder is not None})
    splits: dict[str, list[Row]] = {split: [] for split in ("train", "validation", "test")}
    for image, split, folder in placed:
        label = names.index(folder) if is_labelled and folder_is == "expression" else folder
        splits[split].append(Row(image, {folder_is: label} if is_labelled else {}))
    features = get_features("subject") if folder_is == "subject" else {"expression": ClassLabel(names=names)}
    return Collection(features if is_labelled else {}, splits, broken=download.broken)


def read_voxceleb(root: Path) -> Collection:
    """VoxCeleb1 or 2, as face images cut from the videos.

        ROOT/<identity>/<video>/<frame>.jpg           id10001/1zcIwhmdeo4/0000375.jpg

    `frame` is the number in the file's name that tells the images of a video apart (`frame_numbers`). An image at
    another depth is broken, and links to folders are not followed.

    Raises:
        LayoutError: If most images lie at another depth, there is none, or two of a video have one number.
    """
    download = Download(root)
    photos = find_photos(download)
    videos = defaultdict(list)
    for image in photos.values():
        videos[image.source.parent].append(image.source)
    frames = {path: number for paths in videos.values() for path, number in frame_numbers(paths).items()}

    def read(image: Photo) -> Row:
        folders = image.name.split("/")[:-1]
        if len(folders) != 2:
            raise ValueError(f"must lie in `<identity>/<video>/`, {len(folders)} folders deep is not 2")
        return Row(image, {"subject": folders[0], "video": folders[1], "frame": frames[image.source]})

    rows = download.read_each(photos.items(), read, root)
    return Collection(get_features("subject", "video", "frame"), {"train": rows}, broken=download.broken)


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
    index_once((path for path in paths if numbers[path] is not None), numbers.get, "image of frame ")
    return numbers


def find_photos(download: Download) -> dict[str, Photo]:
    """Every image by name, in order; links to folders are broken.

    Raises:
        LayoutError: If there is no image.
    """
    content = list_folder(download.root)
    download.broken += [(name, "a link to a folder, which is not followed") for name in content.links]
    content.links.clear()
    content.log_ignored_files(download.root)
    if not content.images:
        reason = "there is no image in it or below, no .bmp, .jpg, .png or what else Pillow opens."
        raise LayoutError(download.root, reason)
    return {name: download.photo(download.root / name) for name in content.images}
