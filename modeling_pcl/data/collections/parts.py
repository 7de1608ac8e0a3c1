"""Write the rows of a collection in parts, one parquet file each."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ...images_pcl import BrokenImageError
from ..parts import PartWriter, make_printable
from .layouts.base import Pair, Photo, Row
from .raw_images import Prepared, Treatment, prepare_image


@dataclass(frozen=True, eq=False)
class Part:
    """Consecutive rows of one split that are written to one file."""

    table: str
    split: str
    number: int
    rows: list[Row] | list[Pair]

    @property
    def stem(self) -> str:
        """Name of the files of this part, without suffix."""
        return f"{self.table}-{self.split}-{self.number:05d}"

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.rows)


@dataclass
class Account:
    """Record of what happened to the rows of one part.

    Args:
        kept: Name and digest of the image of each row that was written, in the order of the file; of a pair, its first
            image.
        broken: Name and reason of each row that was left out.
        notes: Name and note of each image that has an oddity but can be used.
    """

    kept: list[tuple[str, str]] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class CollectionWriter(PartWriter):
    """Writer of the parts of a collection.

    Args:
        folder: Folder of the parts until the corpus is complete.
        root: Folder of the collection.
        features: Features of each table.
        treatment: How images are cropped and resized.
    """

    treatment: Treatment
    account_type = Account

    def make_records(self, part: Part, account: Account) -> Iterator[dict]:
        """Make the rows of a part. Rows with broken images are left out and recorded in the account."""
        for row in part.rows:
            try:
                yield self._make_record(row, part, account)
            except BrokenImageError as error:
                account.broken.append((error.name, error.reason))

    def _make_record(self, row: Row | Pair, part: Part, account: Account) -> dict:
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
        if make_printable(photo.name) != photo.name:
            raise BrokenImageError(photo.name, "its name is not UTF-8: rename the file")
        return prepare_image(self.root, photo, self.treatment)
