"""Same or different person: pairs of images, compared by the cosine of their features, as in LFW's protocol."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from sklearn.metrics import auc, roc_curve
from torch.nn import functional as F

from ..data.corpora import corpus_revision, corpus_splits, is_list_of_pairs, load_pairs
from ..data.pairs import make_pairs
from .arguments import DisentanglementArguments, VerificationArguments
from .feature_cache import ShardedFeatures
from .subset import NO_LABELS, ROW, Subset, open_subset

ROWS_AT_ONCE, PAIR_SEED = 4096, 0  # At full width and 64 px so many pairs take 64 MiB a side in float64.
FALSE_ACCEPT_RATES = (1e-2, 1e-3)  # Those that the field reports.


def pair_cosines(features: torch.Tensor | ShardedFeatures, first: np.ndarray, second: np.ndarray) -> np.ndarray:
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


def verification_scores(similarities: np.ndarray, same: np.ndarray, folds: np.ndarray) -> dict[str, float]:
    """Test each fold with the threshold that is best on the other folds, and draw one ROC curve over all pairs.

    A pair is said to show the same person where its similarity is at least the threshold.

    Args:
        similarities: `(pairs,)`, finite, on any scale; the more alike, the higher.
        same: Whether both images show one person, `(pairs,)` booleans.
        folds: The number of each pair's fold, `(pairs,)`. No person should be in two folds.

    Returns:
        `accuracy`: Mean over the folds of the share of the fold's pairs that are judged rightly, in [0, 1].
        `accuracy_standard_error`: Standard deviation of the folds' accuracies (ddof=1), over sqrt(folds).
        `threshold`: The one with the best accuracy on all pairs, for use elsewhere; no number here is measured with it.
        `auc`: Area under the ROC curve of all pairs, ties counted half; 0.5 at chance.
        `tar_at_far_0.01`, `tar_at_far_0.001`: The largest true accept rate of all thresholds whose false accept rate is
            at most that, nothing interpolated. Below one over the number of different pairs, the rate without a single
            false accept.
        `equal_error_rate`: Where the ROC curve, drawn with straight lines, has as large a false accept rate as false
            reject rate.

    Raises:
        ValueError: If there are fewer than two folds, or pairs of one kind only, in all or in the folds beside one.

    Source:
        Huang et al. 2007, with the benchmark's mean accuracy and standard error over ten folds. The threshold may be
        any number, where others search a grid.
    """
    accuracies, fold_numbers = [], np.unique(folds)
    if len(fold_numbers) < 2:
        raise ValueError(
            f"The pairs must be in two folds at least, got {len(fold_numbers)}: a threshold is tested on pairs that it "
            "was not chosen on."
        )
    for fold in fold_numbers:
        test, train = folds == fold, folds != fold
        if same[train].all() or not same[train].any():
            raise ValueError(
                f"There must be pairs of one person and of two beside fold {fold}, on which its threshold is chosen."
            )
        threshold = best_threshold(similarities[train], same[train])
        accuracies.append(np.mean((similarities[test] >= threshold) == same[test]))
    # Points on a straight line are thresholds, too.
    false_accepts, true_accepts, _ = roc_curve(same, similarities, drop_intermediate=False)
    return {
        "accuracy": float(np.mean(accuracies)),
        "accuracy_standard_error": float(np.std(accuracies, ddof=1) / np.sqrt(len(accuracies))),
        "threshold": best_threshold(similarities, same),
        "auc": float(auc(false_accepts, true_accepts)),
        **{f"tar_at_far_{rate:g}": float(true_accepts[false_accepts <= rate].max()) for rate in FALSE_ACCEPT_RATES},
        # Both rates never fall along the curve and one rises at each point, so that their sum is strictly rising.
        "equal_error_rate": float(np.interp(1, false_accepts + true_accepts, false_accepts)),
    }


def best_threshold(similarities: np.ndarray, same: np.ndarray) -> float:
    """The threshold with the best accuracy; of several equally good ones the highest.

    It lies half way between two neighbouring similarities: the lowest similarity where all pairs, the next number above
    the highest where no pair should be said to be the same.
    """
    false_accepts, true_accepts, levels = roc_curve(same, similarities, drop_intermediate=False)
    # In whole pairs, since equal numbers of right answers are not equal as sums of shares.
    right = np.rint(true_accepts * same.sum()) - np.rint(false_accepts * (~same).sum())
    best = int(np.argmax(right))
    if best == 0:  # The first level is infinity.
        return float(np.nextafter(levels[1], np.inf))
    if best + 1 == len(levels):
        return float(levels[best])
    middle = (levels[best] + levels[best + 1]) / 2
    # Between neighbouring floats there is no middle.
    return float(middle if middle > levels[best + 1] else levels[best])


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

    def at(self, places: np.ndarray) -> "TestPairs":
        """Some of the pairs."""
        columns = ("first", "second", "same", "fold")
        return replace(self, **{name: getattr(self, name)[places] for name in columns})

    def without(self, broken: Collection[int]) -> "TestPairs":
        """Leave out the pairs of which an image does not decode."""
        return self.at(~(np.isin(self.first, list(broken)) | np.isin(self.second, list(broken))))

    def describe(self) -> dict:
        return {"source": self.source, "pairs": len(self.same), "revision": self.revision}

    def columns(self) -> dict[str, np.ndarray]:
        """For `predictions.csv`: the images' rows in the split that was opened, or the pairs' in their list."""
        if ROW in self.corpus.column_names:
            rows = np.array(self.corpus.select_columns(ROW)[:][ROW])
            numbers = {"row_a": rows[self.first], "row_b": rows[self.second]}
        else:
            numbers = {"pair": self.first}
        return numbers | {"same": self.same, "fold": self.fold}

    def images(self) -> Subset:
        """Give every image of the pairs."""
        rows = np.unique(np.concatenate([self.first, self.second]))
        return Subset(self.corpus, rows, NO_LABELS, self.source)

    def cosines(self, features: torch.Tensor | ShardedFeatures) -> np.ndarray:
        """Of every pair, `(pairs,)`, from features of the corpus, `(rows, dim)`."""
        return pair_cosines(features, self.first, self.second)

    def measure(self, cosines: np.ndarray) -> dict:
        """Measure how well cosines, `(pairs,)`, tell the pairs apart."""
        return verification_scores(cosines, self.same, self.fold)


def open_pairs(arguments: VerificationArguments | DisentanglementArguments, name: str) -> TestPairs:
    """A list of pairs, or pairs drawn from a corpus whose people are known.

    Raises:
        ValueError: If the corpus has neither pairs nor people, or too few for so many pairs.
    """
    splits = corpus_splits(name)
    split = "test" if "test" in splits else splits[0]
    if is_list_of_pairs(name, split):
        return _open_list(load_pairs(name, split), name)
    people = open_subset(name, "test", None, arguments.test_subjects, arguments.subject_column)
    count, folds = arguments.pairs, arguments.folds
    try:
        pairs = make_pairs(people.subjects(), count, folds, PAIR_SEED)
    except ValueError as error:
        raise ValueError(f"`--pairs {count}` with `--folds {folds}` from {people.source}: {error}") from error
    source = f"{count} pairs of {people.source}, drawn with seed {PAIR_SEED}, {folds} folds by subject"
    return TestPairs(people.corpus, pairs.first, pairs.second, pairs.same, pairs.fold, source, people.revision)


def _open_list(pairs: Dataset, name: str) -> TestPairs:
    same, fold = (np.array(pairs.select_columns(column)[:][column], dtype=float) for column in ("same", "fold"))
    known = np.flatnonzero(~(np.isnan(same) | np.isnan(fold)))
    sides = [pairs.select_columns(column).rename_column(column, "image") for column in ("image_a", "image_b")]
    source = name if len(known) == len(pairs) else f"{name}, without {len(pairs) - len(known)} pairs not labelled"
    images, fold = concatenate_datasets(sides), fold[known].astype(int)
    return TestPairs(images, known, known + len(pairs), same[known] == 1, fold, source, corpus_revision(images))
