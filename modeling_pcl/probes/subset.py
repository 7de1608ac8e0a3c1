"""Corpora to what a probe trains on, chooses on and is tested on, without leaks."""

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from datasets import Dataset

from ..data.corpora import corpus_revision, corpus_splits, load_corpus
from ..data.images import image_bytes
from ..data.splits import cut_off, subject_folds
from ..data.subjects import select_subjects
from ..progress import progress
from .arguments import HeadArguments
from .encoder import Encoder, Precision
from .feature_cache import ShardedFeatures
from .labels import Labels
from .linear import Examples

logger = logging.getLogger(__name__)

ROW = "row in its split"  # A column of what is opened, so that predictions can name their image.
NO_LABELS = Labels(torch.empty(0), np.empty(0), (), [])
TEST_SHARE, VALIDATION_SHARE, CUT_SEED = 0.2, 0.1, 0
UNIT_FOLDS = 3  # As the field's tables of action units have it.


def spread_rows(rows: int, count: int) -> list[int]:
    """So many of a number of rows at equal distances, all if there are fewer.

    The last is the last row, so that of subjects with ten images each not all show their first.
    """
    return torch.linspace(0, rows - 1, min(count, rows)).long().tolist()


@lru_cache(maxsize=4)  # Training and test set are compared more than once, in each fold anew.
def compute_image_digests(corpus: Dataset) -> list[bytes | None]:
    """A SHA-256 of every image's bytes; None where they cannot be read, so that it is left out with the features."""
    digests = []
    rows = corpus.select_columns("image").with_format(None)
    for row in progress(rows, desc="Comparing images", unit="image", leave=False):
        try:
            digests.append(hashlib.sha256(image_bytes(row["image"])).digest())
        except (OSError, ValueError):
            digests.append(None)
    return digests


@dataclass(frozen=True)
class Subset:
    """Some rows of a corpus, with their labels.

    Args:
        corpus: All rows of which features are extracted together.
        rows: Those of the subset, `(rows,)` int64.
        labels: Of the whole corpus.
        source: Where it is from, in words.
        revision: Of the split that was opened.
        features: Of the whole corpus, by name; None before they are extracted.
    """

    corpus: Dataset
    rows: np.ndarray
    labels: Labels
    source: str
    revision: str | None = None
    features: Mapping[str, ShardedFeatures] | None = None

    def keep_rows(self, rows: np.ndarray, source: str | None = None) -> "Subset":
        return replace(self, rows=rows, source=source or self.source)

    def drop_broken(self, broken: Collection[int]) -> "Subset":
        return self.keep_rows(self.rows[~np.isin(self.rows, list(broken))])

    def drop_images_of(self, other: "Subset") -> "Subset":
        """Without the images that are, byte for byte, in the other subset.

        Raises:
            ValueError: If no image is left.
        """
        rows = self.find_shared_rows(other)
        if len(rows) and len(rows) == len(self.rows):
            raise ValueError(
                f"Every image of {self.source} is also one of {other.source}; give another `--test` or `--validation`."
            )
        kept = np.setdiff1d(self.rows, rows)
        return self.keep_rows(kept, f"{self.source}, without {len(rows)} also in {other.source}") if len(rows) else self

    def find_shared_rows(self, other: "Subset") -> np.ndarray:
        """The rows whose image is byte for byte one of the other's."""
        ours, theirs = (compute_image_digests(subset.corpus) for subset in (self, other))
        seen = {theirs[row] for row in other.rows} - {None}
        return np.array([row for row in self.rows if ours[row] in seen], dtype=np.int64)

    def targets(self) -> torch.Tensor:
        return self.labels.targets[torch.from_numpy(self.rows)]

    def feature(self, name: str) -> torch.Tensor:
        """A feature of the subset's images, `(images, dim)`."""
        return self.features[name][torch.from_numpy(self.rows)]

    def features_and_targets(self, feature: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A feature of the subset's images, with their targets."""
        return self.feature(feature), self.targets()

    def examples(self, feature: str) -> Examples:
        """A feature, which is read when it is needed, with the targets."""
        return Examples(self.features[feature], self.labels.targets, torch.from_numpy(self.rows))

    def column(self, name: str) -> np.ndarray:
        """Values of a column, `(rows,)`."""
        return np.array(self.corpus.select_columns(name)[:][name], dtype=object)[self.rows]

    def subjects(self) -> list | None:
        """Who each row shows, if that is known of all."""
        subjects = self.column("subject").tolist() if "subject" in self.corpus.column_names else [None]
        return None if None in subjects else subjects

    def row_numbers(self) -> list[int]:
        """Where each row stands in the split that was opened."""
        return self.column(ROW).tolist()

    def describe(self) -> dict:
        return {"source": self.source, "images": len(self.rows), "revision": self.revision}


def encode_subset(encoder: Encoder, part: Subset, image_size: int, precision: Precision) -> Subset:
    """What of a subset decodes, with its features, extracted or from the cache."""
    table = encoder.extract(part.corpus, image_size, precision, part.source)
    return replace(part.drop_broken(table.broken), features=table.features)


@dataclass(frozen=True)
class Round:
    """One training and one test: all there is, or one fold.

    Args:
        train, test: Without a row in common.
        validation: None where the protocol chooses on the test set.
    """

    train: Subset
    test: Subset
    validation: Subset | None

    def describe(self) -> dict:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        facts = {name: part and part.describe() for name, part in parts.items()}
        return facts | {"shared_by_train_and_test": count_shared(self.train, self.test)}


def open_subset(
    name: str,
    split: str,
    read: Callable[[Dataset], Labels] | None = None,
    subjects: str | None = None,
    subject_column: str | None = None,
) -> Subset:
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
        corpus = _use_subject_column(corpus, subject_column, name)
    if subjects is not None:
        corpus, source = select_subjects(corpus, subjects), f"{source}, subjects {subjects}"
    labels = NO_LABELS if read is None else read(corpus.remove_columns(ROW))
    if not labels.usable.all():
        rows = np.flatnonzero(labels.usable)
        source = f"{source}, without {len(corpus) - len(rows)} rows that cannot be used"
        corpus, labels = corpus.select(rows), labels.select_rows(rows)
    return Subset(corpus, np.arange(len(corpus)), labels, source, revision)


def _use_subject_column(corpus: Dataset, column: str, name: str) -> Dataset:
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


def open_rounds(arguments: HeadArguments, read: Callable[[Dataset], Labels]) -> list[Round]:
    """Open what `--train`, `--test` and `--validation` name, and cut off what they do not.

    Raises:
        ValueError: If there is nothing to train on, the classes of two subsets differ, or train and test share images.
    """
    splits = corpus_splits(arguments.train)
    train = open_subset(arguments.train, "train", read, arguments.train_subjects)
    has_test = arguments.test is not None or "test" in splits
    folds = arguments.folds or (UNIT_FOLDS if arguments.task == "action_units" and not has_test else None)
    if folds is not None:
        pairs = _split_into_folds(train, folds)
    elif has_test:
        pairs = [(train, open_subset(arguments.test or arguments.train, "test", read, arguments.test_subjects))]
    else:
        pairs = [split_off(train, TEST_SHARE, separate=True)]
    validation = arguments.validation
    if validation is None and "validation" in splits and arguments.folds is None:
        validation = arguments.train
    return [_open_round(arguments, *pair, validation, read) for pair in pairs]


def _open_round(
    arguments: HeadArguments, train: Subset, test: Subset, validation_name: str | None, read: Callable
) -> Round:
    validation = None
    if arguments.protocol == "strict":
        # Collections hold copies across their splits: of FER2013's training images 141 are test images byte for byte.
        train = train.drop_images_of(test)
        if validation_name is not None:
            validation = open_subset(validation_name, "validation", read).drop_images_of(test)
        else:
            train, validation = split_off(train, VALIDATION_SHARE)
        train = train.drop_images_of(validation)
    if arguments.task == "expression" and len(train.labels.names) < 2:
        raise ValueError(f"There must be two classes at least, {train.source} has only {train.labels.names}.")
    for subset in (test, validation):
        if subset is not None:
            check_same_labels(train, subset)
    return Round(train, test, validation)


def check_same_labels(train: Subset, other: Subset):
    """Refuse subsets whose numbers mean other classes."""
    if other.labels.names != train.labels.names:
        raise ValueError(
            f"The labels of {train.source} and {other.source} must be the same, got {list(train.labels.names)} and "
            f"{list(other.labels.names)}; `--label_names` names them."
        )


def split_off(subset: Subset, share: float, separate: bool = False) -> tuple[Subset, Subset]:
    """Cut off a share: whole subjects where they are known, else stratified by label.

    With `is_apart` both get a corpus of their own, and so features.
    """
    subjects = subset.subjects()
    strata = [subset.labels.strata[row] for row in subset.rows] if subjects is None else []
    way = "stratified by label" if subjects is None else "whole subjects"
    try:
        kept_rows, rest_rows = cut_off(subjects, strata, share, CUT_SEED)
    except ValueError as error:
        raise ValueError(
            f"{len(subset.rows)} images of {subset.source} are too few to cut {share:g} off; give `--test` and "
            "`--validation`."
        ) from error
    kept, rest = (
        subset.keep_rows(subset.rows[rows], f"{part:g} of {subset.source} ({way}, seed {CUT_SEED})")
        for rows, part in ((kept_rows, 1 - share), (rest_rows, share))
    )
    return (_separate_corpus(kept), _separate_corpus(rest)) if separate else (kept, rest)


def _separate_corpus(subset: Subset) -> Subset:
    # Test features are float32 and training features bfloat16: of one corpus both would be extracted of all rows.
    corpus, labels = subset.corpus.select(subset.rows), subset.labels.select_rows(subset.rows)
    return replace(subset, corpus=corpus, rows=np.arange(len(corpus)), labels=labels)


def _split_into_folds(subset: Subset, folds: int) -> list[tuple[Subset, Subset]]:
    subjects = subset.subjects()
    if subjects is None:
        raise ValueError("Folds that share no person need a column `subject` in every row of the training corpus.")
    fold = subject_folds(subjects, folds, CUT_SEED)
    return [
        (
            subset.keep_rows(subset.rows[fold != number], f"{subset.source}, all folds of {folds} but {number}"),
            subset.keep_rows(subset.rows[fold == number], f"{subset.source}, fold {number} of {folds}, by subject"),
        )
        for number in range(1, folds + 1)
    ]


def count_shared(train: Subset, test: Subset) -> dict[str, int]:
    """How many training images are byte for byte test images too, and how many people are in both."""
    shared = {"images": len(train.find_shared_rows(test)), "subjects": 0}
    people = train.subjects(), test.subjects()
    if None not in people:
        shared["subjects"] = len(set(people[0]) & set(people[1]))
    for name, count in shared.items():
        if count:
            logger.warning("%d %s of %s are in %s, too", count, name, train.source, test.source)
    return shared
