"""A corpus that is made part by part, each a parquet file, and gone on with after a stop.

A part has `table`, `split` and `stem`, the name of its files until the corpus is whole; its `size` is what progress is
counted in. Its account, a dataclass, says what became of its rows: `kept` has the name and digest of each row's image.
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
from .child_processes import in_processes

logger = logging.getLogger(__name__)

ROWS_PER_GROUP = 100  # Of parquet: what a reader of one row has to read, and a writer to hold.


def begin_or_go_on(output_dir: Path, folder: Path, plan: dict) -> dict | None:
    """Note what is being made, or check that it is what was being made before.

    Args:
        output_dir: New, empty, or left behind by a run with the same plan; its `report.json` is written last.
        folder: Where parts lie until the corpus is whole, in `output_dir`.
        plan: With `options`, and `collection`, which identifies what the corpus is made of.

    Returns:
        The report of an earlier run that came to its end, None if there is something left to do.

    Raises:
        ValueError: If `output_dir` holds something else.
    """
    report, unfinished = _read_plan(output_dir / "report.json"), _read_plan(folder / "plan.json")
    if report is not None:
        _check_same(plan, report, f"{output_dir} holds a corpus that was made")
        logger.info("%s is finished already", output_dir)
        shutil.rmtree(folder, ignore_errors=True)
    elif unfinished is not None:
        _check_same(plan, unfinished, f"{output_dir} holds an unfinished corpus, begun")
        logger.info("Going on with the unfinished corpus in %s", output_dir)
    elif output_dir.exists() and (not output_dir.is_dir() or set(output_dir.iterdir()) - {folder}):
        raise ValueError(f"{output_dir} exists already and is not empty: delete it, or choose another output folder.")
    else:
        with replacing(folder / "plan.json") as path:
            path.write_text(json.dumps(plan), encoding="utf-8")
    return report


def _read_plan(file: Path) -> dict | None:
    """What `begin_or_go_on` compares, from its own file or a report; None if there is no such file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) and {"options", "collection"} <= content.keys() else None


def _check_same(plan: dict, earlier: dict, what: str):
    options, before = plan["options"], earlier["options"]
    changed = [name for name in options if options[name] != before.get(name)]
    if changed or plan["collection"] != earlier["collection"]:
        raise ValueError(
            f"{what} with other {', '.join(changed) or 'images or labels'}: give the same, delete the folder, or "
            "choose another."
        )


@dataclass(frozen=True)
class PartWriter(ABC):
    """Writes parts; what a worker process needs for it.

    Args:
        folder: Where parts lie until the corpus is whole.
        root: Folder of what the corpus is made of.
        features: Of each table.
    """

    folder: Path
    root: Path
    features: Mapping[str, Features]
    account_type: ClassVar[type]

    @abstractmethod
    def records(self, part: Any, account: Any) -> Iterator[dict]:
        """Make the part's rows, and note in the account what becomes of each."""

    def is_done(self, part: Any) -> bool:
        return (self.folder / f"{part.stem}.json").exists()

    def __call__(self, part: Any) -> int:
        """Write a part and then its account, which says that the part is whole. Returns the part's size."""
        account = self.account_type()
        with replacing(self.folder / f"{part.stem}.parquet") as path:
            write_records(self.records(part, account), self.features[part.table].arrow_schema, path)
        with replacing(self.folder / f"{part.stem}.json") as path:
            path.write_text(json.dumps(asdict(account)), encoding="utf-8")
        return part.size

    def read_account(self, part: Any) -> Any:
        return self.account_type(**json.loads((self.folder / f"{part.stem}.json").read_text(encoding="utf-8")))

    def write_missing(self, parts: Sequence[Any], num_proc: int, unit: str, description: str):
        """Write the parts that are not written yet, so many side by side."""
        missing = [part for part in parts if not self.is_done(part)]
        total, left = (sum(part.size for part in group) for group in (parts, missing))
        workers = min(num_proc, len(missing))
        with progress(total=total, initial=total - left, unit=unit, desc=description) as bar:
            for size in map(self, missing) if workers < 2 else in_processes(self, missing, workers):
                bar.update(size)

    def place_parts(
        self, accounts: Mapping[Any, Any], output_dir: Path, dropped: Collection[tuple[str, int]] = ()
    ) -> dict[str, dict[str, int]]:
        """Give the parts that have rows their final names.

        Args:
            accounts: Of all parts, in the order of the corpus.
            output_dir: Folder of the corpus.
            dropped: Stem of the part and number of each row that is left out.

        Returns:
            The number of rows by table and split, of those that have any.
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
                logger.warning("The split `%s` of `%s` is left out: nothing of it is left.", split, table)
                continue
            for number, (part, is_kept) in enumerate(group):
                name = f"{split}-{number:05d}-of-{len(group):05d}.parquet"
                _place(self.folder / f"{part.stem}.parquet", is_kept, output_dir / table / name)
            counts[table][split] = sum(sum(is_kept) for _, is_kept in group)
        return dict(counts)


def _place(source: Path, is_kept: Sequence[bool], target: Path):
    """Move a part, not copy it: a corpus may fill half of a disk."""
    if target.exists():  # An earlier run came this far.
        return
    target.parent.mkdir(exist_ok=True)
    if not all(is_kept):
        source, complete = source.with_suffix(".selected"), source
        select_records(complete, is_kept, source)
    os.replace(source, target)


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


def printable(name: str) -> str:
    """A name in which bytes that are not UTF-8, as old archives have them, are written out."""
    return name.encode("utf-8", "backslashreplace").decode()
