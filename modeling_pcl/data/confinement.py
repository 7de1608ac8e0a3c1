"""Paths that come from data: only regular files of the same corpus are opened."""

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

MAX_FILE_BYTES = 256 * 2**20  # As much as 64 million pixels of four channels, the most of an image, take.
OUTSIDE = "outside the corpus: "
ADDRESSES = ("hf", "memory")  # Other schemes reach the network, or any file of this machine.


def confine_images(corpus: Corpus, column: str, root: Path | str) -> Corpus:
    """Let the paths of a column lead to files of the corpus only.

    Rows that hold the bytes of their image stay as they are.

    Args:
        corpus: With an undecoded image column.
        column: Its name.
        root: Folder of the corpus, from which relative paths count, or the id of its Hub repository.

    Returns:
        The corpus, in which paths are absolute, and those that lead elsewhere begin with `OUTSIDE`, which
        `read_image_file` refuses.
    """
    if isinstance(corpus, IterableDataset):
        return corpus.map(partial(_confine_row, column, root), features=corpus.features)
    images = corpus.data.column(column)
    if not isinstance(images.type, pa.StructType):  # Of no row.
        return corpus
    has_only_path = pc.and_(pc.is_null(pc.struct_field(images, "bytes")), pc.is_valid(pc.struct_field(images, "path")))
    if not pc.any(has_only_path).as_py():
        return corpus
    records = [_confined_record(record, root) for record in images.to_pylist()]
    table = corpus.data.table
    position = table.schema.get_field_index(column)
    table = table.set_column(position, table.schema.field(position), pa.array(records, images.type))
    return Dataset(InMemoryTable(table), info=corpus.info, split=corpus.split)


def _confine_row(column: str, root: Path | str, row: dict) -> dict:
    return {column: _confined_record(row[column], root)}


def _confined_record(record: dict | None, root: Path | str) -> dict | None:
    if record is None or record["bytes"] is not None or record["path"] is None:
        return record
    return record | {"path": confined_path(record["path"], root)}


def confined_path(path: str, root: Path | str) -> str:
    """The path where it leads into `root`, a folder or a Hub repository, once links are followed; else marked."""
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
    """The content of a file, or of what an address leads to.

    Raises:
        ValueError: If it was marked by `confine_images`, is no regular file, or has more than 256 MiB.
        OSError: If it cannot be read.
    """
    if path.startswith(OUTSIDE):
        raise ValueError("the path of a row must lead to a file of its own corpus")
    if "://" in path:
        container = path.rpartition("::")[2]  # Of `zip://face.png::faces.zip` the archive.
        if "://" in container and container.partition("://")[0] not in ADDRESSES:
            raise ValueError("addresses of this kind are not opened")
        with fsspec.open(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
        size = len(content)
    else:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        size = status.st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"the file has {size} bytes, more than {MAX_FILE_BYTES}")
    return content if "://" in path else Path(path).read_bytes()
