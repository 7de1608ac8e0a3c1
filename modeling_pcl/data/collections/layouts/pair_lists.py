"""Layouts of collections with verification pairs: LFW, CPLFW and CALFW."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...schema import get_features
from .base import (
    Collection,
    Download,
    LayoutError,
    Pair,
    Photo,
    Row,
    find_folders,
    find_images,
    get_base_name,
    index_once,
    read_lines,
)

LFW_FOLDERS = ("", "lfw", "lfw_funneled", "lfw-deepfunneled", "lfw-deepfunneled/lfw-deepfunneled")
LFW_LISTS = {"test": "pairs.txt", "dev_train": "pairsDevTrain.txt", "dev_test": "pairsDevTest.txt"}
LFW_HEADER = re.compile(r"(?:([1-9]\d{0,5})\s+)?([1-9]\d{0,5})")
PERSON = re.compile(r"[^./\\][^/\\]*")
IMAGE_NAME = re.compile(r"(.+)_\d+")
ENTRY = re.compile(r"(\S+)\s+(\d{1,2})")
FOLDS = 10  # Results on these lists are reported in ten folds.


def read_lfw(root: Path) -> Collection:
    """Read LFW (Labeled Faces in the Wild): 13,233 photos of 5,749 people, with the verification pairs of both views.

        ROOT/<Name>/<Name>_0001.jpg       or in lfw, lfw_funneled, lfw-deepfunneled, lfw-deepfunneled/lfw-deepfunneled
        ROOT/pairs.txt                    View 2: the pairs `test`, in 10 folds
        ROOT/pairsDevTrain.txt            View 1: the pairs `dev_train`
        ROOT/pairsDevTest.txt             View 1: the pairs `dev_test`

    Images may have another suffix and `_0` before it, and aligned images may lie in a folder of another name. The lists
    may also lie beside the folders of people, or beside the parent of these. One list is required; csv lists of Kaggle
    are not read. All images are in the split `train`, and `subject` is the name of the folder. Invalid lines keep their
    position in a list, so that all other pairs stay in their folds.

    Raises:
        LayoutError: If there is no folder of a person or no list, a list has another number of lines than its header
            states, or most of its lines or most names of images are invalid.
    """
    download = Download(root)
    folder = _find_lfw_folder(root)
    lists = _find_lfw_lists(download, folder)
    rows = _read_rows(download, _find_lfw_images(folder))
    images = index_once((row.image.source for row in rows), _get_lfw_name)
    pairs = {split: _read_lfw_pairs(download, folder, path, images) for split, path in lists.items()}
    return Collection(get_features("subject"), {"train": rows}, pairs, download.broken)


def _find_lfw_folder(root: Path) -> Path:
    """Find the folder that contains the folders of people."""
    for folder in (*(root / name for name in LFW_FOLDERS), *find_folders(root)):
        if folder.is_dir() and any(_parse_subject(path) == path.parent.name for path in _find_lfw_images(folder)):
            return folder
    places = ", ".join(f"`{name}`" for name in LFW_FOLDERS[1:])
    raise LayoutError(root, f"there is no `<Name>/<Name>_0001.jpg` in it or in {places}.")


def _find_lfw_images(folder: Path) -> Iterable[Path]:
    """Iterate over the images of all people."""
    return (path for person in find_folders(folder) for path in find_images(person))


def _get_lfw_name(path: Path) -> str:
    """Return the name of an image in the lists, `<Name>/<Name>_0001`."""
    return f"{path.parent.name}/{get_base_name(path)}"


def _find_lfw_lists(download: Download, folder: Path) -> dict[str, Path]:
    """Find the lists of pairs, by split."""
    places = [place for place in (download.root, folder.parent, folder) if place.is_relative_to(download.root)]
    lists = {}
    for split, name in LFW_LISTS.items():
        names = [download.get_name(place / name) for place in places if (place / name).exists()]
        if names:
            lists[split] = download.find(*names)
    if not lists:
        names = ", ".join(f"`{name}`" for name in LFW_LISTS.values())
        raise LayoutError(download.root, f"there is none of {names} in it: download them too, csv lists are not read.")
    return lists


def _read_lfw_pairs(download: Download, folder: Path, path: Path, images: dict[str, Path]) -> list[Pair]:
    """Read a list of pairs. In each fold, the pairs of the same person come first."""
    lines = list(read_lines(path))
    per_fold = _parse_pairs_per_fold(path, lines)

    def read(indexed_line: tuple[int, str]) -> Pair:
        index, line = indexed_line
        fold, index_in_fold = divmod(index, per_fold)
        same = index_in_fold < per_fold // 2
        names = _parse_lfw_names(line, same)
        image_a, image_b = (download.make_photo(images.get(name, folder / f"{name}.jpg")) for name in names)
        return Pair(image_a, image_b, same, fold + 1)

    # The index is that of the line in the list, so that an invalid line does not move other pairs to another fold.
    indexed_lines = [(number, (index, line)) for index, (number, line) in enumerate(lines[1:])]
    return download.read_lines(path, read, indexed_lines)


def _parse_pairs_per_fold(path: Path, lines: list[tuple[int, str]]) -> int:
    """Parse the number of pairs per fold from the header, and check that the list has the pairs of all folds."""
    number, header = lines[0] if lines else (None, "")
    match = LFW_HEADER.fullmatch(header)
    if match is None:
        raise LayoutError(path, f"must begin with `folds pairs` or `pairs`, got `{header}`.", number)
    folds, matched = int(match[1] or 1), int(match[2])
    if len(lines) - 1 != folds * 2 * matched:
        raise LayoutError(
            path,
            f"says that {folds} x 2 x {matched} = {folds * 2 * matched} lines follow, but {len(lines) - 1} do: "
            "download it again.",
            number,
        )
    return 2 * matched


def _parse_lfw_names(line: str, same: bool) -> list[str]:
    """Parse a line to the names of the two images of a pair."""
    fields = line.split()
    if same and len(fields) == 3:
        fields = [fields[0], fields[1], fields[0], fields[2]]
    people, numbers = fields[::2], fields[1::2]
    are_valid = all(map(PERSON.fullmatch, people)) and all(re.fullmatch(r"\d{1,4}", number) for number in numbers)
    if len(line.split()) != (3 if same else 4) or not are_valid:
        raise ValueError(f"must be {'`Name n1 n2`' if same else '`Name1 n1 Name2 n2`'}, got `{line}`")
    return [f"{person}/{person}_{int(number):04d}" for person, number in zip(people, numbers)]


def read_cplfw(root: Path) -> Collection:
    """Read CPLFW (Cross-Pose LFW): 11,652 photos of the people of LFW, with 6000 verification pairs across poses.

        ROOT/aligned images/<Name>_1.jpg      or aligned_images; without either, images
        ROOT/pairs_CPLFW.txt                  or in txts; two lines are a pair: `AJ_Cook_1.jpg 1`, `AJ_Cook_2.jpg 1`

    Both lines of a pair have the same flag: 0 for different people; 1, or the number of the fold, for the same person.
    If every tenth of the list has as many pairs of both kinds, the tenths are the folds. Otherwise pairs of the same
    person are in the folds that their flags state, or in ten consecutive folds of equal size if all flags are 1, and
    pairs of different people are in ten consecutive folds. All images are in the split `train`, and
    `subject` is the name before the last `_<number>`. A few files of the collection have other names. They are counted
    as broken, and no pair contains them.

    Raises:
        LayoutError: If the images or the list are missing, the pairs cannot be divided into ten folds, the two lines of
            a pair have different flags, or most pairs or most names of images are invalid.
    """
    return _read_flat_collection(root, "pairs_CPLFW.txt")


def read_calfw(root: Path) -> Collection:
    """Read CALFW (Cross-Age LFW): 12,174 photos of the people of LFW, with 6000 verification pairs across ages.

        ROOT/aligned images/<Name>_0001.jpg   or aligned_images; without either, images
        ROOT/pairs_CALFW.txt                  or in txts; two lines are a pair: `AJ_Cook_0001.jpg 1`, ...

    Flags, folds and subjects are as in `read_cplfw`. In the published list, the 3000 pairs of the same person come
    first, with the number of the fold as the flag.

    Raises:
        LayoutError: As in `read_cplfw`.
    """
    return _read_flat_collection(root, "pairs_CALFW.txt")


def _read_flat_collection(root: Path, list_name: str) -> Collection:
    """Read a collection with all images in one folder and a list with two lines per pair."""
    download = Download(root)
    folder = download.find("aligned images", "aligned_images", "images")
    path = download.find(list_name, f"txts/{list_name}")
    rows = _read_rows(download, find_images(folder))
    paths = index_once(row.image.source for row in rows)
    pairs = _read_two_line_pairs(download, path, {name: download.make_photo(path) for name, path in paths.items()})
    return Collection(get_features("subject"), {"train": rows}, {"test": pairs}, download.broken)


def _read_rows(download: Download, paths: Iterable[Path]) -> list[Row]:
    """Make rows of images whose names tell the subject."""

    def read(path: Path) -> Row:
        subject = _parse_subject(path)
        if subject is None:
            raise ValueError("is not named <Name>_<number>.jpg")
        return Row(download.make_photo(path), {"subject": subject})

    return download.read_images(paths, read, refuses_bad_majority=True)


def _parse_subject(path: Path) -> str | None:
    """Parse the subject from the name of an image; None if the name has another form."""
    match = IMAGE_NAME.fullmatch(get_base_name(path))
    return match[1] if match else None


def _read_two_line_pairs(download: Download, path: Path, photos: dict[str, Photo]) -> list[Pair]:
    """Read a list with two lines per pair."""
    lines = list(read_lines(path))
    if len(lines) % 2:
        raise LayoutError(path, f"has {len(lines)} lines, but two make a pair: download it again.", lines[-1][0])
    line_pairs = list(zip(lines[::2], lines[1::2]))
    flags = [_parse_flag(path, *line_pair) for line_pair in line_pairs]

    def read(entry: tuple[tuple[str, str], int, int]) -> Pair:
        texts, flag, fold = entry
        images = [photos.get(get_base_name(Path(text.split()[0]))) if ENTRY.fullmatch(text) else None for text in texts]
        if None in images:
            raise ValueError(
                f"this line and the next must be the name of an image and a flag, got `{'` and `'.join(texts)}`"
            )
        return Pair(*images, flag > 0, fold)

    entries = [
        (first[0], ((first[1], second[1]), flag, fold))
        for (first, second), flag, fold in zip(line_pairs, flags, _assign_folds(path, flags))
    ]
    return download.read_lines(path, read, entries)


def _parse_flag(path: Path, first: tuple[int, str], second: tuple[int, str]) -> int:
    """Parse the flag of the two lines of a pair, or of one of them if the other is invalid."""
    matches = [ENTRY.fullmatch(line) for _, line in (first, second)]
    flags = {int(match[2]) for match in matches if match}
    if len(flags) == 1:
        return flags.pop()
    problem = "have different flags" if flags else "are not `name flag`"
    raise LayoutError(
        path, f"this line and the next {problem}: `{first[1]}`, `{second[1]}`. Download it again.", first[0]
    )


def _assign_folds(path: Path, flags: list[int]) -> list[int]:
    """Assign the pairs to folds; returns the number of the fold of each pair, from 1."""
    flag = np.array(flags, dtype=int)
    same = flag > 0
    if 2 * same.sum() != len(flag) or len(flag) % (2 * FOLDS):
        raise LayoutError(
            path,
            f"has {same.sum()} pairs of the same person and {(~same).sum()} of different people; there must be as many "
            f"of both, and a multiple of {FOLDS}: download it again.",
        )
    folds, tenths = np.empty_like(flag), np.repeat(np.arange(1, FOLDS + 1), len(flag) // (2 * FOLDS))
    # If every tenth of the list is balanced, the tenths are the folds, whatever number the flags of same pairs are.
    is_in_tenths = (2 * same.reshape(FOLDS, -1).sum(axis=1) == len(flag) // FOLDS).all()
    if is_in_tenths or (flag[same] == 1).all():
        folds[same] = tenths
    elif (np.sort(flag[same]) == tenths).all():
        folds[same] = flag[same]
    else:
        raise LayoutError(path, f"its flags must be 0, and 1 or the numbers of {FOLDS} folds of the same size.")
    folds[~same] = tenths
    return folds.tolist()
