"""Classes and functions for layouts, which read the labels of raw collections without opening the images."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...image_folders import is_image, natural_sort_key


class LayoutError(ValueError):
    """Raised if a collection does not have the expected layout.

    Args:
        path: File or folder with the problem.
        reason: What was expected, what was found, and what to do.
        line: Number of the line with the problem, from 1; None if it is not in a line.
    """

    def __init__(self, path: Path | str, reason: str, line: int | None = None):
        super().__init__(f"{path}{f', line {line}' if line else ''}: {reason}")
        self.reason = reason


@dataclass(slots=True)
class Photo:
    """An image before it is opened.

    Args:
        source: File; or pixels, if the collection stores them in a table: `(h, w)` grey or `(h, w, 3)` RGB, uint8.
        name: Path relative to the folder of the collection, with `/`; for a row of a table, `file:line` or `file:row`.
        box: Left, top, right, bottom of the face in px of the image, possibly beyond its border; None if unknown.
    """

    source: Path | np.ndarray
    name: str
    box: tuple[float, float, float, float] | None = None


@dataclass(slots=True)
class Row:
    """An image and its labels by column of the schema. Missing labels are None or absent."""

    image: Photo
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Pair:
    """Two images, whether they show the same person, and the number of the fold, from 1."""

    image_a: Photo
    image_b: Photo
    same: bool
    fold: int


@dataclass
class Collection:
    """The rows of a raw collection, whose images are not opened yet.

    Args:
        columns: Features of the label columns that the rows may have.
        splits: Rows by split, in the order of the collection; `{"train": rows}` if it has no splits. Splits without
            rows are removed.
        pairs: Verification pairs by split, if the collection has any.
        broken: Name and reason of each row that could not be read.
    """

    columns: dict[str, Any]
    splits: dict[str, list[Row]]
    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self):
        self.splits = {split: rows for split, rows in self.splits.items() if rows}


def check_inside(root: Path, path: Path) -> Path:
    """Return the path if it is in the folder of the collection after following all symbolic links.

    Raises:
        ValueError: If a link leads out of the folder, or the path does not exist.
    """
    try:
        real = path.resolve(strict=True)
    except OSError as error:
        raise ValueError(f"cannot be opened: {error.strerror or error}") from error
    if not real.is_relative_to(root.resolve()):
        raise ValueError("a symbolic link leads out of the collection's folder")
    return path


def find_images(folder: Path) -> list[Path]:
    """List the image files in a folder, not in its subfolders, in natural order and without hidden ones."""
    # Hidden files include those of macOS, such as `._x.jpg`.
    files = (path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())
    return sorted((path for path in files if is_image(path)), key=natural_sort_key)


def get_base_name(path: Path) -> str:
    """Return the name of an image without its suffix and without the `_0` that face detectors append.

    Examples of such names are `X_0001_0`, `X_aligned_0` and `X_rgb_0`.
    """
    return re.sub(r"(?<=\d|[bd])_0$", "", path.stem)


def index_once(paths: Iterable[Path], key: Callable[[Path], Any] = get_base_name, kind: str = "") -> dict[Any, Path]:
    """Index images, files or folders by the name that the collection gives them.

    Args:
        paths: Images, files or folders.
        key: Function that returns the name or number of a path.
        kind: Words before the name in the error, such as `image of frame `.

    Raises:
        LayoutError: If two paths have the same name, because it is unknown which of them the labels belong to.
    """
    index: dict[Any, Path] = {}
    for path in paths:
        name = key(path)
        other = index.setdefault(name, path)
        if other is not path:
            raise LayoutError(path, f"is a second {kind}`{name}`, beside `{other}`: keep one.")
    return index


def find_folders(folder: Path) -> list[Path]:
    """List the subfolders of a folder, not those below them, in natural order and without hidden ones."""
    return sorted(
        (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")), key=natural_sort_key
    )


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read the lines of a text file that are not blank, each with its number, from 1.

    Raises:
        LayoutError: If the file cannot be read or is not UTF-8.
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
    """The folder of a downloaded collection, with a list of rows that cannot be read.

    Args:
        root: Folder of the collection.

    Attributes:
        broken: Name and reason of each row that could not be read.
    """

    def __init__(self, root: Path):
        self.root = root
        self.broken: list[tuple[str, str]] = []

    def get_name(self, path: Path) -> str:
        """Return a path relative to the folder of the collection, with `/`."""
        return path.relative_to(self.root).as_posix()

    def make_photo(self, path: Path, box: tuple[float, float, float, float] | None = None) -> Photo:
        """Make a `Photo` of an image file."""
        return Photo(path, self.get_name(path), box)

    def find(self, *names: str) -> Path:
        """Return the path of the first of `names` that exists.

        Raises:
            LayoutError: If none of them exists, or a link leads out of the folder.
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
        """Apply a function to each item. Items for which it raises a ValueError are added to `broken`.

        Args:
            items: Name and content of each item.
            read: Function that converts the content to a row or a part of a row.
            where: File or folder that is refused if more than half of its items are broken; None accepts all.

        Returns:
            The results of the items that are not broken.

        Raises:
            LayoutError: If `where` has no items, or more than half of them are broken.
        """
        values, broken = [], []
        for name, item in items:
            try:
                values.append(read(item))
            except ValueError as error:
                broken.append((name, str(error)))
        count = len(values) + len(broken)
        if where is not None and not count:
            raise LayoutError(where, "there is not a single line or image in it: download it again.")
        if where is not None and 2 * len(broken) > count:
            message = f"{len(broken)} of {count} do not fit the layout. The first, {': '.join(broken[0])}."
            raise LayoutError(where, message)
        self.broken += broken
        return values

    def read_images(
        self, paths: Iterable[Path], read: Callable[[Path], Any], refuses_bad_majority: bool = False
    ) -> list[Any]:
        """Apply `read_each` to image files.

        Args:
            paths: Image files.
            read: Function that converts a path to a row.
            refuses_bad_majority: Whether to raise a `LayoutError` if more than half of the images are broken.
        """
        where = self.root if refuses_bad_majority else None
        return self.read_each(((self.get_name(path), path) for path in paths), read, where)

    def read_lines(
        self, path: Path, read: Callable[[Any], Any], lines: Iterable[tuple[int, Any]] | None = None
    ) -> list[Any]:
        """Apply `read_each` to the lines of a label file. It is refused if more than half of its lines are broken.

        Args:
            path: Label file.
            read: Function that converts a line to a row or a part of a row.
            lines: Lines to read with their numbers; None reads all lines that are not blank.
        """
        numbered = read_lines(path) if lines is None else lines
        return self.read_each(((f"{path.name}:{number}", line) for number, line in numbered), read, path)
