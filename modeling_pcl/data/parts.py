"""The unit of work in making a corpus: a stretch of rows that becomes one parquet file."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from .images import BrokenImageError
from .layouts.base import Pair, Row
from .raw_images import Treatment, prepare_image

ROWS_PER_GROUP = 100  # Of parquet: what a reader of one row has to read.


@dataclass(frozen=True)
class Part:
    """Consecutive rows of one split that become one file."""

    table: str
    split: str
    number: int
    rows: list[Row] | list[Pair]

    @property
    def stem(self) -> str:
        return f"{self.table}-{self.split}-{self.number:05d}"


@dataclass
class Account:
    """What became of the rows of one part.

    Args:
        kept: Name and digest of each row's image, in the order of the file; of a pair, of its first image.
        broken: Name and reason of each row that was left out.
        notes: Name and note of each image with something odd about it.
    """

    kept: list[tuple[str, str]] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class PartWriter:
    """Writes parts; what a worker process needs for it.

    Args:
        root: The collection's folder.
        folder: Where parts go.
        features: Of each table.
        treatment: What is done to every image.
    """

    root: Path
    folder: Path
    features: dict[str, Features]
    treatment: Treatment

    def is_done(self, part: Part) -> bool:
        return (self.folder / f"{part.stem}.json").exists()

    def __call__(self, part: Part) -> int:
        """Write a part and then its account, which says that the part is whole.

        Returns:
            The number of rows it was made of.
        """
        account, records = Account(), []
        for row in part.rows:
            try:
                records.append(self._record(row, part, account))
            except BrokenImageError as error:
                account.broken.append((error.name, error.reason))
        schema = self.features[part.table].arrow_schema
        table = pa.Table.from_pylist(records, schema=schema)
        with replacing(self.folder / f"{part.stem}.parquet") as path:
            write_table(table, path)
        with replacing(self.folder / f"{part.stem}.json") as path:
            path.write_text(json.dumps(asdict(account)), encoding="utf-8")
        return len(part.rows)

    def _record(self, row: Row | Pair, part: Part, account: Account) -> dict:
        columns = ("image",) if isinstance(row, Row) else ("image_a", "image_b")
        photos = {column: getattr(row, column) for column in columns}
        prepared = {column: prepare_image(self.root, photo, self.treatment) for column, photo in photos.items()}
        account.kept.append((photos[columns[0]].name, prepared[columns[0]].digest))
        account.notes += [(photos[column].name, note) for column in columns for note in prepared[column].notes]
        images = {column: {"bytes": prepared[column].content, "path": photos[column].name} for column in columns}
        if isinstance(row, Pair):
            return images | {"same": row.same, "fold": row.fold}
        return images | {"split": part.split} | row.labels


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, moved to its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    yield unfinished
    os.replace(unfinished, path)


def read_account(folder: Path, part: Part) -> Account:
    """What `PartWriter` wrote down of a part."""
    return Account(**json.loads((folder / f"{part.stem}.json").read_text(encoding="utf-8")))


def write_table(table: pa.Table, path: Path):
    """Write parquet whose bytes depend on the table alone."""
    # Encoded images do not get smaller; their names and labels do.
    pq.write_table(table, path, row_group_size=ROWS_PER_GROUP, compression="snappy")
