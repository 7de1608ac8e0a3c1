"""What a layout makes of a raw collection: rows of images that are not opened yet, with labels of the one schema."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...image_folders import is_image, natural_sort_key


class LayoutError(ValueError):
    """A collection that does not have the layout it was said to have.

    Args:
        path: The file or folder at fault.
        reason: What should be there, what is, and the way out.
        line: Number of the line at fault, from 1.
    """

    def __init__(self, path: Path | str, reason: str, line: int | None = None):
        super().__init__(f"{path}{f', line {line}' if line else ''}: {reason}")
        self.reason = reason


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
        splits: Rows by split, in the collection's order; `{"train": rows}` where it has no splits of its own. A split
            without a row is left out.
        pairs: Verification pairs by split, if the collection comes with any.
        broken: Name and reason of each row that could not be read.
    """

    columns: dict[str, Any]
    splits: dict[str, list[Row]]
    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self):
        self.splits = {split: rows for split, rows in self.splits.items() if rows}


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


def find_images(folder: Path) -> list[Path]:
    """Image files straight in `folder`, by name; hidden files (`._x.jpg` of a Mac) are left out."""
    files = (path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())
    return sorted((path for path in files if is_image(path)), key=natural_sort_key)


def base_name(path: Path) -> str:
    """Name of an image without its suffix, and without the `_0` by which face detectors count faces: `X_0001_0`,
    `X_aligned_0`, `X_rgb_0`."""
    return re.sub(r"(?<=\d|[bd])_0$", "", path.stem)


def index_once(paths: Iterable[Path], key: Callable[[Path], Any] = base_name, what: str = "") -> dict[Any, Path]:
    """Images, files or folders by what a collection calls them.

    Args:
        paths: What to index.
        key: Name or number of each.
        what: What the error calls it, `image of frame `.

    Raises:
        LayoutError: If two have one name: which of them the labels are of, nobody can tell.
    """
    index: dict[Any, Path] = {}
    for path in paths:
        name = key(path)
        other = index.setdefault(name, path)
        if other is not path:
            raise LayoutError(path, f"is a second {what}`{name}`, beside `{other}`: keep one.")
    return index


def find_folders(folder: Path) -> list[Path]:
    """Folders straight in `folder`, by name; hidden ones are left out."""
    return sorted(
        (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")), key=natural_sort_key
    )


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


class Download:
    """A collection's folder as it was downloaded, and what of it cannot be read.

    Args:
        root: The folder.

    Attributes:
        broken: Name and reason of each row that could not be read.
    """

    def __init__(self, root: Path):
        self.root = root
        self.broken: list[tuple[str, str]] = []

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def photo(self, path: Path, box: tuple[float, float, float, float] | None = None) -> Photo:
        return Photo(path, self.name(path), box)

    def require(self, *names: str) -> Path:
        """The first of `names` that exists.

        Raises:
            LayoutError: If there is none, or a link leads out of the folder.
        """
        for name in names:
            if (self.root / name).exists():
                try:
                    return check_inside(self.root, self.root / name)
                except ValueError as error:
                    raise LayoutError(self.root / name, str(error)) from error
        raise LayoutError(self.root, f"there is no {' or '.join(f'`{name}`' for name in names)} in it.")

    def read_each(
        self, items: Iterable[tuple[str, Any]], read: Callable[[Any], Any], where: Path | None = None
    ) -> list[Any]:
        """What `read` makes of each item; what it raises a ValueError of is broken.

        Args:
            items: Name and content of each.
            read: Makes a row of a content, or a part of one.
            where: File or folder that is refused if more than half is broken; None refuses nothing.

        Raises:
            LayoutError: If `where` holds nothing, or is hardly the collection that it was said to be.
        """
        values, bad = [], []
        for name, item in items:
            try:
                values.append(read(item))
            except ValueError as error:
                bad.append((name, str(error)))
        count = len(values) + len(bad)
        if where is not None and not count:
            raise LayoutError(where, "there is not a single line or image in it: download it again.")
        if where is not None and 2 * len(bad) > count:
            raise LayoutError(where, f"{len(bad)} of {count} do not fit the layout. The first, {': '.join(bad[0])}.")
        self.broken += bad
        return values

    def read_images(
        self, paths: Iterable[Path], read: Callable[[Path], Any], refuses_bad_majority: bool = False
    ) -> list[Any]:
        """`read_each` of image files."""
        where = self.root if refuses_bad_majority else None
        return self.read_each(((self.name(path), path) for path in paths), read, where)

    def read_lines(
        self, path: Path, read: Callable[[Any], Any], lines: Iterable[tuple[int, Any]] | None = None
    ) -> list[Any]:
        """`read_each` of the lines of a label file, or of those given with their numbers; a bad majority is refused."""
        numbered = read_lines(path) if lines is None else lines
        return self.read_each(((f"{path.name}:{number}", line) for number, line in numbered), read, path)
