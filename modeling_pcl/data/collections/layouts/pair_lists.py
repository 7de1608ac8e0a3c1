"""Collections that come with verification pairs: Labeled Faces in the Wild, and its cross-pose and cross-age kin."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...schema import columns
from .base import (
    Collection,
    LayoutError,
    Pair,
    Photo,
    Row,
    base_name,
    find_folders,
    find_images,
    index_images,
    photo,
    read_lines,
    require,
)
from .expression import broken_lines
from .folders import refuse_if_mostly_broken

# Terms of use, by layout. The owners' pages hold; these lines say where to look.
TERMS = {
    "calfw": "Cross-Age LFW; images of LFW's people, for research",
    "cplfw": "Cross-Pose LFW; images of LFW's people, for research",
    "lfw": "Labeled Faces in the Wild; news photographs, for research on face verification, no licence stated",
}

LFW_FOLDERS = ("", "lfw", "lfw_funneled", "lfw-deepfunneled", "lfw-deepfunneled/lfw-deepfunneled")
LFW_LISTS = {"test": "pairs.txt", "dev_train": "pairsDevTrain.txt", "dev_test": "pairsDevTest.txt"}
LFW_HEADER = re.compile(r"(?:([1-9]\d{0,5})\s+)?([1-9]\d{0,5})")
PERSON = re.compile(r"[^./\\][^/\\]*")
IMAGE_NAME = re.compile(r"(.+)_\d+")
ENTRY = re.compile(r"(\S+)\s+(\d{1,2})")
FOLDS = 10


def read_lfw(root: Path) -> Collection:
    """LFW: 13,233 photographs of 5,749 people, with the verification pairs of View 1 and View 2.

        ROOT/<Name>/<Name>_0001.jpg       or in lfw, lfw_funneled, lfw-deepfunneled, lfw-deepfunneled/lfw-deepfunneled
        ROOT/pairs.txt                    View 2: the pairs `test`, in 10 folds
        ROOT/pairsDevTrain.txt            View 1: the pairs `dev_train`
        ROOT/pairsDevTest.txt             View 1: the pairs `dev_test`

    The images, or aligned ones in a folder of another name, may have another suffix, and `_0` before it. The lists may
    also lie beside the people's folders or beside their parent; one of them must be there. Kaggle's csv
    lists are not read. All images are in the split `train`, and `subject` is the folder's name. A bad line of a list
    keeps its place, so that the others keep their folds.

    Raises:
        LayoutError: If there is no person's folder or no list, a list does not have the lines that its header says, or
            most of its lines, or most names of images, are bad.
    """
    folder = _lfw_folder(root)
    lists = _lfw_lists(root, folder)
    rows, broken = _rows(root, _lfw_images(folder))
    images = index_images((row.image.source for row in rows), _lfw_name)
    pairs: dict[str, list[Pair]] = {}
    for split, path in lists.items():
        pairs[split], bad = _read_lfw_pairs(root, folder, path, images)
        broken += bad
    return Collection(columns("subject"), {"train": rows}, pairs, broken)


def _lfw_folder(root: Path) -> Path:
    for folder in (*(root / name for name in LFW_FOLDERS), *find_folders(root)):
        if folder.is_dir() and any(_subject(path) == path.parent.name for path in _lfw_images(folder)):
            return folder
    places = ", ".join(f"`{name}`" for name in LFW_FOLDERS[1:])
    raise LayoutError(root, f"there is no `<Name>/<Name>_0001.jpg` in it or in {places}.")


def _lfw_images(folder: Path) -> Iterable[Path]:
    return (path for person in find_folders(folder) for path in find_images(person))


def _lfw_name(path: Path) -> str:
    return f"{path.parent.name}/{base_name(path)}"


def _lfw_lists(root: Path, folder: Path) -> dict[str, Path]:
    places = [place for place in (root, folder.parent, folder) if place.is_relative_to(root)]
    lists = {}
    for split, name in LFW_LISTS.items():
        names = [(place / name).relative_to(root).as_posix() for place in places if (place / name).exists()]
        if names:
            lists[split] = require(root, *names)
    if not lists:
        names = ", ".join(f"`{name}`" for name in LFW_LISTS.values())
        raise LayoutError(root, f"there is none of {names} in it: download them too, csv lists are not read.")
    return lists


def _read_lfw_pairs(
    root: Path, folder: Path, path: Path, images: dict[str, Path]
) -> tuple[list[Pair], list[tuple[str, str]]]:
    lines = list(read_lines(path))
    per_fold = _lfw_pairs_per_fold(path, lines)
    pairs: list[Pair] = []
    bad: list[tuple[int, str]] = []
    for place, (number, line) in enumerate(lines[1:]):
        fold, place_in_fold = divmod(place, per_fold)
        same = place_in_fold < per_fold // 2
        names = _lfw_names(line.split(), same)
        if names is None:
            bad.append((number, f"must be {'`Name n1 n2`' if same else '`Name1 n1 Name2 n2`'}, got `{line}`"))
        else:
            image_a, image_b = (photo(root, images.get(name, folder / f"{name}.jpg")) for name in names)
            pairs.append(Pair(image_a, image_b, same, fold + 1))
    return pairs, broken_lines(path, bad, len(lines) - 1)


def _lfw_pairs_per_fold(path: Path, lines: list[tuple[int, str]]) -> int:
    """Pairs of a fold, half of them of one person, by the header; the number of lines must be that of all folds."""
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


def _lfw_names(fields: list[str], same: bool) -> list[str] | None:
    """Paths of a pair's two images in the people's folder; None if the fields are not those of such a pair."""
    if len(fields) != (3 if same else 4):
        return None
    if same:
        fields = [fields[0], fields[1], fields[0], fields[2]]
    people, numbers = fields[::2], fields[1::2]
    if not all(map(PERSON.fullmatch, people)) or not all(re.fullmatch(r"\d{1,4}", number) for number in numbers):
        return None
    return [f"{person}/{person}_{int(number):04d}" for person, number in zip(people, numbers)]


def read_cplfw(root: Path) -> Collection:
    """CPLFW: 11,652 photographs of LFW's people, with 6000 verification pairs across poses.

        ROOT/aligned images/<Name>_1.jpg      or aligned_images; without either, images
        ROOT/pairs_CPLFW.txt                  or in txts; two lines are a pair: `AJ_Cook_1.jpg 1`, `AJ_Cook_2.jpg 1`

    The flag of a pair's two lines is 0 for different people, otherwise it is 1, or the number of the fold. The pairs
    are in ten folds: contiguous tenths of the list if each has as many same as different pairs; otherwise the same
    pairs are in the folds that their flags number, or in contiguous tenths if all flags are 1, and the different ones
    in contiguous tenths. All images are in the split `train`; `subject` is the name before the last `_<number>`. A few
    files of the collection are named otherwise, and broken; none of them is in a pair.

    Raises:
        LayoutError: If the images or the list are missing, the list cannot be dealt into ten folds, the two lines of a
            pair have different flags, or most of the pairs or of the images' names are bad.
    """
    return _read_flat(root, "pairs_CPLFW.txt")


def read_calfw(root: Path) -> Collection:
    """CALFW: 12,174 photographs of LFW's people, with 6000 verification pairs across ages.

        ROOT/aligned images/<Name>_0001.jpg   or aligned_images; without either, images
        ROOT/pairs_CALFW.txt                  or in txts; two lines are a pair: `AJ_Cook_0001.jpg 1`, ...

    Flags, folds, subjects and errors are those of `read_cplfw`. The published list has the 3000 same pairs first, with
    the number of the fold, and then the different ones.

    Raises:
        LayoutError: As `read_cplfw`.
    """
    return _read_flat(root, "pairs_CALFW.txt")


def _read_flat(root: Path, list_name: str) -> Collection:
    folder = require(root, "aligned images", "aligned_images", "images")
    path = require(root, list_name, f"txts/{list_name}")
    rows, broken = _rows(root, find_images(folder))
    paths = index_images(row.image.source for row in rows)
    photos = {name: photo(root, path) for name, path in paths.items()}
    pairs, bad = _read_two_line_pairs(path, photos)
    return Collection(columns("subject"), {"train": rows}, {"test": pairs}, broken + bad)


def _rows(root: Path, paths: Iterable[Path]) -> tuple[list[Row], list[tuple[str, str]]]:
    rows: list[Row] = []
    broken: list[tuple[str, str]] = []
    for path in paths:
        image, subject = photo(root, path), _subject(path)
        if subject is None:
            broken.append((image.name, "is not named <Name>_<number>.jpg"))
        else:
            rows.append(Row(image, {"subject": subject}))
    refuse_if_mostly_broken(root, broken, len(rows) + len(broken))
    return rows, broken


def _subject(path: Path) -> str | None:
    match = IMAGE_NAME.fullmatch(base_name(path))
    return match[1] if match else None


def _read_two_line_pairs(path: Path, photos: dict[str, Photo]) -> tuple[list[Pair], list[tuple[str, str]]]:
    lines = list(read_lines(path))
    if len(lines) % 2:
        raise LayoutError(path, f"has {len(lines)} lines, but two make a pair: download it again.", lines[-1][0])
    couples = list(zip(lines[::2], lines[1::2]))
    flags = [_flag(path, *couple) for couple in couples]
    pairs: list[Pair] = []
    bad: list[tuple[int, str]] = []
    for couple, flag, fold in zip(couples, flags, _folds(path, flags)):
        images = [photos.get(base_name(Path(line.split()[0]))) if ENTRY.fullmatch(line) else None for _, line in couple]
        if None in images:
            number, line = couple[images.index(None)]
            bad.append((number, f"must be an image's name and a flag, got `{line}`"))
        else:
            pairs.append(Pair(*images, flag > 0, fold))
    return pairs, broken_lines(path, bad, len(couples))


def _flag(path: Path, first: tuple[int, str], second: tuple[int, str]) -> int:
    """The flag of a pair's two lines; of one, if the other is bad."""
    matches = [ENTRY.fullmatch(line) for _, line in (first, second)]
    flags = {int(match[2]) for match in matches if match}
    if len(flags) == 1:
        return flags.pop()
    what = "have different flags" if flags else "are not `name flag`"
    raise LayoutError(path, f"this line and the next {what}: `{first[1]}`, `{second[1]}`. Download it again.", first[0])


def _folds(path: Path, flags: list[int]) -> list[int]:
    """Number of each pair's fold, from 1."""
    flag = np.array(flags, dtype=int)
    same = flag > 0
    if 2 * same.sum() != len(flag) or len(flag) % (2 * FOLDS):
        raise LayoutError(
            path,
            f"has {same.sum()} pairs of the same person and {(~same).sum()} of different people; there must be as many "
            f"of either, and a multiple of {FOLDS}: download it again.",
        )
    per_fold = len(flag) // FOLDS
    folds = np.repeat(np.arange(1, FOLDS + 1), per_fold)
    if (2 * same.reshape(FOLDS, per_fold).sum(axis=1) == per_fold).all():
        return folds.tolist()
    tenths = np.repeat(np.arange(1, FOLDS + 1), per_fold // 2)
    if (np.sort(flag[same]) == tenths).all():
        folds[same] = flag[same]
    elif (flag[same] == 1).all():
        folds[same] = tenths
    else:
        raise LayoutError(path, f"its flags must be 0, and 1 or the numbers of {FOLDS} folds of the same size.")
    folds[~same] = tenths
    return folds.tolist()
