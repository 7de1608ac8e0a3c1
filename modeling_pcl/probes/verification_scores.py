"""How well similarities tell pairs of one person from pairs of two, in the folds of LFW's protocol."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import auc, roc_curve


def verification_scores(
    predictions: Sequence[float],
    references: Sequence[int],
    folds: Sequence[int],
    false_accept_rates: Sequence[float] = (1e-2, 1e-3),
) -> dict[str, float]:
    """Test each fold with the threshold that is best on the other folds, and draw one ROC curve over all pairs.

    A pair is said to show the same person where its similarity is at least the threshold.

    Args:
        predictions: Similarities, `(pairs,)`, on any scale; the more alike, the higher.
        references: 1 where both images show one person, 0 where they do not, `(pairs,)`.
        folds: The number of each pair's fold, `(pairs,)`, given to `compute` or `add_batch` beside `predictions`.
            No person should be in two folds.
        false_accept_rates: In [0, 1], where the true accept rate is read off.

    Returns:
        `accuracy`: Mean over the folds of the share of the fold's pairs that are judged rightly, in [0, 1].
        `accuracy_standard_error`: Standard deviation of the folds' accuracies (ddof=1), over sqrt(folds).
        `threshold`: The one with the best accuracy on all pairs, for use elsewhere; no number here is measured
            with it. A threshold lies half way between two neighbouring similarities; of several equally good ones
            the highest is taken. The lowest similarity where all pairs, the next number above the highest where
            no pair should be said to be the same.
        `auc`: Area under the ROC curve of all pairs, ties counted half; 0.5 at chance.
        `tar_at_far_0.01`, `tar_at_far_0.001`: The largest true accept rate of all thresholds whose false accept
            rate is at most that, nothing interpolated. Below one over the number of different pairs, the rate
            without a single false accept.
        `equal_error_rate`: Where the ROC curve, drawn with straight lines, has as large a false accept rate as
            false reject rate.

    Raises:
        ValueError: If there are no pairs, fewer than two folds, pairs of one kind only (in all or in the folds
            beside one), a similarity that is not finite, or a reference, fold or rate that is none.

    Source:
        Huang et al. 2007, with the benchmark's mean accuracy and standard error over ten folds. The threshold
        may be any number, where others search a grid.
    """
    similarities, same, folds = _checked_pairs(predictions, references, folds)
    beyond = [rate for rate in false_accept_rates if not 0 <= rate <= 1]
    if beyond:
        raise ValueError(f"`false_accept_rates` must be in [0, 1], got {beyond[0]}.")
    accuracies = _fold_accuracies(similarities, same, folds)
    # Points on a straight line are thresholds, too.
    false_accepts, true_accepts, _ = roc_curve(same, similarities, drop_intermediate=False)
    return {
        "accuracy": float(np.mean(accuracies)),
        "accuracy_standard_error": float(np.std(accuracies, ddof=1) / np.sqrt(len(accuracies))),
        "threshold": _best_threshold(similarities, same),
        "auc": float(auc(false_accepts, true_accepts)),
        **{f"tar_at_far_{rate:g}": float(true_accepts[false_accepts <= rate].max()) for rate in false_accept_rates},
        # Both rates never fall along the curve and one rises at each point, so that their sum is strictly rising.
        "equal_error_rate": float(np.interp(1, false_accepts + true_accepts, false_accepts)),
    }


def _checked_pairs(predictions, references, folds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    similarities, same, folds = (np.asarray(values, dtype=np.float64) for values in (predictions, references, folds))
    if not len(similarities):
        raise ValueError("`predictions` must hold the similarities of pairs, got none.")
    if not np.isfinite(similarities).all():
        raise ValueError("`predictions` must be finite similarities, got NaN, None or infinity.")
    if not np.isin(same, [0, 1]).all():
        raise ValueError("`references` must be 1 for the same person and 0 for different people, got another value.")
    if same.all() or not same.any():
        raise ValueError(f"`references` must hold pairs of both kinds, got only {same[0]:g}.")
    if not (np.isfinite(folds) & (folds == np.round(folds))).all():
        raise ValueError("`folds` must be whole numbers, got another value.")
    if len(np.unique(folds)) < 2:
        raise ValueError("`folds` must name at least two folds: a threshold is tested where it was not chosen.")
    return similarities, same == 1, folds


def _fold_accuracies(similarities: np.ndarray, same: np.ndarray, folds: np.ndarray) -> np.ndarray:
    accuracies = []
    for fold in np.unique(folds):
        test, train = folds == fold, folds != fold
        if same[train].all() or not same[train].any():
            raise ValueError(f"`folds` must leave pairs of both kinds beside each fold, not so beside fold {fold:g}.")
        threshold = _best_threshold(similarities[train], same[train])
        accuracies.append(np.mean((similarities[test] >= threshold) == same[test]))
    return np.array(accuracies)


def _best_threshold(similarities: np.ndarray, same: np.ndarray) -> float:
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
