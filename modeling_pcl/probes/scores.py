"""Measures of predictions, as pure functions: what probes report, and what heads are chosen by."""

import numpy as np
import torch
from sklearn import metrics

from ..head_pose_pcl import ANGLES


def classification_scores(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Accuracies in [0, 1].

    Args:
        predictions: Numbers of the classes, `(images,)`.
        references: The same, `(images,)`.

    Returns:
        `accuracy`: Share of images whose class is right.
        `mean_class_accuracy`: Mean of the same share of each class in the references.
        `macro_f1`: Mean F1 of the classes that occur in references or predictions.
    """
    recalls = metrics.recall_score(references, predictions, labels=np.unique(references), average="macro")
    return {
        "accuracy": float(np.mean(predictions == references)),
        "mean_class_accuracy": float(recalls),
        "macro_f1": float(metrics.f1_score(references, predictions, average="macro")),
    }


def angular_errors(predictions: np.ndarray, references: np.ndarray) -> dict[str, float | int]:
    """Mean absolute difference in degrees. It does not wrap: 179 and -179 are 358 degrees apart.

    Args:
        predictions: Yaw, pitch, roll in degrees, `(images, 3)`.
        references: The same, `(images, 3)`.

    Returns:
        `mae`: The mean of the three next, in degrees.
        `yaw_mae`, `pitch_mae`, `roll_mae`: Mean over the images, in degrees.
        `images`: How many there are.
        `dropped`: 0, since images beyond 99 degrees are left out when labels are read; kept for those who read it.
    """
    means = np.abs(predictions.astype(np.float64) - references).mean(axis=0)  # (images, 3) -> (3,)
    by_angle = {f"{angle}_mae": float(mean) for angle, mean in zip(ANGLES, means)}
    return {"mae": float(means.mean()), **by_angle, "images": len(references), "dropped": 0}


def regression_scores(predictions: np.ndarray, references: np.ndarray) -> dict[str, float | int | None]:
    """How far numbers are off.

    Args:
        predictions: `(images,)`.
        references: `(images,)`.

    Returns:
        `mae`: Mean absolute error, in the numbers' own unit.
        `bias`: Mean of predictions less references, in the same.
        `r2`: Coefficient of determination, at most 1; None where all references are equal.
        `images`: How many there are.
    """
    predictions, references = predictions.astype(np.float64), references.astype(np.float64)
    errors = predictions - references
    return {
        "mae": float(np.abs(errors).mean()),
        "bias": float(errors.mean()),
        "r2": float(metrics.r2_score(references, predictions)) if np.ptp(references) > 0 else None,
        "images": len(errors),
    }


def f1_per_unit(logits: torch.Tensor, targets: torch.Tensor) -> list[float | None]:
    """F1 of each unit at a probability of 0.5, over the images that are labelled for it.

    Args:
        logits: `(images, units)`.
        targets: 1 where a unit is active, 0 where not, NaN where that is not known, `(images, units)`.

    Returns:
        `(units,)`, in [0, 1]; None for a unit that is active in neither labels nor predictions.
    """
    active = targets == 1
    predicted = (logits >= 0) & ~targets.isnan()
    counts = (predicted.sum(dim=0) + active.sum(dim=0)).tolist()  # (images, units) -> (units,)
    hits = (predicted & active).sum(dim=0).tolist()
    return [2 * hit / count if count else None for hit, count in zip(hits, counts)]


def mean_f1(by_unit: list[float | None]) -> float | None:
    """Mean over the units that have an F1; None if there is none."""
    existing = [score for score in by_unit if score is not None]
    return float(np.mean(existing)) if existing else None
