"""Collections that come with verification pairs: Labeled Faces in the Wild, and its cross-pose and cross-age kin."""

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
    base_name,
    find_folders,
    find_images,
    index_once,
    read_lines,
)

LFW_FOLDERS = ("", "lfw", "lfw_funneled", "lfw-deepfunneled", "lfw-deepfunneled/lfw-deepfunneled")
LFW_LISTS = {"test": "pairs.txt", "dev_train": "pairsDevTrain.txt", "dev_test": "pairsDevTest.txt"}
LFW_HEADER = re.compile(r"(?:([1-9]\d{0,5})\s+)?([1-9]\d{0,5})")
PERSON = re.compile(r"[^./\\][^/\\]*")
IMAGE_NAME = re.compile(r"(.+)_\d+")
ENTRY = re.compile(r"(\S+)\s+(\d{1,2})")
FOLDS = 10  # In which results on these lists are reported.


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
    download = Download(root)
    folder = _lfw_folder(root)
    lists = _lfw_lists(download, folder)
    rows = _rows(download, _lfw_images(folder))
    images = index_once((row.image.source for row in rows), _lfw_name)
    pairs = {split: _read_lfw_pairs(download, folder, path, images) for split, path in lists.items()}
    return Collection(get_features("subject"), {"train": rows}, pairs, download.broken)


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


def _lfw_lists(download: Download, folder: Path) -> dict[str, Path]:
    places = [place for place in (download.root, folder.parent, folder) if place.is_relative_to(download.root)]
    lists = {}
    for split, name in LFW_LISTS.items():
        names = [download.name(place / name) for place in places if (place / name).exists()]
        if names:
            lists[split] = download.require(*names)
    if not lists:
        names = ", ".join(f"`{name}`" for name in LFW_LISTS.values())
        raise LayoutError(download.root, f"there is none of {names} in it: download them too, csv lists are not read.")
    return lists


def _read_lfw_pairs(download: Download, folder: Path, path: Path, images: dict[str, Path]) -> list[Pair]:
    lines = list(read_lines(path))
    per_fold = _lfw_pairs_per_fold(path, lines)

    def read(placed: tuple[int, str]) -> Pair:
        place, line = placed
        fold, place_in_fold = divmod(place, per_fold)
        same = place_in_fold < per_fold // 2
        names = _lfw_names(line, same)
        image_a, image_b = (download.photo(images.get(name, folder / f"{name}.jpg")) for name in names)
        return Pair(image_a, image_b, same, fold + 1)

    # With the place of each: a bad line keeps it, so that the others keep their folds.
    placed = [(number, (place, line)) for place, (number, line) in enumerate(lines[1:])]
    return download.read_lines(path, read, placed)


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


def _lfw_names(line: str, same: bool) -> list[str]:
    """Paths of a pair's two images in the people's folder."""
    fields = line.split()
    if same and len(fields) == 3:
        fields = [fields[0], fields[1], fields[0], fields[2]]
    people, numbers = fields[::2], fields[1::2]
    are_names = all(map(PERSON.fullmatch, people)) and all(re.fullmatch(r"\d{1,4}", number) for number in numbers)
    if len(line.split()) != (3 if same else 4) or not are_names:
        raise ValueError(f"must be {'`Name n1 n2`' if same else '`Name1 n1 Name2 n2`'}, got `{line}`")
    return [f"{person}/{person}_{int(number):04d}" for person, number in zip(people, numbers)]


def read_cplfw(root: Path) -> Collection:
    """CPLFW: 11,652 photographs of LFW's people, with 6000 verification pairs across poses.

        ROOT/aligned images/<Name>_1.jpg      or aligned_images; without either, images
        ROOT/pairs_CPLFW.txt                  or in txts; two lines are a pair: `AJ_Cook_1.jpg 1`, `AJ_Cook_2.jpg 1`

    The flag of a pair's two lines is 0 for different people, otherwise it is 1, or the number of the fold. The pairs
    are in ten folds: the same ones in those that their flags number, or in contiguous tenths if all flags are 1; the
    different ones in contiguous tenths. All images are in the split `train`; `subject` is the name before the last
    `_<number>`. A few files of the collection are named otherwise, and broken; none of them is in a pair.

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
    download = Download(root)
    folder = download.require("aligned images", "aligned_images", "images")
    path = download.require(list_name, f"txts/{list_name}")
    rows = _rows(download, find_images(folder))
    paths = index_once(row.image.source for row in rows)
    pairs = _read_two_line_pairs(download, path, {name: download.photo(path) for name, path in paths.items()})
    return Collection(get_features("subject"), {"train": rows}, {"test": pairs}, download.broken)


def _rows(download: Download, paths: Iterable[Path]) -> list[Row]:
    def read(path: Path) -> Row:
        subject = _subject(path)
        if subject is None:
            raise ValueError("is not named <Name>_<number>.jpg")
        return Row(download.photo(path), {"subject": subject})

    return download.read_images(paths, read, refuses_bad_majority=True)


def _subject(path: Path) -> str | None:
    match = IMAGE_NAME.fullmatch(base_name(path))
    return match[1] if match else None


def _read_two_line_pairs(download: Download, path: Path, photos: dict[str, Photo]) -> list[Pair]:
    lines = list(read_lines(path))
    if len(lines) % 2:
        raise LayoutError(path, f"has {len(lines)} lines, but two make a pair: download it again.", lines[-1][0])
    couples = list(zip(lines[::2], lines[1::2]))
    flags = [_flag(path, *couple) for couple in couples]

    def read(couple: tuple[tuple[str, str], int, int]) -> Pair:
        texts, flag, fold = couple
        images = [photos.get(base_name(Path(text.split()[0]))) if ENTRY.fullmatch(text) else None for text in texts]
        if None in images:
            raise ValueError(
                f"this line and the next must be an image's name and a flag, got `{'` and `'.join(texts)}`"
            )
        return Pair(*images, flag > 0, fold)

    dealt = [
        (first[0], ((first[1], second[1]), flag, fold))
        for (first, second), flag, fold in zip(couples, flags, _folds(path, flags))
    ]
    return download.read_lines(path, read, dealt)


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
    folds, tenths = np.empty_like(flag), np.repeat(np.arange(1, FOLDS + 1), len(flag) // (2 * FOLDS))
    if (flag[same] == 1).all():
        folds[same] = tenths
    elif (np.sort(flag[same]) == tenths).all():
        folds[same] = flag[same]
    else:
        raise LayoutError(path, f"its flags must be 0, and 1 or the numbers of {FOLDS} folds of the same size.")
    folds[~same] = tenths
    return folds.tolist()
