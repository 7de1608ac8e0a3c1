"""Multinomial logistic regression on features: a linear probe that is solved rather than trained."""

import logging
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ..progress import progress

logger = logging.getLogger(__name__)

# Inverse penalties, scikit-learn's C. One thread, 10,800 images, 7 classes: all of them take half a minute at 1,568
# features and two at 6,272. From 0.1 up some stopped at `MAX_ITERATIONS`, where validation accuracy had long fallen.
INVERSE_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
DEFAULT_INVERSE_PENALTY = 1.0  # scikit-learn's, where there is nothing to choose on.
MAX_ITERATIONS = 200


@dataclass(frozen=True)
class LogisticProbe:
    """A logistic regression on standardised features.

    Args:
        scaler: What standardises them.
        model: The regression; its `C` is the inverse penalty.
        score: Accuracy on the validation images; None without.
        converged: Whether the solver reached its tolerance at this penalty.
    """

    scaler: StandardScaler
    model: LogisticRegression
    score: float | None
    converged: bool

    def predict(self, features: torch.Tensor) -> np.ndarray:
        """The class of each image, `(images,)`, from features `(images, dim)` of any floating dtype."""
        return self.model.predict(self.scaler.transform(features.float().numpy()))


def fit_logistic_regression(
    train: torch.Tensor,
    train_labels: Sequence | np.ndarray | torch.Tensor,
    validation: tuple[torch.Tensor, Sequence | np.ndarray | torch.Tensor] | None = None,
) -> LogisticProbe:
    """Fit a logistic regression with an L2 penalty on standardised features, in float32.

    Args:
        train: Features, `(images, dim)`, any floating dtype; a standardised float32 copy is held in memory.
        train_labels: Their classes, `(images,)`, numbers or names.
        validation: Features `(images, dim)` and classes on which the penalty is chosen by accuracy; of equally good
            penalties the strongest. None takes `DEFAULT_INVERSE_PENALTY`.

    Raises:
        ValueError: If there are fewer than two classes, or features are not finite.
    """
    scaler, train_labels = StandardScaler(), np.asarray(train_labels)
    rows = scaler.fit_transform(train.float().numpy())
    if validation is not None:
        validation_rows = scaler.transform(validation[0].float().numpy())
    # From the strongest penalty on, each fit starts where the last ended: half the iterations.
    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    best, unconverged = None, []
    candidates = INVERSE_PENALTIES if validation is not None else [DEFAULT_INVERSE_PENALTY]
    for penalty in progress(candidates, desc="logistic regression", unit="penalty", leave=False):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.set_params(C=penalty).fit(rows, train_labels)
        converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        if not converged:
            unconverged.append(f"{penalty:g}")
        score = float(model.score(validation_rows, np.asarray(validation[1]))) if validation is not None else None
        if best is None or score > best.score:
            best = LogisticProbe(scaler, deepcopy(model), score, converged)
    if unconverged:
        logger.warning(
            "Logistic regression did not converge in %d iterations at C = %s; C = %g is kept.",
            MAX_ITERATIONS,
            ", ".join(unconverged),
            best.model.C,
        )
    return best
