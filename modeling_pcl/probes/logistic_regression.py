"""Multinomial logistic regression on features: a linear probe that is solved rather than trained."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ..progress import progress
from .linear import LinearLayer

logger = logging.getLogger(__name__)

# Inverse penalties, scikit-learn's C. One thread, 10,800 images, 7 classes: all of them take half a minute at 1,568
# features and two at 6,272. From 0.1 up some stopped at `MAX_ITERATIONS`, where validation accuracy had long fallen.
INVERSE_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
DEFAULT_INVERSE_PENALTY = 1.0  # scikit-learn's, where there is nothing to choose on.
MAX_ITERATIONS = 200

Labels = Sequence | np.ndarray | torch.Tensor


@dataclass(frozen=True)
class LogisticProbe(LinearLayer):
    """A logistic regression as one linear layer; it has two rows for two classes.

    Args:
        classes: What each row stands for, sorted, `(classes,)`; a class without training images has no row.
        inverse_penalty: scikit-learn's C, of the standardised problem.
        score: Accuracy on the validation images; None without.
        converged: Whether the solver reached its tolerance at this penalty.
    """

    classes: np.ndarray
    inverse_penalty: float
    score: float | None
    converged: bool


def fit_logistic_regression(
    train: torch.Tensor,
    train_labels: Labels,
    validation: tuple[torch.Tensor, Labels] | None = None,
    inverse_penalties: Sequence[float] = INVERSE_PENALTIES,
) -> LogisticProbe:
    """Fit a logistic regression with an L2 penalty on standardised features, in float32.

    Args:
        train: Features, `(images, dim)`, any floating dtype; a standardised float32 copy is held in memory.
        train_labels: Their classes, `(images,)`, numbers or names.
        validation: Features `(images, dim)` and classes on which the penalty is chosen by accuracy; of equally good
            penalties the strongest. None takes `DEFAULT_INVERSE_PENALTY`.
        inverse_penalties: Candidates; each fit starts where that of the next stronger penalty ended.

    Raises:
        ValueError: If the labels are not one for each image, there are fewer than two classes, or features are not
            finite.
    """
    train_labels = np.asarray(train_labels)
    _check("train", train, train_labels)
    if len(np.unique(train_labels)) < 2:
        raise ValueError(f"`train_labels` must be of at least 2 classes, got {np.unique(train_labels).tolist()}.")
    scaler = StandardScaler()
    rows = scaler.fit_transform(train.float().numpy())
    if validation is not None:
        validation_labels = np.asarray(validation[1])
        _check("validation", validation[0], validation_labels)
        validation_rows = scaler.transform(validation[0].float().numpy())

    # From the strongest penalty on, each fit starts where the last ended: half the iterations.
    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    best, unconverged = None, []
    candidates = sorted(inverse_penalties) if validation is not None else [DEFAULT_INVERSE_PENALTY]
    for penalty in progress(candidates, desc="logistic regression", unit="penalty", leave=False):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.set_params(C=penalty).fit(rows, train_labels)
        converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        if not converged:
            unconverged.append(f"{penalty:g}")
        score = float(model.score(validation_rows, validation_labels)) if validation is not None else None
        if best is None or score > best.score:
            best = LogisticProbe(*_folded(model, scaler), model.classes_, penalty, score, converged)
    if unconverged:
        logger.warning(
            "Logistic regression did not converge in %d iterations at C = %s; C = %g is kept.",
            MAX_ITERATIONS,
            ", ".join(unconverged),
            best.inverse_penalty,
        )
    return best


def _folded(model: LogisticRegression, scaler: StandardScaler) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias on raw features, float32, a row for each class."""
    weight, bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(model.classes_) == 2:  # scikit-learn keeps the difference of the two logits only.
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    bias = bias - weight @ scaler.mean_
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()


def _check(name: str, features: torch.Tensor, labels: np.ndarray):
    if labels.shape != features.shape[:1]:
        raise ValueError(f"The labels of `{name}` must be {features.shape[0]} classes, got the shape {labels.shape}.")
    if not features.isfinite().all():
        raise ValueError(f"`{name}` must be finite features, got NaN or infinity; leave out such images.")
