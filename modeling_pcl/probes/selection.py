"""Which candidate is kept, at which of its epochs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Selection:
    """The epoch with the highest score of all candidates, of equal ones the first, and every score.

    Args:
        candidate: Hyper-parameters of the best one, by name.
        epoch: Its epoch, from 1.
        score: The objective's, on held-out images; minus infinity before the first.
        history: Score after each epoch, by candidate in words; fewer than epochs of one that diverged.
    """

    candidate: dict[str, float] = field(default_factory=dict)
    epoch: int = 0
    score: float = -math.inf
    history: dict[str, list[float]] = field(default_factory=dict)

    def add(self, candidate: dict[str, float], epoch: int, score: float, is_usable: bool = True) -> bool:
        """Note a score. Returns whether it is the best so far, of what is usable."""
        self.history.setdefault(in_words(candidate), []).append(score)
        is_best = is_usable and score > self.score
        if is_best:
            self.candidate, self.epoch, self.score = candidate, epoch, score
        return is_best


def in_words(candidate: Mapping[str, float]) -> str:
    """`learning rate 0.001, layer decay 0.7`."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in candidate.items())
