"""Same or different person: pairs of images, compared by the cosine of their features."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from torch.nn import functional as F

from ..data.corpora import corpus_revision, corpus_splits, is_list_of_pairs, load_pairs
from ..data.pairs import make_pairs
from .arguments import DisentanglementArguments, VerificationArguments
from .feature_cache import ShardedFeatures
from .subset import NO_LABELS, ROW, Subset, open_subset
from .verification_scores import verification_scores

ROWS_AT_ONCE, PAIR_SEED = 4096, 0  # At full width and 64 px so many pairs take 64 MiB a side in float64.


def compute_pair_cosines(features: torch.Tensor | ShardedFeatures, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Score pairs of images.

    Args:
        features: `(images, dim)`, memory-mapped if need be.
        first: Row of each pair's one image, `(pairs,)`.
        second: Row of its other image, `(pairs,)`.

    Returns:
        Cosines in [-1, 1], `(pairs,)` float64.
    """
    cosines = [np.empty(0)]
    for start in range(0, len(first), ROWS_AT_ONCE):
        sides = (torch.from_numpy(rows[start : start + ROWS_AT_ONCE]) for rows in (first, second))
        # In float64: thresholds lie between neighbouring cosines, and float32 makes ties of pairs that differ.
        cosines.append(F.cosine_similarity(*(features[rows].double() for rows in sides)).numpy())
    return np.concatenate(cosines)


@dataclass(frozen=True)
class TestPairs:
    """Pairs of rows of a corpus.

    Args:
        corpus: With the images.
        first, second: Row numbers, `(pairs,)`.
        same: Whether both show one person, `(pairs,)`.
        fold: Number of each pair's fold, `(pairs,)`.
        source: Where they are from, in words.
        revision: Of the corpus or the list that was opened.
    """

    corpus: Dataset
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    fold: np.ndarray
    source: str
    revision: str

    def select(self, places: np.ndarray) -> "TestPairs":
        """Some of the pairs."""
        columns = ("first", "second", "same", "fold")
        return replace(self, **{name: getattr(self, name)[places] for name in columns})

    def drop_broken(self, broken: Collection[int]) -> "TestPairs":
        """Leave out the pairs of which an image does not decode."""
        return self.select(~(np.isin(self.first, list(broken)) | np.isin(self.second, list(broken))))

    def describe(self) -> dict:
        return {"source": self.source, "pairs": len(self.same), "revision": self.revision}

    def to_columns(self) -> dict[str, np.ndarray]:
        """For `predictions.csv`: the images' rows in the split that was opened, or the pairs' in their list."""
        if ROW in self.corpus.column_names:
            rows = np.array(self.corpus.select_columns(ROW)[:][ROW])
            numbers = {"row_a": rows[self.first], "row_b": rows[self.second]}
        else:
            numbers = {"pair": self.first}
        return numbers | {"same": self.same, "fold": self.fold}

    def image_subset(self) -> Subset:
        """Give every image of the pairs."""
        rows = np.unique(np.concatenate([self.first, self.second]))
        return Subset(self.corpus, rows, NO_LABELS, self.source)

    def compute_cosines(self, features: torch.Tensor | ShardedFeatures) -> np.ndarray:
        """Of every pair, `(pairs,)`, from features of the corpus, `(rows, dim)`."""
        return compute_pair_cosines(features, self.first, self.second)

    def measure(self, cosines: np.ndarray) -> dict:
        """Measure how well cosines, `(pairs,)`, tell the pairs apart."""
        return verification_scores(cosines, self.same.astype(int), self.fold)


def open_pairs(arguments: VerificationArguments | DisentanglementArguments, name: str) -> TestPairs:
    """A list of pairs, or pairs drawn from a corpus whose people are known.

    Raises:
        ValueError: If the corpus has neither pairs nor people, or too few for so many pairs.
    """
    splits = corpus_splits(name)
    split = "test" if "test" in splits else splits[0]
    if is_list_of_pairs(name, split):
        return _open_pair_list(load_pairs(name, split), name)
    people = open_subset(name, "test", None, arguments.test_subjects, arguments.subject_column)
    count, folds = arguments.pairs, arguments.folds
    try:
        pairs = make_pairs(people.subjects(), count, folds, PAIR_SEED)
    except ValueError as error:
        raise ValueError(f"`--pairs {count}` with `--folds {folds}` from {people.source}: {error}") from error
    source = f"{count} pairs of {people.source}, drawn with seed {PAIR_SEED}, {folds} folds by subject"
    return TestPairs(people.corpus, pairs.first, pairs.second, pairs.same, pairs.fold, source, people.revision)


def _open_pair_list(pairs: Dataset, name: str) -> TestPairs:
    same, fold = (np.array(pairs.select_columns(column)[:][column], dtype=float) for column in ("same", "fold"))
    known = np.flatnonzero(~(np.isnan(same) | np.isnan(fold)))
    sides = [pairs.select_columns(column).rename_column(column, "image") for column in ("image_a", "image_b")]
    source = name if len(known) == len(pairs) else f"{name}, without {len(pairs) - len(known)} pairs not labelled"
    images, fold = concatenate_datasets(sides), fold[known].astype(int)
    return TestPairs(images, known, known + len(pairs), same[known] == 1, fold, source, corpus_revision(images))
