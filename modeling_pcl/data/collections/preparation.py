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
from pathlib import Path

from datasets import Features

from ...files import write_json
from ..child_processes import available_cpus
from ..parts import begin_or_resume, make_printable
from ..schema import PAIR_COLUMNS, make_corpus_features
from .arguments import PreparationArguments
from .copies import Found, describe_copies, find_copies
from .layouts import LAYOUTS, Collection, LayoutError
from .layouts.base import Row
from .parts import Account, CollectionWriter, Part
from .raw_images import Treatment
from .regrouping import add_pairs, shuffle, split_again

logger = logging.getLogger(__name__)

NAMED_IN_REPORT = 100  # Subjects; broken rows and copies are all named.


def prepare_corpus(
    collection: Collection,
    root: Path,
    output_dir: Path,
    options: Mapping,
    treatment: Treatment = Treatment(),  # noqa: B008 it is frozen
    num_proc: int = 1,
    drop_duplicates: bool = False,
    rows_per_part: int = 1000,
) -> dict:
    """Write a collection as a corpus.

    Args:
        collection: What a layout read.
        root: The collection's folder.
        output_dir: New, empty, or left behind by an unfinished run with the same options.
        options: What the user asked for, as JSON values; written into the report, and compared with an earlier run's.
        treatment: What is done to every image.
        num_proc: Processes that work side by side, at least 1.
        drop_duplicates: Keep one copy of images that are equal byte for byte, rather than only report them.
        rows_per_part: Rows a file has at most, at least 1.

    Returns:
        The report, as it is in `report.json`; if an earlier run made the same to its end, that of this run.

    Raises:
        LayoutError: If not a single image could be used.
        ValueError: If `output_dir` holds something else.
        OSError: If something cannot be written, or a process died.
    """
    parts = list(_parts(collection, rows_per_part))
    folder = output_dir / ".preparing"
    plan = {"options": dict(options), "collection": _digest_of_rows(parts)}
    finished = begin_or_resume(output_dir, folder, plan)
    if finished is not None:
        return finished
    features = {"data": make_corpus_features(collection.columns), "pairs": Features(PAIR_COLUMNS)}
    writer = CollectionWriter(folder, root, features, treatment)
    writer.write_missing(parts, num_proc, "row", "Preparing")
    accounts = {part: writer.read_account(part) for part in parts}
    _check_not_all_broken(root, accounts, folder)
    copies = find_copies(_found(accounts))
    dropped = {(image.part, image.row) for group in copies for image in group[1:]} if drop_duplicates else set()
    rows = writer.move_parts(accounts, output_dir, dropped)
    report = plan | {
        "digest": _digest_of_corpus(plan, rows, accounts),
        "rows": rows,
        "dropped_copies": len(dropped),
        "broken": _by_name(collection.broken, *(account.broken for account in accounts.values())),
        "notes": _by_note(account.notes for account in accounts.values()),
        "copies": describe_copies(copies),
        "subjects": _describe_subjects(collection),
    }
    write_json(output_dir / "report.json", report)
    shutil.rmtree(folder)
    return report


def _parts(collection: Collection, rows_per_part: int) -> Iterator[Part]:
    for table, splits in {"data": collection.splits, "pairs": collection.pairs}.items():
        for split, rows in splits.items():
            for number, start in enumerate(range(0, len(rows), rows_per_part)):
                yield Part(table, split, number, rows[start : start + rows_per_part])


def _digest_of_rows(parts: Sequence[Part]) -> str:
    """Of names, boxes and labels; the images themselves are not opened for it."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.stem.encode())
        for row in part.rows:
            is_pair = not isinstance(row, Row)
            labels = (row.same, row.fold) if is_pair else row.labels
            photos = (row.image_a, row.image_b) if is_pair else (row.image,)
            names = [(photo.name, photo.box) for photo in photos]
            digest.update(json.dumps([names, labels], default=str).encode())
    return digest.hexdigest()


def _digest_of_corpus(plan: dict, rows: dict, accounts: Mapping[Part, Account]) -> str:
    """Another one for every corpus that differs in anything: images, labels, options."""
    digest = hashlib.sha256(json.dumps([plan, rows]).encode())
    for account in accounts.values():
        digest.update(json.dumps(account.kept).encode())
    return digest.hexdigest()


def _check_not_all_broken(root: Path, accounts: Mapping[Part, Account], folder: Path):
    if any(account.kept for part, account in accounts.items() if part.table == "data"):
        return
    shutil.rmtree(folder)  # What is missing may be there the next time.
    broken = [entry for account in accounts.values() for entry in account.broken]
    if not broken:
        raise LayoutError(root, "there is not a single row in it.")
    name, reason = broken[0]
    raise LayoutError(root, f"not one of {len(broken)} images could be used. The first, {name}: {reason}")


def _found(accounts: Mapping[Part, Account]) -> Iterator[Found]:
    for part, account in accounts.items():
        if part.table == "data":
            for row, (name, digest) in enumerate(account.kept):
                yield Found(part.split, part.stem, row, name, digest)


def _by_name(*entries: Sequence[tuple[str, str]]) -> list[dict]:
    """Each broken row once: a pair's image may be a row of its own too."""
    reasons = {make_printable(name): make_printable(reason) for group in entries for name, reason in group}
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
    shared = sorted(subject for subject, names in splits.items() if len(names) > 1)
    named = [make_printable(subject) for subject in shared[:NAMED_IN_REPORT]]
    return {"count": len(splits), "in_several_splits": len(shared), "named": named}


def read_collection(arguments: PreparationArguments) -> Collection:
    """Read the collection that the options name, split, paired and shuffled as they say."""
    options = {"folder_is": arguments.folder_is} if arguments.layout == "folders" else {}
    collection = LAYOUTS[arguments.layout](arguments.input_dir, **options)
    if arguments.split != "official":
        collection = split_again(collection, arguments.split, arguments.seed)
    if arguments.pairs:
        collection = add_pairs(collection, arguments.pairs, arguments.folds, arguments.seed)
    return shuffle(collection, arguments.seed) if arguments.shuffle else collection


def prepare(arguments: PreparationArguments) -> dict:
    """Make a corpus as the options say.

    Returns:
        The report.

    Raises:
        ValueError, OSError: As of `prepare_corpus`, or if a label cannot be read.
    """
    treatment = Treatment(arguments.crop, arguments.size, arguments.max_pixels)
    logger.info("Reading the labels of %s", arguments.input_dir)
    return prepare_corpus(
        read_collection(arguments),
        arguments.input_dir,
        arguments.output_dir,
        arguments.recorded(),
        treatment,
        arguments.num_proc or available_cpus(),
        arguments.drop_duplicates,
        arguments.rows_per_file,
    )


def describe_report(output_dir: Path, report: Mapping) -> str:
    """Say in a few lines what was made."""
    lines = [f"{output_dir}"]
    for table, splits in report["rows"].items():
        lines.append(f"  {table:8}" + ", ".join(f"{split} {count:,}" for split, count in splits.items()))
    copies, subjects = report["copies"], report["subjects"]
    lines.append(f"  broken   {len(report['broken'])}")
    lines += [f"           {entry['name']}: {entry['reason']}" for entry in report["broken"][:3]]
    lines += [f"  note     {note}: {len(names)}" for note, names in report["notes"].items()]
    lines.append(
        f"  copies   {copies['images']}, {report['dropped_copies']} dropped; "
        f"{copies['groups_over_several_splits']} images stand in several splits"
    )
    if subjects["count"]:
        lines.append(f"  subjects {subjects['count']:,}, {subjects['in_several_splits']} of them in several splits")
    return "\n".join([*lines, f"  all of it is in {output_dir / 'report.json'}"])
