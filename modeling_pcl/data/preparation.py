"""A raw collection to a corpus on disk: checked images in sharded parquet, and an account of what was found.

    OUTPUT_DIR/
        data/train-00000-of-00003.parquet ...      the corpus, by split
        pairs/test-00000-of-00001.parquet ...      verification pairs, where there are any
        report.json                                counts, broken rows, copies, subjects in several splits
        .preparing/                                parts of a run that is not finished; gone at its end

The same input and options give the same bytes. A run that was killed goes on with the parts that it has.
"""

import hashlib
import json
import logging
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import Features
from tqdm import tqdm

from .copies import Found, describe_copies, find_copies
from .layouts.base import Collection, LayoutError, Row
from .parts import Account, Part, PartWriter, read_account, replacing, write_table
from .raw_images import Treatment
from .schema import PAIR_COLUMNS, corpus_features

logger = logging.getLogger(__name__)

ROWS_PER_PART = 1000
NAMED_IN_REPORT = 100  # Subjects; broken rows and copies are all named.


def prepare_corpus(
    collection: Collection,
    root: Path,
    output_dir: Path,
    options: Mapping,
    treatment: Treatment = Treatment(),  # noqa: B008 it is frozen
    num_proc: int = 1,
    drop_duplicates: bool = False,
    rows_per_part: int = ROWS_PER_PART,
) -> dict:
    """Write a collection as a corpus.

    Args:
        collection: What a layout read.
        root: The collection's folder.
        output_dir: New, empty, or left behind by an unfinished run with the same options.
        options: What the user asked for, as JSON values; written into the report, and compared with the unfinished run.
        treatment: What is done to every image.
        num_proc: Processes that work side by side, at least 1.
        drop_duplicates: Keep one copy of images that are equal byte for byte, rather than only report them.
        rows_per_part: Rows a file has at most, at least 1.

    Returns:
        The report, as it is in `report.json`.

    Raises:
        LayoutError: If not a single image could be used.
        ValueError: If `output_dir` holds something else.
    """
    parts = list(_parts(collection, rows_per_part))
    folder = output_dir / ".preparing"
    _start(output_dir, folder, parts, dict(options))
    features = {"data": corpus_features(collection.columns), "pairs": Features(PAIR_COLUMNS)}
    _write_parts(parts, PartWriter(root, folder, features, treatment), num_proc)
    accounts = {part.stem: read_account(folder, part) for part in parts}
    _check_not_all_broken(root, parts, accounts)
    copies = find_copies(_found(parts, accounts))
    dropped = {(image.part, image.row) for group in copies for image in group[1:]} if drop_duplicates else set()
    rows = _finish(parts, accounts, dropped, folder, output_dir)
    report = {
        "options": dict(options),
        "rows": rows,
        "dropped_copies": len(dropped),
        "broken": _by_name(collection.broken, *(account.broken for account in accounts.values())),
        "notes": _by_note(account.notes for account in accounts.values()),
        "copies": describe_copies(copies),
        "subjects": _describe_subjects(collection),
    }
    with replacing(output_dir / "report.json") as path:
        path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.rmtree(folder)
    return report


def _parts(collection: Collection, rows_per_part: int) -> Iterator[Part]:
    for table, splits in {"data": collection.splits, "pairs": collection.pairs}.items():
        for split, rows in splits.items():
            for number, start in enumerate(range(0, len(rows), rows_per_part)):
                yield Part(table, split, number, rows[start : start + rows_per_part])


def _start(output_dir: Path, folder: Path, parts: Sequence[Part], options: dict):
    """Note what is being made, or check that it is what was being made before."""
    plan, plan_file = {"options": options, "rows": _digest_of_rows(parts)}, folder / "plan.json"
    if plan_file.exists():
        earlier = json.loads(plan_file.read_text(encoding="utf-8"))
        if earlier != plan:
            changed = [name for name in options if options[name] != earlier["options"].get(name)]
            raise ValueError(
                f"{output_dir} holds an unfinished preparation with other {', '.join(changed) or 'images'}: finish it "
                "with the same options, delete the folder, or choose another."
            )
        logger.info("Going on with the unfinished preparation in %s", output_dir)
    elif output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ValueError(f"{output_dir} exists already and is not empty: delete it, or choose another output folder.")
    else:
        with replacing(plan_file) as path:
            path.write_text(json.dumps(plan), encoding="utf-8")


def _digest_of_rows(parts: Sequence[Part]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.stem.encode())
        for row in part.rows:
            names = (row.image.name,) if isinstance(row, Row) else (row.image_a.name, row.image_b.name)
            labels = row.labels if isinstance(row, Row) else (row.same, row.fold)
            digest.update(json.dumps([names, labels], default=str).encode())
    return digest.hexdigest()


def _write_parts(parts: Sequence[Part], write: PartWriter, num_proc: int):
    missing = [part for part in parts if not write.is_done(part)]
    total, left = (sum(len(part.rows) for part in group) for group in (parts, missing))
    with tqdm(total=total, initial=total - left, unit="row", desc="Preparing") as bar:
        for count in _in_processes(write, missing, num_proc):
            bar.update(count)


def _in_processes(write: PartWriter, parts: Sequence[Part], num_proc: int) -> Iterator[int]:
    if num_proc == 1 or len(parts) < 2:
        yield from map(write, parts)
        return
    # Not forked: the threads of torch and Arrow would not survive it.
    with ProcessPoolExecutor(min(num_proc, len(parts)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(write, parts)


def _check_not_all_broken(root: Path, parts: Sequence[Part], accounts: Mapping[str, Account]):
    if any(accounts[part.stem].kept for part in parts if part.table == "data"):
        return
    broken = [entry for account in accounts.values() for entry in account.broken]
    if not broken:
        raise LayoutError(root, "there is not a single row in it.")
    name, reason = broken[0]
    raise LayoutError(root, f"not one of {len(broken)} images could be used. The first, {name}: {reason}")


def _found(parts: Sequence[Part], accounts: Mapping[str, Account]) -> Iterator[Found]:
    for part in parts:
        if part.table == "data":
            for row, (name, digest) in enumerate(accounts[part.stem].kept):
                yield Found(part.split, part.stem, row, name, digest)


def _finish(parts: Sequence[Part], accounts: dict, dropped: set, folder: Path, output_dir: Path) -> dict:
    """Give the parts that have rows their final names, without the dropped rows.

    Returns:
        The number of rows by table and split.
    """
    counts = {"data": defaultdict(int), "pairs": defaultdict(int)}
    groups = defaultdict(list)
    for part in parts:
        rows = [row for row in range(len(accounts[part.stem].kept)) if (part.stem, row) not in dropped]
        counts[part.table][part.split] += len(rows)
        if rows:
            groups[part.table, part.split].append((part, rows))
    for (table, split), group in groups.items():
        for number, (part, rows) in enumerate(group):
            with replacing(output_dir / table / f"{split}-{number:05d}-of-{len(group):05d}.parquet") as path:
                _copy_rows(folder / f"{part.stem}.parquet", rows, len(accounts[part.stem].kept), path)
    return {table: dict(splits) for table, splits in counts.items() if splits}


def _copy_rows(source: Path, rows: list[int], total: int, target: Path):
    if len(rows) == total:
        shutil.copyfile(source, target)
    else:
        write_table(pq.read_table(source).take(np.array(rows)), target)


def _by_name(*entries: Sequence[tuple[str, str]]) -> list[dict]:
    """Each broken row once: a pair's image may be a row of its own too."""
    reasons = dict(tuple(entry) for group in entries for entry in group)
    return [{"name": name, "reason": reason} for name, reason in reasons.items()]


def _by_note(notes: Iterator[Sequence[tuple[str, str]]]) -> dict[str, list[str]]:
    names = defaultdict(dict)
    for name, note in (entry for group in notes for entry in group):
        names[note][name] = None
    return {note: list(named) for note, named in sorted(names.items())}


def _describe_subjects(collection: Collection) -> dict:
    """How many there are in each split, and those in more than one."""
    splits = defaultdict(set)
    for split, rows in collection.splits.items():
        for row in rows:
            if row.labels.get("subject") is not None:
                splits[row.labels["subject"]].add(split)
    shared = sorted(subject for subject, found in splits.items() if len(found) > 1)
    return {"count": len(splits), "in_several_splits": len(shared), "named": shared[:NAMED_IN_REPORT]}
