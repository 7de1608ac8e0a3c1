"""Training loss, selection score and selection of the best epoch, for each task with a head."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from .scores import f1_per_unit, mean_f1


@dataclass(frozen=True)
class Objective:
    """The training loss of a task and the score by which epochs and hyper-parameters are chosen.

    Args:
        loss: Maps logits and targets of a batch to a scalar.
        score: Maps logits and targets of all images to a number; higher is better.
        metric: Name of what `score` measures, for results.json.
        has_units: Whether targets are numbers of an arbitrary unit. The head then predicts standardised targets.
    """

    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    score: Callable[[torch.Tensor, torch.Tensor], float]
    metric: str
    has_units: bool = False


def masked_binary_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute the binary cross-entropy over the known labels.

    Args:
        logits: `(batch, units)`.
        targets: `(batch, units)`: 1 for active, 0 for inactive, NaN for unknown.

    Returns:
        Mean over the known labels; 0, with gradient 0, if there are none.
    """
    is_known = ~targets.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (losses * is_known).sum() / is_known.sum().clamp(min=1)


def accuracy(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Compute the share of images whose largest logit is that of their class."""
    return (logits.argmax(dim=1) == targets).double().mean().item()


def negative_error(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Compute the negative mean absolute error over images (and angles)."""
    return -float((logits - targets).abs().numpy().mean())


def f1_of_logits(logits: torch.Tensor, targets: torch.Tensor) -> list[float | None]:
    """Compute the F1 of each unit at a probability of 0.5, over the images that are labelled for it.

    Args:
        logits: `(images, units)`.
        targets: `(images, units)`: 1 for active, 0 for inactive, NaN for unknown.

    Returns:
        One F1 per unit, as `f1_per_unit` computes it.
    """
    return f1_per_unit(((logits >= 0) & ~targets.isnan()).numpy(), (targets == 1).numpy())


def mean_unit_f1(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Compute the mean F1 of the units; 0 if no unit has an F1."""
    return mean_f1(f1_of_logits(logits, targets)) or 0.0


OBJECTIVES = {
    "expression": Objective(F.cross_entropy, accuracy, "accuracy"),
    "head_pose": Objective(F.l1_loss, negative_error, "negative mean absolute error in degrees"),
    "regression": Objective(F.l1_loss, negative_error, "negative mean absolute error", has_units=True),
    "action_units": Objective(masked_binary_cross_entropy, mean_unit_f1, "mean F1"),
}


@dataclass
class Selection:
    """The epoch with the highest score over all candidates (the first of several), and all scores.

    Args:
        candidate: Hyper-parameters of the best candidate, by name.
        epoch: Best epoch, counted from 1; None for what is not trained in epochs.
        score: Score of that epoch on held-out images. Minus infinity before the first epoch; None without held-out
            images.
        history: Score after each epoch, by formatted candidate. A candidate that diverged has fewer scores than epochs.
    """

    candidate: dict[str, float] = field(default_factory=dict)
    epoch: int | None = 0
    score: float | None = -math.inf
    history: dict[str, list[float]] = field(default_factory=dict)

    def add(self, candidate: dict[str, float], epoch: int | None, score: float, is_usable: bool = True) -> bool:
        """Record a score. Returns whether it is the best usable score so far."""
        self.history.setdefault(format_candidate(candidate), []).append(score)
        is_best = is_usable and score > self.score
        if is_best:
            self.candidate, self.epoch, self.score = candidate, epoch, score
        return is_best

    def describe(self) -> dict[str, float | int | None]:
        """Return the selection as an entry of results.json."""
        return {"score": self.score, **self.candidate} | ({} if self.epoch is None else {"epoch": self.epoch})


def format_candidate(candidate: Mapping[str, float]) -> str:
    """Format hyper-parameters as `learning rate 0.001, layer decay 0.7`."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in candidate.items())
