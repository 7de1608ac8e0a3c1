"""Write a corpus in parts, one parquet file each, such that an interrupted run can be resumed.

A part has the attributes `table`, `split`, `stem` (the name of its files until the corpus is complete) and `size` (the
unit of progress). Its account, a dataclass, records what happened to its rows; its field `kept` holds the name and the
digest of the image of every row that was written.
"""

import json
import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress, islice
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from ..files import replacing
from ..progress import progress
from .child_processes import map_in_processes

logger = logging.getLogger(__name__)

ROWS_PER_GROUP = 100  # Rows per row group of parquet. A reader of one row reads its whole group.


def begin_or_resume(output_dir: Path, folder: Path, plan: dict) -> dict | None:
    """Write the plan of a new corpus, or check that an earlier run in the same folder had the same plan.

    Args:
        output_dir: Folder that does not exist, is empty, or was left by a run with the same plan. Its `report.json` is
            written last.
        folder: Folder inside `output_dir` for the parts until the corpus is complete.
        plan: Dictionary with `options`, and `collection`, which identifies the input.

    Returns:
        The report of an earlier run that was completed; None if there is work to do.

    Raises:
        ValueError: If `output_dir` holds a corpus with another plan, or other files.
    """
    report, unfinished = _read_plan(output_dir / "report.json"), _read_plan(folder / "plan.json")
    if report is not None:
        _check_same_plan(plan, report, f"{output_dir} holds a corpus that was made")
        logger.info("%s is complete already", output_dir)
        shutil.rmtree(folder, ignore_errors=True)
    elif unfinished is not None:
        _check_same_plan(plan, unfinished, f"{output_dir} holds an unfinished corpus that was begun")
        logger.info("Continuing the unfinished corpus in %s", output_dir)
    elif output_dir.exists() and (not output_dir.is_dir() or set(output_dir.iterdir()) - {folder}):
        raise ValueError(f"{output_dir} exists already and is not empty: delete it, or choose another output folder.")
    else:
        with replacing(folder / "plan.json") as path:
            path.write_text(json.dumps(plan), encoding="utf-8")
    return report


def _read_plan(file: Path) -> dict | None:
    """Read a plan from a plan file or a report; None if the file does not exist or is not one of them."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) and {"options", "collection"} <= content.keys() else None


def _check_same_plan(plan: dict, earlier: dict, message: str):
    options, earlier_options = plan["options"], earlier["options"]
    changed = [name for name in options if options[name] != earlier_options.get(name)]
    if changed or plan["collection"] != earlier["collection"]:
        raise ValueError(
            f"{message} with other {', '.join(changed) or 'images or labels'}: use the same, delete the folder, or "
            "choose another folder."
        )


@dataclass(frozen=True)
class PartWriter(ABC):
    """Writer of parts. It is sent to worker processes, so it holds everything they need.

    Args:
        folder: Folder of the parts until the corpus is complete.
        root: Folder of the input.
        features: Features of each table.
    """

    folder: Path
    root: Path
    features: Mapping[str, Features]
    account_type: ClassVar[type]

    @abstractmethod
    def make_records(self, part: Any, account: Any) -> Iterator[dict]:
        """Make the rows of a part, and record in the account what happens to each."""

    def is_written(self, part: Any) -> bool:
        """Whether a part and its account are complete."""
        return (self.folder / f"{part.stem}.json").exists()

    def __call__(self, part: Any) -> int:
        """Write a part, and then its account, which marks the part as complete. Returns the size of the part."""
        account = self.account_type()
        with replacing(self.folder / f"{part.stem}.parquet") as path:
            write_records(self.make_records(part, account), self.features[part.table].arrow_schema, path)
        with replacing(self.folder / f"{part.stem}.json") as path:
            path.write_text(json.dumps(asdict(account)), encoding="utf-8")
        return part.size

    def read_account(self, part: Any) -> Any:
        """Read the account of a part that is written."""
        return self.account_type(**json.loads((self.folder / f"{part.stem}.json").read_text(encoding="utf-8")))

    def write_missing(self, parts: Sequence[Any], num_proc: int, unit: str, description: str):
        """Write the parts that are not written yet, `num_proc` at a time, with a progress bar."""
        missing = [part for part in parts if not self.is_written(part)]
        total, remaining = (sum(part.size for part in group) for group in (parts, missing))
        workers = min(num_proc, len(missing))
        with progress(total=total, initial=total - remaining, unit=unit, desc=description) as bar:
            for size in map(self, missing) if workers < 2 else map_in_processes(self, missing, workers):
                bar.update(size)

    def move_parts(
        self, accounts: Mapping[Any, Any], output_dir: Path, dropped: Collection[tuple[str, int]] = ()
    ) -> dict[str, dict[str, int]]:
        """Move the parts that have rows to their final names.

        Args:
            accounts: Account of every part, in the order of the corpus.
            output_dir: Folder of the corpus.
            dropped: Rows to drop, each as the stem of its part and its number in the part.

        Returns:
            Number of rows by table and split. Splits without rows are missing.
        """
        groups = defaultdict(list)
        for part, account in accounts.items():
            is_kept = [(part.stem, row) not in dropped for row in range(len(account.kept))]
            group = groups[part.table, part.split]
            if any(is_kept):
                group.append((part, is_kept))
        counts = defaultdict(dict)
        for (table, split), group in groups.items():
            if not group:
                logger.warning("The split `%s` of `%s` is left out: it has no rows.", split, table)
                continue
            for number, (part, is_kept) in enumerate(group):
                name = f"{split}-{number:05d}-of-{len(group):05d}.parquet"
                _move_part(self.folder / f"{part.stem}.parquet", is_kept, output_dir / table / name)
            counts[table][split] = sum(sum(is_kept) for _, is_kept in group)
        return dict(counts)


def _move_part(source: Path, is_kept: Sequence[bool], target: Path):
    """Move a part, without the rows to drop. It is not copied, because a corpus may fill half of a disk."""
    if target.exists():  # An earlier run has moved it.
        return
    target.parent.mkdir(exist_ok=True)
    if not all(is_kept):
        source, full_part = source.with_suffix(".selected"), source
        select_records(full_part, is_kept, source)
    os.replace(source, target)


def write_records(records: Iterable[dict], schema: pa.Schema, path: Path):
    """Write records as a parquet file whose bytes depend on the records alone. Only one row group is in memory."""
    records = iter(records)
    # Compression does not shrink encoded images, but it shrinks names and labels.
    with pq.ParquetWriter(path, schema, compression="snappy") as writer:
        while group := list(islice(records, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def select_records(source: Path, is_kept: Iterable[bool], target: Path):
    """Copy the rows of a parquet file that are marked in `is_kept` to another file."""
    file = pq.ParquetFile(source)
    records = (record for batch in file.iter_batches(ROWS_PER_GROUP) for record in batch.to_pylist())
    write_records(compress(records, is_kept), file.schema_arrow, target)


def make_printable(name: str) -> str:
    """Replace bytes of a name that are not UTF-8, which occur in old archives, by escapes such as `\\udce9`."""
    return name.encode("utf-8", "backslashreplace").decode()
