"""Read numeric arrays from untrusted `.mat` and `.npz` files. Nothing in them is unpickled or executed.

scipy's reader of MATLAB files is not used because it is not made for untrusted files: one wrong byte in the type of an
element makes it read outside its memory, which ends the process, and a few KB may be decompressed to GB.

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

MAX_MATLAB_BYTES = 64 << 20  # Limit of a file, and of a decompressed variable. Those of a head pose take 200 KB.
MAX_NPZ_BYTES = 4 << 30  # Limit of all decompressed arrays. 122 450 images of 64 x 64 px take 1.5 GB.
HEAD_BYTES = 1024  # Enough for the flags, dimensions and name of a variable. Names have at most 63 letters.

MATRIX, COMPRESSED, OPAQUE = 14, 15, 17
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMERIC_CLASSES = range(6, 16)
OTHER_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function", OPAQUE: "object"}


def read_matlab(path: Path, names: Collection[str], optional: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Read numeric arrays from a MATLAB 5 file (`save -v6` or `-v7`, compressed or not).

    Args:
        path: File of at most 64 MB.
        names: Variables that the file must have.
        optional: Variables that are read if the file has them. Of all other variables only the names are decompressed.

    Returns:
        Arrays by name, with two or more dimensions as in MATLAB. They have the type in which the file stores the
        numbers, which may be integers even if the variable is a double in MATLAB.

    Raises:
        ValueError: If the file cannot be read, is too large, is damaged, is not MATLAB 5 or lacks one of `names`, or
            a variable is not an array of real numbers.
    """
    content = _read_file(path)
    if bytes(content[126:128]) != b"IM":
        raise ValueError(
            "is damaged, or from a machine with another byte order: save it again, in MATLAB by `save -v7`"
        )
    raw_arrays = {}
    for kind, data in _iterate_elements(content[128:]):
        head = _read_head(_iterate_elements(_decompress(kind, data, HEAD_BYTES)))
        raw_arrays.setdefault(head.name, (kind, data))
    _check_present(names, raw_arrays)
    selected_names = [*names, *(name for name in optional if name in raw_arrays)]
    return {name: _read_array(name, *raw_arrays[name]) for name in selected_names}


def read_npz(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Read numeric arrays from a NumPy archive.

    Args:
        path: File.
        names: Arrays that the file must have. Other arrays are not read.

    Returns:
        Arrays by name.

    Raises:
        ValueError: If the file cannot be read, lacks one of `names`, or the arrays take more than 4 GiB; or if an array
            does not hold real numbers. Python objects are not unpickled.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("is not a `.npz` file, or only a part of one")
    try:
        with np.load(path, allow_pickle=False) as archive:
            _check_present(names, archive.files)
            # `zipfile` never decompresses more bytes of a member than the archive states for it.
            size = sum(member.file_size for member in archive.zip.infolist() if Path(member.filename).stem in names)
            if size > MAX_NPZ_BYTES:
                raise ValueError(f"its arrays take {size} bytes, more than {MAX_NPZ_BYTES}")
            arrays = {name: archive[name] for name in names}
    except ValueError:
        raise
    # For damaged archives NumPy and zipfile raise many classes: BadZipFile, KeyError, zlib.error, MemoryError.
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


def _read_file(path: Path) -> memoryview:
    """Read a file and check that it begins like a MATLAB 5 file."""
    if path.exists() and not path.is_file():  # Opening a pipe would block.
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


def _iterate_elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Iterate over elements, each with its type and data."""
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


def _decompress(kind: int, data: memoryview, limit: int) -> memoryview:
    """Return the content of a matrix element, decompressed; at most `limit` bytes if it is compressed."""
    if kind == MATRIX:
        return data
    if kind != COMPRESSED:
        raise ValueError(f"is damaged: an element has the type {kind}")
    try:
        # The first 8 bytes are the tag of the matrix.
        return memoryview(zlib.decompressobj().decompress(data, limit + 8))[8:]
    except zlib.error as error:
        raise ValueError(f"is damaged: {error}") from error


class _Head(NamedTuple):
    """Name, MATLAB class and shape of a variable."""

    name: str
    kind: int
    is_complex: bool
    shape: tuple[int, ...]


def _read_head(elements: Iterator[tuple[int, memoryview]]) -> _Head:
    """Read the flags, dimensions and name of a variable. The next element holds its values."""
    (flags,) = struct.unpack_from("<I", _read_next(elements, min_bytes=4))
    kind = flags & 0xFF
    shape = () if kind == OPAQUE else tuple(np.frombuffer(_read_next(elements), "<i4").tolist())
    return _Head(bytes(_read_next(elements)).decode("latin-1"), kind, bool(flags & 0x800), shape)


def _read_next(elements: Iterator[tuple[int, memoryview]], min_bytes: int = 0) -> memoryview:
    """Return the data of the next element, empty if there is none."""
    _, data = next(elements, (0, b""))
    if len(data) < min_bytes:
        raise ValueError("is damaged: a variable is cut off")
    return data


def _read_array(name: str, kind: int, data: memoryview) -> np.ndarray:
    """Read the array of real numbers in a variable."""
    content = _decompress(kind, data, MAX_MATLAB_BYTES + 1)
    if len(content) > MAX_MATLAB_BYTES:
        raise ValueError(f"`{name}` unpacks to more than {MAX_MATLAB_BYTES} bytes")
    elements = _iterate_elements(content)
    head = _read_head(elements)
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
