"""The unit of work in making a corpus: a stretch of rows that becomes one parquet file."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import compress, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from ...files import replacing
from ...images_pcl import BrokenImageError
from .layouts.base import Pair, Photo, Row
from .raw_images import Prepared, Treatment, prepare_image

ROWS_PER_GROUP = 100  # Of parquet: what a reader of one row has to read, and a writer to hold.


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
        account = Account()
        with replacing(self.folder / f"{part.stem}.parquet") as path:
            write_records(self._records(part, account), self.features[part.table].arrow_schema, path)
        with replacing(self.folder / f"{part.stem}.json") as path:
            path.write_text(json.dumps(asdict(account)), encoding="utf-8")
        return len(part.rows)

    def _records(self, part: Part, account: Account) -> Iterator[dict]:
        for row in part.rows:
            try:
                record = self._record(row, part, account)
            except BrokenImageError as error:
                account.broken.append((error.name, error.reason))
            else:
                yield record

    def _record(self, row: Row | Pair, part: Part, account: Account) -> dict:
        columns = ("image",) if isinstance(row, Row) else ("image_a", "image_b")
        photos = {column: getattr(row, column) for column in columns}
        prepared = {column: self._prepare(photo) for column, photo in photos.items()}
        account.kept.append((photos[columns[0]].name, prepared[columns[0]].digest))
        account.notes += [(photos[column].name, note) for column in columns for note in prepared[column].notes]
        images = {column: {"bytes": prepared[column].content, "path": photos[column].name} for column in columns}
        if isinstance(row, Pair):
            return images | {"same": row.same, "fold": row.fold}
        return images | {"split": part.split} | row.labels

    def _prepare(self, photo: Photo) -> Prepared:
        if printable(photo.name) != photo.name:
            raise BrokenImageError(photo.name, "its name is not UTF-8: rename the file")
        return prepare_image(self.root, photo, self.treatment)


def printable(name: str) -> str:
    """A name in which bytes that are not UTF-8, as old archives have them, are written out."""
    return name.encode("utf-8", "backslashreplace").decode()


def read_account(folder: Path, part: Part) -> Account:
    """What `PartWriter` wrote down of a part."""
    return Account(**json.loads((folder / f"{part.stem}.json").read_text(encoding="utf-8")))


def write_records(records: Iterable[dict], schema: pa.Schema, path: Path):
    """Write parquet whose bytes depend on the records alone, without ever holding more than a group of them."""
    records = iter(records)
    # Encoded images do not get smaller; their names and labels do.
    with pq.ParquetWriter(path, schema, compression="snappy") as writer:
        while group := list(islice(records, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def select_records(source: Path, is_kept: Iterable[bool], target: Path):
    """Write those rows of a parquet file to another that are to be kept."""
    file = pq.ParquetFile(source)
    records = (record for batch in file.iter_batches(ROWS_PER_GROUP) for record in batch.to_pylist())
    write_records(compress(records, is_kept), file.schema_arrow, target)
