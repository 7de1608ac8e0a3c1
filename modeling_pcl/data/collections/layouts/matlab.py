"""Numeric arrays out of `.mat` and `.npz` files that nobody vouches for: nothing in them is unpickled or executed.

The MATLAB reader is one of its own because scipy's is not made for such files: one wrong byte, the type of an element,
lets it read outside its memory and ends the process, and a few KB may unpack to GB.

Source:
    MathWorks, MAT-File Format: Level 5 MAT-files. A header of 128 bytes, then elements: a tag of a type and a size, and
    data padded to 8 bytes. A variable is a matrix element, itself of elements: flags, dimensions, name, values.
"""

import math
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAX_MATLAB_BYTES = 64 << 20  # Of a file, and of one variable unpacked; all those of a head pose take 200 KB.
MAX_NPZ_BYTES = 4 << 30  # Of the arrays to read, unpacked: 122 450 images of 64 x 64 px take 1.5 GB.
HEAD_BYTES = 1024  # Enough of a variable for its flags, dimensions and name, which has 63 letters at most.

MATRIX, COMPRESSED, OPAQUE = 14, 15, 17
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMERIC_CLASSES = range(6, 16)
OTHER_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function", OPAQUE: "object"}


def read_matlab(path: Path, names: Collection[str], optional: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Numeric arrays of a MATLAB 5 file (`save -v6` or `-v7`, compressed or not).

    Args:
        path: The file, of at most 64 MB.
        names: Variables that it must have.
        optional: Variables that are read if it has them. Of all others only the name is unpacked.

    Returns:
        Arrays by name, of two dimensions or more as MATLAB has them, in the type in which the file stores the numbers:
        whole numbers may be integers even where MATLAB has doubles.

    Raises:
        ValueError: If the file cannot be read, is too large, is damaged, is not MATLAB 5, lacks one of `names`, or has
            something else than real numbers under a name.
    """
    content = _matlab_5(path)
    if bytes(content[126:128]) != b"IM":
        raise ValueError(
            "is damaged, or of a machine with another order of bytes: save it again, in MATLAB by `save -v7`"
        )
    raw_arrays = {}
    for kind, data in _elements(content[128:]):
        head = _head(_elements(_unpacked(kind, data, HEAD_BYTES)))
        raw_arrays.setdefault(head.name, (kind, data))
    _check_present(names, raw_arrays)
    wanted = [*names, *(name for name in optional if name in raw_arrays)]
    return {name: _matlab_array(name, *raw_arrays[name]) for name in wanted}


def read_npz(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Numeric arrays of a NumPy archive.

    Args:
        path: The file.
        names: Arrays that it must have; others are not read.

    Returns:
        Arrays by name.

    Raises:
        ValueError: If the file cannot be read, lacks one of `names`, or has something else than real numbers under a
            name, also an array of Python objects, which is not unpickled; or if the arrays take more than 4 GiB.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("is not a `.npz` file, or only a part of one")
    try:
        with np.load(path, allow_pickle=False) as archive:
            _check_present(names, archive.files)
            # The archive states how many bytes each member unpacks to, and `zipfile` gives out no more than that.
            size = sum(member.file_size for member in archive.zip.infolist() if Path(member.filename).stem in names)
            if size > MAX_NPZ_BYTES:
                raise ValueError(f"its arrays take {size} bytes, more than {MAX_NPZ_BYTES}")
            arrays = {name: archive[name] for name in names}
    except ValueError:
        raise
    # A damaged archive makes NumPy and zipfile raise nearly anything: BadZipFile, KeyError, zlib.error, MemoryError.
    except Exception as error:
        raise ValueError(f"cannot be read: {type(error).__name__}: {error}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise ValueError(f"`{name}` must be real numbers, not {getattr(array, 'dtype', type(array).__name__)}")
    return arrays


def _check_present(names: Collection[str], present: Collection[str]):
    missing = ", ".join(f"`{name}`" for name in names if name not in present)
    if missing:
        raise ValueError(f"lacks {missing}; it has {', '.join(f'`{name}`' for name in sorted(present)) or 'nothing'}")


def _matlab_5(path: Path) -> memoryview:
    """Content of a file that says that it is MATLAB 5."""
    if path.exists() and not path.is_file():  # A pipe would block.
        raise ValueError("is not a file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MATLAB_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_MATLAB_BYTES:
        raise ValueError(f"has more than {MAX_MATLAB_BYTES} bytes")
    if content.startswith(b"MATLAB 7.3"):
        raise ValueError("is a MATLAB 7.3 file (HDF5). Save it as MATLAB 5, in MATLAB by `save -v7`.")
    if not content.startswith(b"MATLAB 5.0"):
        raise ValueError("is not a MATLAB 5 file: it " + ("must begin with `MATLAB 5.0`" if content else "is empty"))
    return memoryview(content)


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and data of one element after the other."""
    start = 0
    while start < len(data):
        if start + 8 > len(data):
            raise ValueError("is damaged: an element is cut off")
        kind, size = struct.unpack_from("<2I", data, start)
        begin = start + 8
        if kind >> 16:  # A small element: type and size share four bytes, and the data are the next four.
            kind, size, begin = kind & 0xFFFF, kind >> 16, start + 4
        end = begin + size
        if end > len(data) or (begin == start + 4 and size > 4):
            raise ValueError("is damaged: an element is cut off")
        yield kind, data[begin:end]
        start = end if kind == COMPRESSED else end + -end % 8


def _unpacked(kind: int, data: memoryview, limit: int) -> memoryview:
    """What is within a matrix element: all of it, or its first `limit` bytes where it is compressed."""
    if kind == MATRIX:
        return data
    if kind != COMPRESSED:
        raise ValueError(f"is damaged: an element has the type {kind}")
    try:
        return memoryview(zlib.decompressobj().decompress(data, limit + 8))[8:]  # Without the tag of the matrix.
    except zlib.error as error:
        raise ValueError(f"is damaged: {error}") from error


class _Head(NamedTuple):
    """What a variable is, before its values."""

    name: str
    kind: int
    is_complex: bool
    shape: tuple[int, ...]


def _head(elements: Iterator[tuple[int, memoryview]]) -> _Head:
    """Takes the flags, dimensions and name off the elements of a variable; the values are the next."""
    (flags,) = struct.unpack_from("<I", _next(elements, least=4))
    kind = flags & 0xFF
    shape = () if kind == OPAQUE else tuple(np.frombuffer(_next(elements), "<i4").tolist())
    return _Head(bytes(_next(elements)).decode("latin-1"), kind, bool(flags & 0x800), shape)


def _next(elements: Iterator[tuple[int, memoryview]], least: int = 0) -> memoryview:
    _, data = next(elements, (0, b""))
    if len(data) < least:
        raise ValueError("is damaged: a variable is cut off")
    return data


def _matlab_array(name: str, kind: int, data: memoryview) -> np.ndarray:
    content = _unpacked(kind, data, MAX_MATLAB_BYTES + 1)
    if len(content) > MAX_MATLAB_BYTES:
        raise ValueError(f"`{name}` unpacks to more than {MAX_MATLAB_BYTES} bytes")
    elements = _elements(content)
    head = _head(elements)
    if head.kind not in NUMERIC_CLASSES or head.is_complex:
        kind = "complex" if head.kind in NUMERIC_CLASSES else OTHER_CLASSES.get(head.kind, f"class {head.kind}")
        raise ValueError(f"`{name}` must be an array of real numbers, and is of MATLAB's kind `{kind}`")
    stored, numbers = next(elements, (0, b""))
    if stored not in NUMBERS:
        raise ValueError(f"is damaged: the values of `{name}` have the type {stored}")
    values = np.frombuffer(numbers, "<" + NUMBERS[stored])
    if min(head.shape, default=-1) < 0 or math.prod(head.shape) != len(values):
        raise ValueError(f"is damaged: `{name}` has {len(values)} values for the shape {head.shape}")
    return values.astype(NUMBERS[stored]).reshape(head.shape, order="F")
