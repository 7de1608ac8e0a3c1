"""What the head of each task is trained towards, and how an epoch of it is judged."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from . import scores


@dataclass(frozen=True)
class Objective:
    """The training loss of a task and the score by which epochs and hyper-parameters are chosen.

    Args:
        loss: From logits and targets of a batch to a scalar.
        score: From logits and targets of all images to a number; the higher, the better.
        metric: What `score` measures, in words.
        has_units: Whether targets are numbers of any unit, so that a head begins at their mean and learns in their
            spread.
    """

    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    score: Callable[[torch.Tensor, torch.Tensor], float]
    metric: str
    has_units: bool = False


def masked_binary_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy over the labels that are known.

    Args:
        logits: `(batch, units)`.
        targets: `(batch, units)`, 1 active, 0 not, NaN not known.

    Returns:
        Mean over the known labels; 0, with gradient 0, if there are none.
    """
    known = ~targets.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def accuracy(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Share of the images whose largest logit is their class's."""
    return scores.accuracy(logits.argmax(dim=1).numpy(), targets.numpy())


def negative_error(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean absolute error over images (and angles), with a minus."""
    return -float(np.abs(logits.numpy() - targets.numpy()).mean())


def mean_f1(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean F1 of the units at a probability of 0.5, each over the images that are labelled for it.

    A unit that is active neither in labels nor in predictions has no F1; without any the mean is 0.
    """
    by_unit = scores.f1_per_unit(((logits >= 0) & ~targets.isnan()).numpy(), (targets == 1).numpy())
    existing = [score for score in by_unit if score is not None]
    return float(np.mean(existing)) if existing else 0.0


OBJECTIVES = {
    "expression": Objective(F.cross_entropy, accuracy, "accuracy"),
    "head_pose": Objective(F.l1_loss, negative_error, "mean absolute error, in degrees, with a minus"),
    "regression": Objective(F.l1_loss, negative_error, "mean absolute error, with a minus", has_units=True),
    "action_units": Objective(masked_binary_cross_entropy, mean_f1, "mean F1"),
}
