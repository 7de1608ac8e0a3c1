"""Layouts of images without label files, whose labels are the names of their folders."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from datasets import ClassLabel

from ...image_folders import SPLITS, list_folder
from ...schema import get_features
from .base import Collection, Download, LayoutError, Photo, Row, index_once

# Longer runs of digits do not fit into an int64. They are names, not numbers of frames.
NUMBER = re.compile(r"(?<!\d)\d{1,18}(?!\d)")
# Sizes and counts that programs for cutting out faces add to names, such as `_crop256`, `_112x112` and `_face1`.
ADDITION = re.compile(r"(?i)(?<![a-z0-9])(\d+x\d+|\d+px|(crop|cropped|face|size|resized|aligned)[ _-]?\d+)(?![a-z0-9])")


def read_folders(root: Path, folder_is: Literal["subject", "expression"] = "subject") -> Collection:
    """Read any images, in one folder per subject or class, or without such folders.

        ROOT/<subject or class>/<image>               images may also lie deeper
        ROOT/train/<subject or class>/<image>         with splits, if all first-level folders that have images are
        ROOT/test/<subject or class>/<image>          named like one (train, val, validation, dev, test, eval, ...)
        ROOT/<image>, ROOT/train/<image>              without labels

    If there are folders of subjects or classes, images beside them are counted as broken. Links to folders are not
    followed.

    Args:
        root: Folder of the collection.
        folder_is: What the folder names are. Classes are numbered in the order of their names, over all splits.

    Raises:
        LayoutError: If there is no image, or more images lie beside the folders than in them.
    """
    download = Download(root)
    photos = find_photos(download)
    top_folders = {name.split("/")[0] for name in photos if "/" in name}
    has_splits = bool(top_folders) and all(folder.lower() in SPLITS for folder in top_folders)
    is_labelled = any(name.count("/") > has_splits for name in photos)

    def locate(image: Photo) -> tuple[Photo, str, str | None]:
        """Return the image, its split, and its folder of a subject or class."""
        folders = image.name.split("/")[:-1]
        if has_splits and not folders:
            raise ValueError("lies in no folder of a split")
        split = SPLITS[folders.pop(0).lower()] if has_splits else "train"
        if is_labelled and not folders:
            raise ValueError(f"lies in no folder of one {folder_is}")
        return image, split, folders[0] if folders else None

    located = download.read_each(photos.items(), locate, root)
    names = sorted({folder for _, _, folder in located if folder is not None})
    splits: dict[str, list[Row]] = {split: [] for split in ("train", "validation", "test")}
    for image, split, folder in located:
        label = names.index(folder) if is_labelled and folder_is == "expression" else folder
        splits[split].append(Row(image, {folder_is: label} if is_labelled else {}))
    features = get_features("subject") if folder_is == "subject" else {"expression": ClassLabel(names=names)}
    return Collection(features if is_labelled else {}, splits, broken=download.broken)


def read_voxceleb(root: Path) -> Collection:
    """Read VoxCeleb1 or 2, as images of faces that were cut out of the videos.

        ROOT/<identity>/<video>/<frame>.jpg           id10001/1zcIwhmdeo4/0000375.jpg

    `frame` is the number that differs between the names of a video (`parse_frame_numbers`). Images at another depth are
    counted as broken, and links to folders are not followed.

    Raises:
        LayoutError: If there is no image, most images lie at another depth, or two images of a video have one number.
    """
    download = Download(root)
    photos = find_photos(download)
    videos = defaultdict(list)
    for image in photos.values():
        videos[image.source.parent].append(image.source)
    frames = {path: number for paths in videos.values() for path, number in parse_frame_numbers(paths).items()}

    def read(image: Photo) -> Row:
        folders = image.name.split("/")[:-1]
        if len(folders) != 2:
            raise ValueError(f"must lie in `<identity>/<video>/`, {len(folders)} folders deep is not 2")
        return Row(image, {"subject": folders[0], "video": folders[1], "frame": frames[image.source]})

    rows = download.read_each(photos.items(), read, root)
    return Collection(get_features("subject", "video", "frame"), {"train": rows}, broken=download.broken)


def parse_frame_numbers(paths: Sequence[Path]) -> dict[Path, int | None]:
    """Parse the numbers of the frames of one sequence from their names.

    Names that differ only in their numbers, such as `SN001_0017_left`, form a group. The frame is the number that has
    the most different values in the group; in a group of one name, it is the last number. Sizes and counts of faces
    that were added to a name are ignored.

    Returns:
        Number of the frame by path; None if the name has no number.

    Raises:
        LayoutError: If two images have the same number.
    """
    groups = defaultdict(list)
    for path in paths:
        cleaned = ADDITION.sub("", re.sub(r"(?<=\d)_0$", "", path.stem))
        stem = cleaned if NUMBER.search(cleaned) else path.stem
        groups[NUMBER.sub("#", stem)].append((path, [int(number) for number in NUMBER.findall(stem)]))
    numbers: dict[Path, int | None] = {}
    for group in groups.values():
        counts = [len(set(values)) for values in zip(*(values for _, values in group))]
        # The first number with the most values. In a group of one name, all numbers have one value.
        position = counts.index(max(counts)) if counts and len(group) > 1 else -1
        numbers |= {path: values[position] if values else None for path, values in group}
    index_once((path for path in paths if numbers[path] is not None), numbers.get, "image of frame ")
    return numbers


def find_photos(download: Download) -> dict[str, Photo]:
    """Find all images, by name in natural order. Links to folders are counted as broken.

    Raises:
        LayoutError: If there is no image.
    """
    content = list_folder(download.root)
    download.broken += [(name, "a link to a folder, which is not followed") for name in content.links]
    content.links.clear()
    content.log_ignored_files(download.root)
    if not content.images:
        reason = "there is no image in it or below, no .bmp, .jpg, .png or other format of Pillow."
        raise LayoutError(download.root, reason)
    return {name: download.make_photo(download.root / name) for name in content.images}
