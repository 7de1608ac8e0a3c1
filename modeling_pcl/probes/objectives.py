"""What the head of each task is trained towards, how an epoch of it is judged, and which epoch is kept."""

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
    return (logits.argmax(dim=1) == targets).double().mean().item()


def negative_error(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean absolute error over images (and angles), with a minus."""
    return -float((logits - targets).abs().numpy().mean())


def f1_of_logits(logits: torch.Tensor, targets: torch.Tensor) -> list[float | None]:
    """F1 of each unit at a probability of 0.5, over the images that are labelled for it; both `(images, units)`."""
    return f1_per_unit(((logits >= 0) & ~targets.isnan()).numpy(), (targets == 1).numpy())


def unit_score(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean F1 of the units; 0 where none has one."""
    return mean_f1(f1_of_logits(logits, targets)) or 0.0


OBJECTIVES = {
    "expression": Objective(F.cross_entropy, accuracy, "accuracy"),
    "head_pose": Objective(F.l1_loss, negative_error, "mean absolute error, in degrees, with a minus"),
    "regression": Objective(F.l1_loss, negative_error, "mean absolute error, with a minus", has_units=True),
    "action_units": Objective(masked_binary_cross_entropy, unit_score, "mean F1"),
}


@dataclass
class Selection:
    """The epoch with the highest score of all candidates, of equal ones the first, and every score.

    Args:
        candidate: Hyper-parameters of the best one, by name.
        epoch: Its epoch, from 1.
        score: The objective's, on held-out images; minus infinity before the first, None where there are no such.
        history: Score after each epoch, by candidate in words; fewer than epochs of one that diverged.
    """

    candidate: dict[str, float] = field(default_factory=dict)
    epoch: int = 0
    score: float | None = -math.inf
    history: dict[str, list[float]] = field(default_factory=dict)

    def add(self, candidate: dict[str, float], epoch: int, score: float, is_usable: bool = True) -> bool:
        """Note a score. Returns whether it is the best so far, of what is usable."""
        self.history.setdefault(in_words(candidate), []).append(score)
        is_best = is_usable and score > self.score
        if is_best:
            self.candidate, self.epoch, self.score = candidate, epoch, score
        return is_best

    def describe(self) -> dict[str, float | int | None]:
        """For results.json."""
        return {"score": self.score, **self.candidate, "epoch": self.epoch}


def in_words(candidate: Mapping[str, float]) -> str:
    """`learning rate 0.001, layer decay 0.7`."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in candidate.items())
