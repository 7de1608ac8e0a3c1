"""Thresholds of several units, chosen on held-out images and folded into the head's bias."""

import dataclasses

import numpy as np
import torch
from sklearn.metrics import precision_recall_curve

from .linear import Examples, LinearProbe


def with_best_thresholds(probe: LinearProbe, held_out: Examples) -> LinearProbe:
    """The probe with a bias such that 0.5 is each unit's threshold of the best F1 on held-out images.

    A unit that is active in none of them keeps its bias.

    Args:
        probe: Of several units.
        held_out: With targets `(images, units)`, 1, 0 or NaN where not known.
    """
    features, targets = held_out.at(torch.arange(len(held_out)))
    logits, targets = probe.logits(features).numpy(), targets.numpy()
    bias = probe.bias.clone()
    for unit in range(targets.shape[1]):
        known = ~np.isnan(targets[:, unit])
        active = targets[known, unit] == 1
        if active.any():
            bias[unit] -= best_f1_threshold(active, logits[known, unit])
    return dataclasses.replace(probe, bias=bias)


def best_f1_threshold(active: np.ndarray, logits: np.ndarray) -> float:
    """The number half way to the next lower logit, from which on saying "active" gives the best F1.

    Args:
        active: `(images,)` booleans, one at least true.
        logits: `(images,)`.
    """
    precision, recall, levels = precision_recall_curve(active, logits)
    scores = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(scores[:-1]))
    return float(levels[best] if best == 0 else (levels[best] + levels[best - 1]) / 2)
