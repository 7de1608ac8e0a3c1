"""What a layout makes of a raw collection: rows of images that are not opened yet, with labels of the one schema."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...image_folders import by_number, is_image


class LayoutError(ValueError):
    """A collection that does not have the layout it was said to have.

    Args:
        path: The file or folder at fault.
        reason: What should be there, what is, and the way out.
        line: Number of the line at fault, from 1.
    """

    def __init__(self, path: Path | str, reason: str, line: int | None = None):
        super().__init__(path, reason, line)
        self.path, self.reason, self.line = path, reason, line

    def __str__(self) -> str:
        return f"{self.path}{f', line {self.line}' if self.line else ''}: {self.reason}"


@dataclass(slots=True)
class Photo:
    """An image before it is opened.

    Args:
        source: File, or its pixels where the collection keeps them in a table: `(h, w)` grey or `(h, w, 3)` RGB, uint8.
        name: Path relative to the collection's folder, with `/`; for a table's row, `file:line` or `file:row`.
        box: Left, top, right, bottom of the face in px of the image, may reach over its border; None if not known.
    """

    source: Path | np.ndarray
    name: str
    box: tuple[float, float, float, float] | None = None


@dataclass(slots=True)
class Row:
    """An image and its labels, by column of the schema; a label that is missing is None or left out."""

    image: Photo
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Pair:
    """Two images, whether they show the same person, and the number of its fold, from 1."""

    image_a: Photo
    image_b: Photo
    same: bool
    fold: int


@dataclass
class Collection:
    """A raw collection, read but for its images.

    Args:
        columns: The label columns that its rows may have, with their `datasets` features.
        splits: Rows by split, in the collection's order; `{"train": rows}` where it has no splits of its own.
        pairs: Verification pairs by split, if the collection comes with any.
        broken: Name and reason of each row that could not be read.
    """

    columns: dict[str, Any]
    splits: dict[str, list[Row]]
    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)


def check_inside(root: Path, path: Path) -> Path:
    """The path, if it lies in the collection's folder once every symbolic link is followed.

    Raises:
        ValueError: If a link leads out of the folder, or nowhere.
    """
    try:
        real = path.resolve(strict=True)
    except OSError as error:
        raise ValueError(f"cannot be opened: {error.strerror or error}") from error
    if not real.is_relative_to(root.resolve()):
        raise ValueError("a symbolic link leads out of the collection's folder")
    return path


def photo(root: Path, path: Path, box: tuple[float, float, float, float] | None = None) -> Photo:
    """A file of the collection."""
    return Photo(path, path.relative_to(root).as_posix(), box)


def find_images(folder: Path) -> list[Path]:
    """Image files straight in `folder`, by name; hidden files (`._x.jpg` of a Mac) are left out."""
    files = (path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())
    return sorted((path for path in files if is_image(path)), key=by_number)


def base_name(path: Path) -> str:
    """Name of an image without its suffix, and without the `_0` by which face detectors count faces: `X_0001_0`,
    `X_aligned_0`, `X_rgb_0`."""
    return re.sub(r"(?<=\d|[bd])_0$", "", path.stem)


def index_images(paths: Iterable[Path], key: Callable[[Path], str] = base_name) -> dict[str, Path]:
    """Images by what a label file calls them.

    Raises:
        LayoutError: If two images have one name.
    """
    index: dict[str, Path] = {}
    for path in paths:
        other = index.setdefault(key(path), path)
        if other is not path:
            raise LayoutError(path, f"has the name of `{other}`: keep one.")
    return index


def find_folders(folder: Path) -> list[Path]:
    """Folders straight in `folder`, by name; hidden ones are left out."""
    return sorted((path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")), key=by_number)


def require(root: Path, *names: str) -> Path:
    """The first of `names` in the collection's folder that exists.

    Raises:
        LayoutError: If there is none.
    """
    for name in names:
        if (root / name).exists():
            try:
                return check_inside(root, root / name)
            except ValueError as error:
                raise LayoutError(root / name, str(error)) from error
    raise LayoutError(root, f"there is no {' or '.join(f'`{name}`' for name in names)} in it.")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line of a text file that is not blank.

    Raises:
        LayoutError: If the file is not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise LayoutError(path, f"is not UTF-8 text: {error}") from error
    except OSError as error:
        raise LayoutError(path, f"cannot be read: {error.strerror or error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, line.strip()
