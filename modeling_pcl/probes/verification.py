"""Same person or not, by the cosine of two features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch.nn import functional as F


@dataclass(frozen=True)
class Pairs:
    """Scored pairs of images.

    Args:
        cosines: `(pairs,)` in [-1, 1].
        same: `(pairs,)` booleans: whether both show one person.
    """

    cosines: np.ndarray
    same: np.ndarray


def all_pairs(features: torch.Tensor, subjects: Sequence[str]) -> Pairs:
    """Score every pair of different images.

    Args:
        features: `(images, dim)`.
        subjects: Who each image shows, `(images,)`.

    Raises:
        ValueError: If the lengths differ, or the pairs are all of one kind.
    """
    if len(subjects) != features.shape[0]:
        raise ValueError(f"`subjects` must name {features.shape[0]} images, got {len(subjects)}.")
    _, identities = np.unique(np.asarray(subjects), return_inverse=True)
    rows = F.normalize(features.float(), dim=1)
    first, second = np.triu_indices(len(subjects), k=1)
    same = identities[first] == identities[second]
    if same.all() or not same.any():
        raise ValueError("Verification needs at least two subjects, and one of them with two images.")
    return Pairs((rows @ rows.T).numpy()[first, second], same)


def best_threshold(pairs: Pairs) -> float:
    """The cosine from which "same" is said, chosen so that `balanced_accuracy` on these pairs is highest."""
    false_rate, true_rate, thresholds = roc_curve(pairs.same, pairs.cosines)
    return float(thresholds[1:][np.argmax((true_rate - false_rate)[1:])])


def balanced_accuracy(pairs: Pairs, threshold: float) -> float:
    """Mean of the share of same pairs and the share of different pairs that are judged rightly, in [0, 1]."""
    said_same = pairs.cosines >= threshold
    return float((said_same[pairs.same].mean() + (~said_same)[~pairs.same].mean()) / 2)


def verify(test: Pairs, threshold: float) -> dict[str, float]:
    """AUC and balanced accuracy.

    Args:
        test: Pairs of people that the threshold was not chosen on.
        threshold: From `best_threshold` on other people.

    Returns:
        `auc` in [0, 1], 0.5 at chance; `accuracy`, balanced, 0.5 at chance; the `threshold`.
    """
    return {
        "auc": float(roc_auc_score(test.same, test.cosines)),
        "accuracy": balanced_accuracy(test, threshold),
        "threshold": threshold,
    }
