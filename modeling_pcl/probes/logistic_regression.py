"""Multinomial logistic regression on features: a linear probe that a solver fits."""

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

# Candidates for scikit-learn's C. With one thread, 10,800 images and 7 classes, fitting all of them takes half a minute
# for 1,568 features and two minutes for 6,272. From 0.1 up some fits stop at `MAX_ITERATIONS`; validation accuracy is
# already falling at weaker penalties.
INVERSE_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
DEFAULT_INVERSE_PENALTY = 1.0  # scikit-learn's default, used without validation images.
MAX_ITERATIONS = 200


@dataclass(frozen=True)
class LogisticProbe:
    """A logistic regression on standardised features.

    Args:
        scaler: Scaler that standardises the features.
        model: The regression; its `C` is the inverse penalty.
        score: Accuracy on the validation images; None without validation images.
        converged: Whether the solver reached its tolerance at this penalty.
    """

    scaler: StandardScaler
    model: LogisticRegression
    score: float | None
    converged: bool

    def predict(self, features: torch.Tensor) -> np.ndarray:
        """Predict classes.

        Args:
            features: `(images, dim)`, any floating dtype.

        Returns:
            The class of each image, `(images,)`.
        """
        return self.model.predict(self.scaler.transform(features.float().numpy()))


def fit_logistic_regression(
    train: torch.Tensor,
    train_labels: Sequence | np.ndarray | torch.Tensor,
    validation: tuple[torch.Tensor, Sequence | np.ndarray | torch.Tensor] | None = None,
) -> LogisticProbe:
    """Fit a logistic regression with an L2 penalty on standardised features, in float32.

    Args:
        train: Features, `(images, dim)`, any floating dtype. A standardised float32 copy is held in memory.
        train_labels: Classes, `(images,)`, as numbers or names.
        validation: Features `(images, dim)` and classes `(images,)`. The penalty with the best accuracy on them is
            chosen; of several, the strongest. None uses `DEFAULT_INVERSE_PENALTY`.

    Raises:
        ValueError: If there are fewer than two classes, or features are not finite.
    """
    scaler, train_labels = StandardScaler(), np.asarray(train_labels)
    rows = scaler.fit_transform(train.float().numpy())
    if validation is not None:
        validation_rows = scaler.transform(validation[0].float().numpy())
    # Strongest penalty first, each fit starting from the previous solution: this halves the number of iterations.
    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    best, unconverged_penalties = None, []
    candidates = INVERSE_PENALTIES if validation is not None else [DEFAULT_INVERSE_PENALTY]
    for penalty in progress(candidates, desc="logistic regression", unit="penalty", leave=False):
        with warnings.catch_warnings(record=True) as caught_warnings:
            warnings.simplefilter("always", ConvergenceWarning)
            model.set_params(C=penalty).fit(rows, train_labels)
        converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught_warnings)
        if not converged:
            unconverged_penalties.append(f"{penalty:g}")
        score = float(model.score(validation_rows, np.asarray(validation[1]))) if validation is not None else None
        if best is None or score > best.score:
            best = LogisticProbe(scaler, deepcopy(model), score, converged)
    if unconverged_penalties:
        logger.warning(
            "Logistic regression did not converge in %d iterations at C = %s; C = %g is kept.",
            MAX_ITERATIONS,
            ", ".join(unconverged_penalties),
            best.model.C,
        )
    return best
