"""Files of features: shards of parquet or safetensors, each written atomically.

    features-00000.parquet       the columns of the corpus, and `trunk`, `face`, `pose` as lists of equal length

or

    features-00000.safetensors   `trunk`, `face`, `pose`, each (rows, dim)
    rows-00000.parquet           the columns of the same rows
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features, List, Value
from safetensors import safe_open
from safetensors.torch import save

from ..files import replacing

logger = logging.getLogger(__name__)

Format = Literal["parquet", "safetensors"]

NOTES = b"notes"
FILE_BYTES = 2**28  # Size of the features per file; they are held in memory until the file is written.
ROWS_PER_GROUP = 1000  # Readers load whole groups; with small ones they can skip rows and need less memory.


def choose_rows_per_file(width: int) -> int:
    """Choose the number of rows that give 256 MiB of float32 features, at `width` numbers per row."""
    return max(1, FILE_BYTES // (4 * width))


class FeatureFiles:
    """The shards in a folder.

    Parquet files store features as float32, which every reader supports. Bytes of equal significance are stored
    together, so that the zero bytes of features computed in bfloat16 compress to almost nothing. Safetensors files keep
    the dtype of the features.

    Args:
        folder: The folder; created with the first shard.
        file_format: `"parquet"` or `"safetensors"`.
        columns: Names and types of the columns of the corpus.
    """

    def __init__(self, folder: Path, file_format: Format, columns: Features):
        self.folder, self.file_format, self.columns = folder, file_format, columns

    def shard_path(self, number: int) -> Path:
        """Return the path of the file with a shard's features."""
        return self.folder / f"features-{number:05d}.{self.file_format}"

    def _rows_path(self, number: int) -> Path:
        """Return the path of the parquet file with the columns of a shard's rows."""
        return self.shard_path(number) if self.file_format == "parquet" else self.folder / f"rows-{number:05d}.parquet"

    def shard_paths(self, number: int) -> list[Path]:
        """List the files of a shard, in the order in which they are written."""
        return list(dict.fromkeys([self._rows_path(number), self.shard_path(number)]))

    def count_shards(self) -> int:
        """Count the shards up to the first that is missing."""
        number = 0
        while all(path.exists() for path in self.shard_paths(number)):
            number += 1
        return number

    def is_readable(self, number: int) -> bool:
        """Return whether the files of a shard can be opened. Empty and truncated files cannot."""
        try:
            self.read_notes(number)
            if self.file_format == "safetensors":
                with safe_open(self.shard_path(number), "pt"):
                    pass
        except Exception:  # Arrow and safetensors have no common exception class.
            return False
        return True

    def remove_damaged(self, is_intact: Callable[[int], bool]):
        """Remove all shards from the first damaged one on, so that the same call writes them again."""
        damaged = next((number for number in range(self.count_shards()) if not is_intact(number)), None)
        if damaged is None:
            return
        logger.warning(
            "%s is damaged, or was not finished: shards from there on are written again", self.shard_path(damaged)
        )
        for number in reversed(range(damaged, self.count_shards())):  # Last first: a stop leaves no gap.
            for path in reversed(self.shard_paths(number)):
                path.unlink()

    def count_rows(self) -> int:
        """Count the rows of all shards that `count_shards` counts."""
        return sum(pq.read_metadata(self._rows_path(number)).num_rows for number in range(self.count_shards()))

    def read_notes(self, number: int) -> dict:
        """Read the notes that `write` stored with a shard."""
        return json.loads(pq.read_schema(self._rows_path(number)).metadata[NOTES])

    def read_last_row(self, number: int) -> dict | None:
        """Read the columns of a shard's last row; None if it has no rows."""
        table = pq.read_table(self._rows_path(number), columns=list(self.columns))
        return table.slice(table.num_rows - 1).to_pylist()[0] if table.num_rows else None

    def write(self, number: int, rows: Sequence[Mapping], features: Mapping[str, torch.Tensor], notes: dict):
        """Write a shard.

        Args:
            number: Number of the shard, from 0.
            rows: The columns of every row.
            features: Features by name, each `(rows, dim)`, on the CPU.
            notes: JSON-serialisable facts to store with the shard.

        Raises:
            OSError: If the disk is full. The shard then does not exist.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        columns = {name: [row[name] for row in rows] for name in self.columns}
        table = Dataset.from_dict(columns, features=self.columns).with_format("arrow")[:]
        feature_columns = features if self.file_format == "parquet" else {}
        for name, tensor in feature_columns.items():
            values = pa.array(tensor.float().numpy().ravel())
            table = table.append_column(name, pa.FixedSizeListArray.from_arrays(values, tensor.shape[1]))
        lists = {name: List(Value("float32"), length=tensor.shape[1]) for name, tensor in feature_columns.items()}
        schema = Features({**self.columns, **lists}).arrow_schema
        schema = schema.with_metadata({**schema.metadata, NOTES: json.dumps(notes).encode()})
        with replacing(self._rows_path(number)) as unfinished:
            pq.write_table(
                table.cast(schema),
                unfinished,
                row_group_size=ROWS_PER_GROUP,
                compression="zstd",
                use_dictionary=list(self.columns),
                use_byte_stream_split=[f"{name}.list.element" for name in feature_columns],
            )
        if self.file_format == "safetensors":
            content = save({name: tensor.contiguous() for name, tensor in features.items()})
            with replacing(self.shard_path(number)) as unfinished:
                unfinished.write_bytes(content)
