"""Restrict paths in the rows of a corpus to regular files of the same corpus."""

import os
import stat
from functools import partial
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset
from datasets.table import InMemoryTable

Corpus = Dataset | IterableDataset

MAX_FILE_BYTES = 256 * 2**20  # The size of 64 million pixels with four channels, the largest image that is decoded.
OUTSIDE = "outside the corpus: "
ADDRESSES = ("hf", "memory")  # Other schemes could reach the network, or any file of this machine.


def confine_images(corpus: Corpus, column: str, root: Path | str) -> Corpus:
    """Make the paths of an image column absolute, and mark those that lead out of the corpus.

    Rows that hold the bytes of their image are not changed.

    Args:
        corpus: Corpus with an undecoded image column.
        column: Name of that column.
        root: Folder of the corpus, to which paths are relative, or the id of its Hub repository.

    Returns:
        The corpus with absolute paths. Paths that lead out of the corpus begin with `OUTSIDE`, and `read_image_file`
        refuses them.
    """
    if isinstance(corpus, IterableDataset):
        return corpus.map(partial(_confine_row, column, root), features=corpus.features)
    images = corpus.data.column(column)
    if not isinstance(images.type, pa.StructType):  # A column without rows has the type null.
        return corpus
    has_only_path = pc.and_(pc.is_null(pc.struct_field(images, "bytes")), pc.is_valid(pc.struct_field(images, "path")))
    if not pc.any(has_only_path).as_py():
        return corpus
    records = [_confine_record(record, root) for record in images.to_pylist()]
    table = corpus.data.table
    position = table.schema.get_field_index(column)
    table = table.set_column(position, table.schema.field(position), pa.array(records, images.type))
    return Dataset(InMemoryTable(table), info=corpus.info, split=corpus.split)


def _confine_row(column: str, root: Path | str, row: dict) -> dict:
    return {column: _confine_record(row[column], root)}


def _confine_record(record: dict | None, root: Path | str) -> dict | None:
    if record is None or record["bytes"] is not None or record["path"] is None:
        return record
    return record | {"path": confine_path(record["path"], root)}


def confine_path(path: str, root: Path | str) -> str:
    """Make a path absolute if it leads into `root`, links followed, and mark it with `OUTSIDE` if it does not.

    Args:
        path: Path or address in a row.
        root: Folder of the corpus, or the id of its Hub repository.
    """
    if path.startswith(OUTSIDE):
        return path
    if isinstance(root, str):
        is_inside = path.rpartition("::")[2].startswith(f"hf://datasets/{root}@")
        return path if is_inside else OUTSIDE + path
    try:
        joined = root / path
        is_inside = "://" not in path and joined.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # A loop of links, or a path with a null character.
        is_inside = False
    return str(joined.absolute()) if is_inside else OUTSIDE + path


def read_image_file(path: str) -> bytes:
    """Read the content of a file or an address.

    Raises:
        ValueError: If `confine_images` marked the path, or the file is not regular or larger than 256 MiB.
        OSError: If the file cannot be read.
    """
    if path.startswith(OUTSIDE):
        raise ValueError("the path of a row must lead to a file of its own corpus")
    if "://" in path:
        container = path.rpartition("::")[2]  # The archive, in `zip://face.png::faces.zip`.
        if "://" in container and container.partition("://")[0] not in ADDRESSES:
            raise ValueError("addresses of this kind are not opened")
        with fsspec.open(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
        size = len(content)
    else:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        size = status.st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"the file has {size} bytes, more than {MAX_FILE_BYTES}")
    return content if "://" in path else Path(path).read_bytes()
