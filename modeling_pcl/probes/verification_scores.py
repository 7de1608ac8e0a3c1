"""Scores of face verification in the folds of LFW's protocol."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import auc, roc_curve


def verification_scores(
    predictions: Sequence[float],
    references: Sequence[int],
    folds: Sequence[int],
    false_accept_rates: Sequence[float] = (1e-2, 1e-3),
) -> dict[str, float]:
    """Test each fold with the threshold that is best on the other folds, and compute one ROC curve over all pairs.

    A pair is predicted to show the same person if its similarity is at least the threshold.

    Args:
        predictions: Similarities, `(pairs,)`, on any scale; higher means more alike.
        references: 1 if both images show one person, otherwise 0, `(pairs,)`.
        folds: Number of each pair's fold, `(pairs,)`, passed to `compute` or `add_batch` like `predictions`. No person
            should be in two folds.
        false_accept_rates: False accept rates, in [0, 1], at which true accept rates are computed.

    Returns:
        `accuracy`: Share of pairs that are judged correctly, averaged over the folds, in [0, 1].
        `accuracy_standard_error`: Standard deviation of the folds' accuracies (ddof=1), over sqrt(folds).
        `threshold`: The threshold with the best accuracy on all pairs, for use elsewhere; no score here uses it. A
            threshold lies half way between two neighbouring similarities; of several equally good ones, it is the
            highest. If all pairs should be accepted, it is the lowest similarity; if none, the next float above the
            highest.
        `auc`: Area under the ROC curve of all pairs, ties counted half; 0.5 at chance.
        `tar_at_far_0.01`, `tar_at_far_0.001`: The largest true accept rate of all thresholds whose false accept rate is
            at most that, without interpolation. If that is below one over the number of different pairs, it is the rate
            without any false accept.
        `equal_error_rate`: The rate at which the ROC curve, interpolated linearly, has equal false accept and false
            reject rates.

    Raises:
        ValueError: If there are no pairs, fewer than two folds, pairs of one kind only (in all or in the folds
            beside one), a similarity that is not finite, or an invalid reference, fold or rate.

    Source:
        Huang et al. 2007, with the benchmark's mean accuracy and standard error over ten folds. The threshold can be
        any number, where other implementations search a grid.
    """
    similarities, same, folds = _check_pairs(predictions, references, folds)
    invalid_rates = [rate for rate in false_accept_rates if not 0 <= rate <= 1]
    if invalid_rates:
        raise ValueError(f"`false_accept_rates` must be in [0, 1], got {invalid_rates[0]}.")
    accuracies = _measure_fold_accuracies(similarities, same, folds)
    # Points inside a straight segment of the curve are possible thresholds, too, so they must not be dropped.
    false_accepts, true_accepts, _ = roc_curve(same, similarities, drop_intermediate=False)
    return {
        "accuracy": float(np.mean(accuracies)),
        "accuracy_standard_error": float(np.std(accuracies, ddof=1) / np.sqrt(len(accuracies))),
        "threshold": _find_best_threshold(similarities, same),
        "auc": float(auc(false_accepts, true_accepts)),
        **{f"tar_at_far_{rate:g}": float(true_accepts[false_accepts <= rate].max()) for rate in false_accept_rates},
        # Neither rate falls along the curve and one rises at each point: the sum increases strictly, for np.interp.
        "equal_error_rate": float(np.interp(1, false_accepts + true_accepts, false_accepts)),
    }


def _check_pairs(predictions, references, folds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Validate the arguments of `verification_scores`.

    Returns:
        Similarities as float64, whether pairs show the same person as booleans, and folds as float64, each `(pairs,)`.
    """
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
        raise ValueError("`folds` must name at least two folds: each fold is tested with the threshold of the others.")
    return similarities, same == 1, folds


def _measure_fold_accuracies(similarities: np.ndarray, same: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Compute the accuracy of each fold at the threshold that is best on the other folds."""
    accuracies = []
    for fold in np.unique(folds):
        test, train = folds == fold, folds != fold
        if same[train].all() or not same[train].any():
            raise ValueError(f"`folds` must leave pairs of both kinds beside each fold, not so beside fold {fold:g}.")
        threshold = _find_best_threshold(similarities[train], same[train])
        accuracies.append(np.mean((similarities[test] >= threshold) == same[test]))
    return np.array(accuracies)


def _find_best_threshold(similarities: np.ndarray, same: np.ndarray) -> float:
    """Find the threshold with the best accuracy, as `verification_scores` describes it."""
    false_accepts, true_accepts, thresholds = roc_curve(same, similarities, drop_intermediate=False)
    # Counted in whole pairs, because equal counts may differ as sums of rates, by rounding.
    correct_pairs = np.rint(true_accepts * same.sum()) - np.rint(false_accepts * (~same).sum())
    best = int(np.argmax(correct_pairs))
    if best == 0:  # scikit-learn's first threshold is infinity.
        return float(np.nextafter(thresholds[1], np.inf))
    if best + 1 == len(thresholds):
        return float(thresholds[best])
    middle = (thresholds[best] + thresholds[best + 1]) / 2
    # Half way between neighbouring floats rounds to one of them; it must not be the lower one.
    return float(middle if middle > thresholds[best + 1] else thresholds[best])
