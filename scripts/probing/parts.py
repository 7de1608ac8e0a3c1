"""Corpora to what a probe trains on, chooses on and is tested on, without leaks."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset

from modeling_pcl.data.corpora import corpus_revision, corpus_splits, load_corpus, select_subjects
from modeling_pcl.data.splits import split_by_subject, split_stratified, strata_of, subject_folds

from .arguments import ProbeArguments
from .labels import Labels
from .part import NO_LABELS, ROW, Part

logger = logging.getLogger(__name__)

TEST_SHARE, VALIDATION_SHARE, CUT_SEED = 0.2, 0.1, 0
UNIT_FOLDS = 3


@dataclass(frozen=True)
class Round:
    """One training and one test: all there is, or one fold.

    Args:
        train, test: Without a row in common.
        validation: None where the protocol chooses on the test set.
    """

    train: Part
    test: Part
    validation: Part | None


def open_part(
    name: str,
    split: str,
    read: Callable[[Dataset], Labels] | None = None,
    subjects: str | None = None,
    subject_column: str | None = None,
) -> Part:
    """The rows of a corpus that have labels.

    Args:
        name: Of the corpus.
        split: The one to open; a corpus with one split only gives that.
        read: From the corpus to its labels; None keeps every row, without.
        subjects: Those to keep, as for `select_subjects`.
        subject_column: Where the people stand, if not in `subject`.

    Raises:
        ValueError: If the corpus has several splits and not this one, no such column of people, or no label.
    """
    splits = corpus_splits(name)
    if split not in splits and len(splits) > 1:
        raise ValueError(f"The corpus `{name}` has the splits {splits}, none of them `{split}`.")
    chosen = split if split in splits else splits[0]
    corpus, source = load_corpus(name, chosen), f"{name}, split {chosen}"
    revision = corpus_revision(corpus)
    corpus = corpus.add_column(ROW, np.arange(len(corpus)))
    if subject_column is not None:
        corpus = _with_subjects(corpus, subject_column, name)
    if subjects is not None:
        corpus, source = select_subjects(corpus, subjects), f"{source}, subjects {subjects}"
    if read is None:
        return Part(corpus, np.arange(len(corpus)), NO_LABELS, source, revision)
    labels = read(corpus.remove_columns(ROW))
    if not labels.known.all():
        corpus, dropped = corpus.select(np.flatnonzero(labels.known)), int((~labels.known).sum())
        labels, source = read(corpus.remove_columns(ROW)), f"{source}, without {dropped} rows that cannot be used"
    return Part(corpus, np.arange(len(corpus)), labels, source, revision)


def _with_subjects(corpus: Dataset, column: str, name: str) -> Dataset:
    """The corpus with its people as `subject`; rows without one are left out."""
    if column not in corpus.column_names:
        raise ValueError(
            f"`{name}` has no column `{column}`, only {corpus.remove_columns(ROW).column_names}; name the one of the "
            "people with `--subject_column`."
        )
    if column != "subject":
        corpus = corpus.select_columns([name for name in corpus.column_names if name != "subject"])
        corpus = corpus.rename_column(column, "subject")
    known = [row for row, subject in enumerate(corpus.select_columns("subject")[:]["subject"]) if subject is not None]
    if len(known) < len(corpus):
        logger.warning("%d rows of %s name no person and are left out", len(corpus) - len(known), name)
        corpus = corpus.select(known)
    return corpus


def open_rounds(arguments: ProbeArguments, read: Callable[[Dataset], Labels]) -> list[Round]:
    """Open what `--train`, `--test` and `--validation` name, and cut off what they do not.

    Raises:
        ValueError: If there is nothing to train on, the classes of two parts differ, or train and test share images.
    """
    if arguments.train is None:
        raise ValueError(f"`--task {arguments.task}` needs `--train`, a corpus to train the probe on.")
    train = open_part(arguments.train, "train", read, arguments.train_subjects)
    has_test = arguments.test is not None or "test" in corpus_splits(arguments.train)
    folds = arguments.folds or (UNIT_FOLDS if arguments.task == "action_units" and not has_test else None)
    if folds is not None:
        pairs = _fold_parts(train, folds)
    elif has_test:
        pairs = [(train, open_part(arguments.test or arguments.train, "test", read, arguments.test_subjects))]
    else:
        pairs = [cut(train, TEST_SHARE, own_features=True)]
    return [_round(arguments, *pair, read) for pair in pairs]


def _round(arguments: ProbeArguments, train: Part, test: Part, read: Callable[[Dataset], Labels]) -> Round:
    validation = None
    if arguments.protocol == "strict":
        train = train.without_images_of(test)
        if arguments.validation is not None:
            validation = open_part(arguments.validation, "validation", read).without_images_of(test)
        elif "validation" in corpus_splits(arguments.train) and arguments.folds is None:
            validation = open_part(arguments.train, "validation", read).without_images_of(test)
        else:
            train, validation = cut(train, VALIDATION_SHARE)
        train = train.without_images_of(validation)
    if arguments.task == "expression" and len(train.labels.names) < 2:
        raise ValueError(f"There must be two classes at least, {train.source} has only {train.labels.names}.")
    for part in (test, validation):
        if part is not None:
            check_same_labels(train, part)
    return Round(train, test, validation)


def check_same_labels(train: Part, other: Part):
    """Refuse parts whose numbers mean other classes."""
    if other.labels.names != train.labels.names:
        raise ValueError(
            f"The labels of {train.source} and {other.source} must be the same, got {list(train.labels.names)} and "
            f"{list(other.labels.names)}; `--label_names` names them."
        )


def cut(part: Part, share: float, own_features: bool = False) -> tuple[Part, Part]:
    """Cut off a share: whole subjects where they are known, else stratified by label.

    With `own_features` both get a corpus, and so features, of their own.
    """
    shares, subjects = {"kept": 1 - share, "cut": share}, part.subjects()
    if subjects is not None:
        rows, way = split_by_subject(subjects, shares, CUT_SEED), "whole subjects"
    else:
        strata = [part.labels.strata[row] for row in part.rows]
        if part.labels.targets.is_floating_point() and not any(isinstance(value, str) for value in strata):
            strata = strata_of(strata)
        rows, way = _stratified(part, strata, shares), "stratified by label"
    sources = {"kept": f"{1 - share:g} of {part.source}", "cut": f"{share:g} of {part.source}"}
    kept, cut = (part.keeping(part.rows[rows[name]], f"{sources[name]} ({way}, seed {CUT_SEED})") for name in shares)
    return (_own(kept), _own(cut)) if own_features else (kept, cut)


def _stratified(part: Part, strata: list, shares: dict[str, float]) -> dict[str, np.ndarray]:
    try:
        return split_stratified(strata, shares, CUT_SEED)
    except ValueError as error:
        raise ValueError(
            f"{len(strata)} images of {part.source} are too few to cut {shares['cut']:g} off; give `--test` and "
            "`--validation`."
        ) from error


def _own(part: Part) -> Part:
    labels = part.labels
    chosen = Labels(part.targets(), labels.known[part.rows], labels.names, [labels.strata[row] for row in part.rows])
    return replace(part, corpus=part.corpus.select(part.rows), rows=np.arange(len(part.rows)), labels=chosen)


def _fold_parts(part: Part, folds: int) -> list[tuple[Part, Part]]:
    subjects = part.subjects()
    if subjects is None:
        raise ValueError("Folds that share no person need a column `subject` in every row of the training corpus.")
    fold = subject_folds(subjects, folds, CUT_SEED)
    return [
        (
            part.keeping(part.rows[fold != number], f"{part.source}, all folds of {folds} but {number}"),
            part.keeping(part.rows[fold == number], f"{part.source}, fold {number} of {folds}, by subject"),
        )
        for number in range(1, folds + 1)
    ]


def shared_between(train: Part, test: Part) -> dict[str, int]:
    """How many training images are byte for byte test images too, and how many people are in both."""
    shared = {"images": len(train.rows_in(test)), "subjects": 0}
    people = train.subjects(), test.subjects()
    if None not in people:
        shared["subjects"] = len(set(people[0]) & set(people[1]))
    for name, count in shared.items():
        if count:
            logger.warning("%d %s of %s are in %s, too", count, name, train.source, test.source)
    return shared
