"""Splitting corpora into training, validation and test sets without leaks."""

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

ROW = "row in its split"  # Added to every opened split, so that predictions can name their row in it.
NO_LABELS = Labels(torch.empty(0), np.empty(0), (), [])
TEST_SHARE, VALIDATION_SHARE, CUT_SEED = 0.2, 0.1, 0
UNIT_FOLDS = 3  # The number of folds in published tables of action units.


def spread_rows(rows: int, count: int) -> list[int]:
    """Choose `count` of `rows` row numbers at equal distances; all of them if there are fewer.

    If there is more than one, the last row is among them. With ten images per subject, this avoids choosing the first
    image of each.
    """
    return torch.linspace(0, rows - 1, min(count, rows)).long().tolist()


@lru_cache(maxsize=4)  # The sets are compared several times, and again in every fold.
def compute_image_digests(corpus: Dataset) -> list[bytes | None]:
    """Compute the SHA-256 of the bytes of every image; None if they cannot be read."""
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
        corpus: Corpus whose features are extracted together.
        rows: Rows of the subset, `(rows,)` int64.
        labels: Labels of the whole corpus.
        source: Description of the origin, for results.json and messages.
        revision: Revision of the split that was opened.
        features: Features of the whole corpus, by name; None before they are extracted.
    """

    corpus: Dataset
    rows: np.ndarray
    labels: Labels
    source: str
    revision: str | None = None
    features: Mapping[str, ShardedFeatures] | None = None

    def keep_rows(self, rows: np.ndarray, source: str | None = None) -> "Subset":
        """Return a subset of some rows, with another source if one is given."""
        return replace(self, rows=rows, source=source or self.source)

    def drop_broken(self, broken: Collection[int]) -> "Subset":
        """Return the subset without the rows whose images do not decode."""
        return self.keep_rows(self.rows[~np.isin(self.rows, list(broken))])

    def drop_images_of(self, other: "Subset") -> "Subset":
        """Return the subset without images that are also in another subset, byte for byte.

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
        """Find the rows whose images are also in another subset, byte for byte."""
        own_digests, other_digests = (compute_image_digests(subset.corpus) for subset in (self, other))
        digests_in_other = {other_digests[row] for row in other.rows} - {None}
        return np.array([row for row in self.rows if own_digests[row] in digests_in_other], dtype=np.int64)

    def targets(self) -> torch.Tensor:
        """Return the targets of the subset, `(rows, ...)`."""
        return self.labels.targets[torch.from_numpy(self.rows)]

    def feature(self, name: str) -> torch.Tensor:
        """Read a feature of the subset, `(rows, dim)`."""
        return self.features[name][torch.from_numpy(self.rows)]

    def features_and_targets(self, feature: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Read a feature of the subset, `(rows, dim)`, with the targets, `(rows, ...)`."""
        return self.feature(feature), self.targets()

    def examples(self, feature: str) -> Examples:
        """Return a feature, which is read from disk in batches, with the targets."""
        return Examples(self.features[feature], self.labels.targets, torch.from_numpy(self.rows))

    def column(self, name: str) -> np.ndarray:
        """Read the values of a column, `(rows,)`."""
        return np.array(self.corpus.select_columns(name)[:][name], dtype=object)[self.rows]

    def subjects(self) -> list | None:
        """Read the person of each row; None if any of them is unknown."""
        subjects = self.column("subject").tolist() if "subject" in self.corpus.column_names else [None]
        return None if None in subjects else subjects

    def has_one_person_per_class(self) -> bool:
        """Whether the classes are the people, who must then be in all sets."""
        subjects, classes = self.subjects(), self.targets().tolist() if self.labels.strata else []
        is_of_classes = subjects is not None and self.labels.targets.dtype == torch.int64
        return is_of_classes and len(set(subjects)) == len(set(classes)) == len(set(zip(subjects, classes)))

    def row_numbers(self) -> list[int]:
        """Read the number of each row in the split that was opened."""
        return self.column(ROW).tolist()

    def describe(self) -> dict:
        """Return the facts about the subset for results.json."""
        return {"source": self.source, "images": len(self.rows), "revision": self.revision}


def encode_subset(encoder: Encoder, part: Subset, image_size: int, precision: Precision) -> Subset:
    """Add features to a subset, extracted or from the cache, and drop rows whose images do not decode."""
    table = encoder.extract(part.corpus, image_size, precision, part.source)
    return replace(part.drop_broken(table.broken), features=table.features)


@dataclass(frozen=True)
class Round:
    """One training and one test: of the only split, or of one fold.

    Args:
        train: Training set.
        test: Test set, without a row in common with `train`.
        validation: Validation set; None if the protocol chooses on the test set.
    """

    train: Subset
    test: Subset
    validation: Subset | None

    def describe(self) -> dict:
        """Return the facts about the sets for results.json."""
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
    """Open the rows of a corpus that have labels.

    Args:
        name: Name of the corpus, as `load_corpus` takes it.
        split: Split to open. If the corpus has a single split, that one is opened.
        read: Maps the corpus to its labels; None keeps every row, without labels.
        subjects: Subjects to keep, as for `select_subjects`; None keeps all.
        subject_column: Column of the subjects, which is renamed to `subject`. Rows without a subject are left out. None
            leaves the columns unchanged.

    Raises:
        ValueError: If the corpus has several splits but not this one, lacks the column of subjects, or has no labels.
    """
    splits = corpus_splits(name)
    if split not in splits and len(splits) > 1:
        raise ValueError(f"The corpus `{name}` has the splits {splits}, none of them `{split}`.")
    opened_split = split if split in splits else splits[0]
    corpus, source = load_corpus(name, opened_split), f"{name}, split {opened_split}"
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
    """Rename the column of people to `subject`, and drop rows without a person."""
    if column not in corpus.column_names:
        raise ValueError(
            f"`{name}` has no column `{column}`, only {corpus.remove_columns(ROW).column_names}; name the one of the "
            "people with `--subject_column`."
        )
    if column != "subject":
        corpus = corpus.select_columns([name for name in corpus.column_names if name != "subject"])
        corpus = corpus.rename_column(column, "subject")
    rows = [row for row, subject in enumerate(corpus.select_columns("subject")[:]["subject"]) if subject is not None]
    if len(rows) < len(corpus):
        logger.warning("%d rows of %s have no person and are left out", len(corpus) - len(rows), name)
        corpus = corpus.select(rows)
    return corpus


def open_rounds(arguments: HeadArguments, read: Callable[[Dataset], Labels]) -> list[Round]:
    """Open the sets that `--train`, `--test` and `--validation` name, and split off those that are not given.

    Raises:
        ValueError: If there is nothing to train on, the classes of two sets differ, or every training image is also a
            test image.
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
    """Open or split off the validation set, and remove images that are in two sets."""
    validation = None
    if arguments.protocol == "strict":
        # Collections have copies across their splits: 141 training images of FER2013 equal test images, byte for byte.
        train = train.drop_images_of(test)
        if validation_name is not None:
            validation = open_subset(validation_name, "validation", read).drop_images_of(test)
        else:
            train, validation = split_off(train, VALIDATION_SHARE)
        train = train.drop_images_of(validation)
    if arguments.task == "expression" and len(train.labels.names) < 2:
        raise ValueError(f"There must be at least two classes, but {train.source} has only {train.labels.names}.")
    for subset in (test, validation):
        if subset is not None:
            check_same_labels(train, subset)
    return Round(train, test, validation)


def check_same_labels(train: Subset, other: Subset):
    """Raise `ValueError` if the class numbers of two subsets have different meanings."""
    if other.labels.names != train.labels.names:
        raise ValueError(
            f"The labels of {train.source} and {other.source} must be the same, got {list(train.labels.names)} and "
            f"{list(other.labels.names)}; give their order by `--label_names`."
        )


def split_off(subset: Subset, share: float, separate: bool = False) -> tuple[Subset, Subset]:
    """Split off a share: whole subjects if all are known and are not themselves the classes, else stratified by label.

    Args:
        subset: Subset to split.
        share: Share of the second part, in (0, 1).
        separate: Whether each part gets a corpus of its own, so that features are extracted for each part separately.

    Returns:
        The rest and the split-off share.
    """
    strata = [subset.labels.strata[row] for row in subset.rows] if subset.labels.strata else []
    subjects = None if subset.has_one_person_per_class() else subset.subjects()
    method = "stratified by label" if subjects is None else "whole subjects"
    try:
        kept_rows, rest_rows = cut_off(subjects, strata, share, CUT_SEED)
    except ValueError as error:
        raise ValueError(
            f"{len(subset.rows)} images of {subset.source} are too few to split {share:g} off; give `--test` and "
            "`--validation`."
        ) from error
    kept, rest = (
        subset.keep_rows(subset.rows[rows], f"{part:g} of {subset.source} ({method}, seed {CUT_SEED})")
        for rows, part in ((kept_rows, 1 - share), (rest_rows, share))
    )
    return (_separate_corpus(kept), _separate_corpus(rest)) if separate else (kept, rest)


def _separate_corpus(subset: Subset) -> Subset:
    """Give a subset a corpus that has only its rows."""
    # Test features are float32, training features bfloat16. In a shared corpus, both would be extracted for all rows.
    corpus, labels = subset.corpus.select(subset.rows), subset.labels.select_rows(subset.rows)
    return replace(subset, corpus=corpus, rows=np.arange(len(corpus)), labels=labels)


def _split_into_folds(subset: Subset, folds: int) -> list[tuple[Subset, Subset]]:
    """Split a subset into folds without a common person. Returns training and test set of each fold."""
    subjects = subset.subjects()
    if subjects is None:
        raise ValueError("Folds without a common person need a value of `subject` in every row of the training corpus.")
    if subset.has_one_person_per_class():
        raise ValueError(
            "Every class is one person, whom folds without a common person would not train: omit `--folds`."
        )
    fold = subject_folds(subjects, folds, CUT_SEED)
    return [
        (
            subset.keep_rows(subset.rows[fold != number], f"{subset.source}, all folds of {folds} but {number}"),
            subset.keep_rows(subset.rows[fold == number], f"{subset.source}, fold {number} of {folds}, by subject"),
        )
        for number in range(1, folds + 1)
    ]


def count_shared(train: Subset, test: Subset) -> dict[str, int]:
    """Count training images that are also test images, byte for byte, and people who are in both sets."""
    shared = {"images": len(train.find_shared_rows(test)), "subjects": 0}
    people = train.subjects(), test.subjects()
    if None not in people:
        shared["subjects"] = len(set(people[0]) & set(people[1]))
    for name, count in shared.items():
        if count:
            logger.warning("%d %s of %s are also in %s", count, name, train.source, test.source)
    return shared
