"""Convert a raw collection to a corpus on disk: checked images in parquet files, and a report.

    OUTPUT_DIR/
        data/train-00000-of-00003.parquet ...      the corpus, by split
        pairs/test-00000-of-00001.parquet ...      verification pairs, if there are any
        report.json                                counts, broken rows, copies, subjects in several splits
        .preparing/                                parts of an unfinished run; deleted at its end

The same input and options give the same bytes. An interrupted run continues with the parts that it has written.
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
from .copies import StoredImage, describe_copies, find_copies
from .layouts import LAYOUTS, Collection, LayoutError
from .layouts.base import Row
from .parts import Account, CollectionWriter, Part
from .raw_images import Treatment
from .regrouping import add_pairs, shuffle_rows, split_again

logger = logging.getLogger(__name__)

MAX_SUBJECTS_IN_REPORT = 100  # Of subjects in several splits. Broken rows and copies are all listed.


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
        collection: Collection that a layout has read.
        root: Folder of the collection.
        output_dir: Folder that does not exist, is empty, or was left by a run with the same options.
        options: Options of the user as JSON values. They are written to the report, and compared with those of an
            earlier run in the same folder.
        treatment: How images are cropped and resized.
        num_proc: Number of worker processes, at least 1.
        drop_duplicates: Whether to keep only one copy of identical images, instead of only reporting them.
        rows_per_part: Maximum number of rows in a file, at least 1.

    Returns:
        The report, as in `report.json`. If an earlier run has completed the same corpus, its report.

    Raises:
        LayoutError: If no image can be used.
        ValueError: If `output_dir` holds another corpus or other files.
        OSError: If a file cannot be written, or a process died.
    """
    parts = list(_make_parts(collection, rows_per_part))
    folder = output_dir / ".preparing"
    plan = {"options": dict(options), "collection": _digest_rows(parts)}
    earlier_report = begin_or_resume(output_dir, folder, plan)
    if earlier_report is not None:
        return earlier_report
    features = {"data": make_corpus_features(collection.columns), "pairs": Features(PAIR_COLUMNS)}
    writer = CollectionWriter(folder, root, features, treatment)
    writer.write_missing(parts, num_proc, "row", "Preparing")
    accounts = {part: writer.read_account(part) for part in parts}
    _check_not_all_broken(root, accounts, folder)
    copies = find_copies(_list_images(accounts))
    dropped = {(image.part, image.row) for group in copies for image in group[1:]} if drop_duplicates else set()
    rows = writer.move_parts(accounts, output_dir, dropped)
    report = plan | {
        "digest": _digest_corpus(plan, rows, accounts),
        "rows": rows,
        "dropped_copies": len(dropped),
        "broken": _list_broken(collection.broken, *(account.broken for account in accounts.values())),
        "notes": _group_notes(account.notes for account in accounts.values()),
        "copies": describe_copies(copies),
        "subjects": _describe_subjects(collection),
    }
    write_json(output_dir / "report.json", report)
    shutil.rmtree(folder)
    return report


def _make_parts(collection: Collection, rows_per_part: int) -> Iterator[Part]:
    """Divide the rows and pairs of every split into parts."""
    for table, splits in {"data": collection.splits, "pairs": collection.pairs}.items():
        for split, rows in splits.items():
            for number, start in enumerate(range(0, len(rows), rows_per_part)):
                yield Part(table, split, number, rows[start : start + rows_per_part])


def _digest_rows(parts: Sequence[Part]) -> str:
    """Compute a digest of names, boxes and labels. The images are not opened."""
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


def _digest_corpus(plan: dict, rows: dict, accounts: Mapping[Part, Account]) -> str:
    """Compute a digest that differs for corpora with different images, labels or options."""
    digest = hashlib.sha256(json.dumps([plan, rows]).encode())
    for account in accounts.values():
        digest.update(json.dumps(account.kept).encode())
    return digest.hexdigest()


def _check_not_all_broken(root: Path, accounts: Mapping[Part, Account], folder: Path):
    """Raise a `LayoutError` if no image could be used."""
    if any(account.kept for part, account in accounts.items() if part.table == "data"):
        return
    shutil.rmtree(folder)  # Otherwise the next run would keep these empty parts, even if the images exist by then.
    broken = [entry for account in accounts.values() for entry in account.broken]
    if not broken:
        raise LayoutError(root, "there is not a single row in it.")
    name, reason = broken[0]
    raise LayoutError(root, f"not one of {len(broken)} images could be used. The first, {name}: {reason}")


def _list_images(accounts: Mapping[Part, Account]) -> Iterator[StoredImage]:
    """List the images of all parts that were written; pairs are not listed."""
    for part, account in accounts.items():
        if part.table == "data":
            for row, (name, digest) in enumerate(account.kept):
                yield StoredImage(part.split, part.stem, row, name, digest)


def _list_broken(*entries: Sequence[tuple[str, str]]) -> list[dict]:
    """List each broken image once. An image of a pair may also be a row of the corpus."""
    reasons = {make_printable(name): make_printable(reason) for group in entries for name, reason in group}
    return [{"name": name, "reason": reason} for name, reason in reasons.items()]


def _group_notes(notes: Iterator[Sequence[tuple[str, str]]]) -> dict[str, list[str]]:
    """List the names of the images with each note. Every name occurs once per note."""
    names = defaultdict(dict)
    for name, note in (entry for group in notes for entry in group):
        names[note][name] = None
    return {note: list(images) for note, images in sorted(names.items())}


def _describe_subjects(collection: Collection) -> dict:
    """Describe subjects for the report: their number, and those that are in more than one split."""
    splits_of_subject = defaultdict(set)
    for split, rows in collection.splits.items():
        for row in rows:
            if row.labels.get("subject") is not None:
                splits_of_subject[row.labels["subject"]].add(split)
    shared = sorted(subject for subject, splits in splits_of_subject.items() if len(splits) > 1)
    named = [make_printable(subject) for subject in shared[:MAX_SUBJECTS_IN_REPORT]]
    return {"count": len(splits_of_subject), "in_several_splits": len(shared), "named": named}


def read_collection(arguments: PreparationArguments) -> Collection:
    """Read a collection, and split it, make pairs and shuffle it as the options require."""
    options = {"folder_is": arguments.folder_is} if arguments.layout == "folders" else {}
    collection = LAYOUTS[arguments.layout](arguments.input_dir, **options)
    if arguments.split != "official":
        collection = split_again(collection, arguments.split, arguments.seed)
    if arguments.pairs:
        collection = add_pairs(collection, arguments.pairs, arguments.folds, arguments.seed)
    return shuffle_rows(collection, arguments.seed) if arguments.shuffle else collection


def prepare(arguments: PreparationArguments) -> dict:
    """Read a collection and write it as a corpus.

    Returns:
        The report, as in `report.json`.

    Raises:
        ValueError, OSError: As in `prepare_corpus`, or if labels cannot be read.
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
    """Describe a report in a few lines."""
    lines = [f"{output_dir}"]
    for table, splits in report["rows"].items():
        lines.append(f"  {table:8}" + ", ".join(f"{split} {count:,}" for split, count in splits.items()))
    copies, subjects = report["copies"], report["subjects"]
    lines.append(f"  broken   {len(report['broken'])}")
    lines += [f"           {entry['name']}: {entry['reason']}" for entry in report["broken"][:3]]
    lines += [f"  note     {note}: {len(names)}" for note, names in report["notes"].items()]
    lines.append(
        f"  copies   {copies['images']}, {report['dropped_copies']} dropped; "
        f"{copies['groups_over_several_splits']} images are in several splits"
    )
    if subjects["count"]:
        lines.append(f"  subjects {subjects['count']:,}, {subjects['in_several_splits']} of them in several splits")
    return "\n".join([*lines, f"  details are in {output_dir / 'report.json'}"])
