"""Face verification: pairs of images, compared by the cosine of their features."""

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

ROWS_AT_ONCE, PAIR_SEED = 4096, 0  # At full width and 64 px, one image of each of 4,096 pairs takes 64 MiB in float64.


def compute_pair_cosines(features: torch.Tensor | ShardedFeatures, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the cosines of the features of pairs of images.

    Args:
        features: `(images, dim)`, may be memory-mapped.
        first: Row of the first image of each pair, `(pairs,)`.
        second: Row of the second image of each pair, `(pairs,)`.

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
        corpus: Corpus with the images.
        first, second: Row numbers, `(pairs,)`.
        same: Whether both images show one person, `(pairs,)`.
        fold: Number of the fold of each pair, `(pairs,)`.
        source: Description of the origin, for results.json and messages.
        revision: Revision of the corpus or list that was opened.
    """

    corpus: Dataset
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    fold: np.ndarray
    source: str
    revision: str

    def select(self, places: np.ndarray) -> "TestPairs":
        """Return some of the pairs, by position or mask."""
        columns = ("first", "second", "same", "fold")
        return replace(self, **{name: getattr(self, name)[places] for name in columns})

    def drop_broken(self, broken: Collection[int]) -> "TestPairs":
        """Return the pairs without those that have an image that does not decode."""
        return self.select(~(np.isin(self.first, list(broken)) | np.isin(self.second, list(broken))))

    def describe(self) -> dict:
        """Return the facts about the pairs for results.json."""
        return {"source": self.source, "pairs": len(self.same), "revision": self.revision}

    def to_columns(self) -> dict[str, np.ndarray]:
        """Return the columns of predictions.csv: row numbers in the opened split, or numbers in the list of pairs."""
        if ROW in self.corpus.column_names:
            rows = np.array(self.corpus.select_columns(ROW)[:][ROW])
            numbers = {"row_a": rows[self.first], "row_b": rows[self.second]}
        else:
            numbers = {"pair": self.first}
        return numbers | {"same": self.same, "fold": self.fold}

    def image_subset(self) -> Subset:
        """Return the subset of all images of the pairs."""
        rows = np.unique(np.concatenate([self.first, self.second]))
        return Subset(self.corpus, rows, NO_LABELS, self.source)

    def compute_cosines(self, features: torch.Tensor | ShardedFeatures) -> np.ndarray:
        """Compute the cosine of every pair, `(pairs,)`.

        Args:
            features: Features of the corpus, `(rows, dim)`.
        """
        return compute_pair_cosines(features, self.first, self.second)

    def measure(self, cosines: np.ndarray) -> dict:
        """Measure how well cosines separate pairs of one person from pairs of two.

        Args:
            cosines: `(pairs,)`.
        """
        return verification_scores(cosines, self.same.astype(int), self.fold)


def open_pairs(arguments: VerificationArguments | DisentanglementArguments, name: str) -> TestPairs:
    """Open a list of pairs, or draw pairs from a corpus with known people.

    Raises:
        ValueError: If the corpus has neither pairs nor people, or too few people for the number of pairs.
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
    """Convert a list of pairs; those without label or fold are left out."""
    same, fold = (np.array(pairs.select_columns(column)[:][column], dtype=float) for column in ("same", "fold"))
    labelled = np.flatnonzero(~(np.isnan(same) | np.isnan(fold)))
    image_columns = [pairs.select_columns(column).rename_column(column, "image") for column in ("image_a", "image_b")]
    source = name if len(labelled) == len(pairs) else f"{name}, without {len(pairs) - len(labelled)} pairs not labelled"
    images, fold = concatenate_datasets(image_columns), fold[labelled].astype(int)
    return TestPairs(
        images, labelled, labelled + len(pairs), same[labelled] == 1, fold, source, corpus_revision(images)
    )
