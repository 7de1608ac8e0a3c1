"""Linear probes: linear layers trained on features that stay as they are, in memory."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from sklearn.metrics import precision_recall_curve
from torch.nn import functional as F

from ..progress import progress
from .feature_cache import ShardedFeatures
from .objectives import Objective, Selection

MOMENTUM, EPS = 0.1, 1e-5  # torch's defaults for batch norm


@dataclass(frozen=True)
class LinearRecipe:
    """How a linear probe is trained.

    Args:
        optimizer: `"adam"` without weight decay, or `"adamw"` with torch's default of 0.01.
        learning_rates: Candidates, trained side by side on the same batches; the best on held-out data is kept.
        batch_size: Images a step.
        batch_norm: Whether BatchNorm1d stands before the linear layer.
        one_scale: Whether the batch norm divides all features by one number, their common spread, and not each by its
            own. Features that hardly vary among the training images vary more in images of another kind, where, divided
            by their own spread, they outweigh all others.
        cosine: Whether the learning rate falls to zero along a cosine.
        epochs: Passes over the features.
    """

    optimizer: Literal["adam", "adamw"]
    learning_rates: tuple[float, ...]
    batch_size: int
    batch_norm: bool
    cosine: bool
    epochs: int = 300
    one_scale: bool = False

    def with_search(self) -> "LinearRecipe":
        """This recipe with batch norm, and a tenth and a hundredth of its learning rate as further candidates."""
        (rate,) = self.learning_rates
        return replace(self, learning_rates=(rate, rate / 10, rate / 100), batch_norm=True)


# Of action units the optimizer is not published, and other numbers are not probed there; they have that of head pose.
_OF_HEAD_POSE = LinearRecipe("adamw", (1e-3,), batch_size=128, batch_norm=True, cosine=False)
PUBLISHED = {
    "expression": LinearRecipe("adam", (1e-2,), batch_size=256, batch_norm=False, cosine=True),
    **dict.fromkeys(("head_pose", "regression", "action_units"), _OF_HEAD_POSE),
}


@dataclass(frozen=True)
class Examples:
    """Features with targets.

    Args:
        features: `(images, dim)`, any floating dtype, memory-mapped if need be.
        targets: `(images, ...)`, what the objective's loss takes.
        rows: Which rows of both count, `(rows,)` int64; None takes all.
    """

    features: torch.Tensor | ShardedFeatures
    targets: torch.Tensor
    rows: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets if self.rows is None else self.rows)

    def read(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features in float32 and targets of some of them."""
        rows = places if self.rows is None else self.rows[places]
        return self.features[rows].float(), self.targets[rows]

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One pass in random order. A last batch of one is left out, since batch norm has no spread of it."""
        for places in torch.randperm(len(self), generator=generator).split(batch_size):
            if len(places) > 1:
                yield self.read(places)


@dataclass(frozen=True)
class LinearProbe:
    """A linear layer on raw features: what they were normalised by is folded in.

    Args:
        weight: `(outputs, dim)` float32.
        bias: `(outputs,)` float32.
        selection: The learning rate and the epoch that were kept.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    selection: Selection

    def compute_logits(self, features: torch.Tensor) -> torch.Tensor:
        """`(images, outputs)` float32 of features `(images, dim)`, any floating dtype."""
        return F.linear(features.float(), self.weight, self.bias)


def train_linear(
    train: Examples,
    held_out: Examples,
    outputs: int,
    objective: Objective,
    recipe: LinearRecipe,
    seed: int = 0,
    description: str = "linear",
) -> LinearProbe:
    """Train a linear layer for each learning rate and keep the best one at its best epoch.

    Args:
        train: At least two examples.
        held_out: What the epoch and the learning rate are chosen on. If that is the test set, the score is no estimate
            for new images.
        outputs: Classes, units or angles.
        objective: Loss and score.
        recipe: Optimizer and candidates.
        seed: Of the initial weights and the order of the examples.
        description: Of the progress bar.

    Raises:
        ValueError: If there are fewer than two examples to train on or none to choose on, or every candidate diverges.
    """
    if len(train) < 2 or len(held_out) < 1:
        raise ValueError(f"A linear probe needs 2 examples and 1 held out, got {len(train)} and {len(held_out)}.")
    generator = torch.Generator().manual_seed(seed)
    heads = _CandidateHeads(train.features.shape[1], outputs, recipe, generator)
    if objective.has_units:  # A step is then as large in any unit.
        _, targets = train.read(torch.arange(len(train)))
        heads.mean, heads.spread = targets.mean(dim=0), targets.std(dim=0)
    groups = [{"params": list(head.values()), "lr": rate} for head, rate in zip(heads.heads, recipe.learning_rates)]
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer](groups, fused=True)
    steps = recipe.epochs * math.ceil(len(train) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps if recipe.cosine else math.inf)
    held_features, held_targets = held_out.read(torch.arange(len(held_out)))
    selection, kept = Selection(), None
    bar = progress(range(1, recipe.epochs + 1), desc=description, unit="epoch", leave=False)
    for epoch in bar:
        for features, targets in train.batches(recipe.batch_size, generator):
            optimizer.zero_grad()
            sum(objective.loss(logits, targets) for logits in heads(features)).backward()
            optimizer.step()
            schedule.step()
        for rate, (weight, bias) in zip(recipe.learning_rates, heads.fold_batch_norm()):
            score = objective.score(F.linear(held_features, weight, bias), held_targets)
            if selection.add({"learning_rate": rate}, epoch, score, is_usable=bool(weight.isfinite().all())):
                kept = LinearProbe(weight.clone(), bias.clone(), selection)
        bar.set_postfix(best=f"{selection.score:.4f}")
    if kept is None:
        raise ValueError("Every candidate of the linear probe diverged; lower its learning rates.")
    return kept


class _CandidateHeads:
    """Linear layers on the same features, one a learning rate, computed by one matrix product.

    Attributes:
        heads: Parameters of each, by name.
        mean, spread: `(outputs,)`; the layers' outputs are so many spreads from the mean.
    """

    def __init__(self, dim: int, outputs: int, recipe: LinearRecipe, generator: torch.Generator):
        self.batch_norm, self.one_scale = recipe.batch_norm, recipe.one_scale
        bound = 1 / math.sqrt(dim)  # torch's default for linear layers
        weight, bias = ((2 * torch.rand(shape, generator=generator) - 1) * bound for shape in ((outputs, dim), outputs))
        first = {"weight": weight, "bias": bias}
        if recipe.batch_norm:
            first |= {"scale": torch.ones(dim), "shift": torch.zeros(dim)}
        self.heads = [
            {name: value.clone().requires_grad_() for name, value in first.items()} for _ in recipe.learning_rates
        ]
        self.mean, self.spread = torch.zeros(outputs), torch.ones(outputs)
        self.batches, self.running_mean, self.running_var = 0, torch.zeros(dim), torch.ones(dim)

    def __call__(self, features: torch.Tensor) -> Sequence[torch.Tensor]:
        """Logits `(batch, outputs)` of each candidate, in training mode."""
        if self.batch_norm:
            self.batches += 1
            # Differs from torch: the first batches count alike, so that few steps, too, give the features' statistics.
            features = self._normalise(features, max(MOMENTUM, 1 / self.batches))
        heads = [self._merge_affine(head) for head in self.heads]
        # One product for all candidates: reading the features is what takes the time.
        weight, bias = (torch.cat(parts) for parts in zip(*heads))
        return F.linear(features, weight, bias).chunk(len(heads), dim=1)

    def _normalise(self, features: torch.Tensor, momentum: float) -> torch.Tensor:
        if not self.one_scale:
            return F.batch_norm(features, self.running_mean, self.running_var, training=True, momentum=momentum)
        mean = features.mean(dim=0)
        variance = (features - mean).square().mean()
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance.expand_as(self.running_var), momentum)
        return (features - mean) * (variance + EPS).rsqrt()

    def _merge_affine(self, head: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The linear layer with the scale and shift of its batch norm, in the targets' units."""
        weight, bias = head["weight"], head["bias"]
        if self.batch_norm:
            weight, bias = weight * head["scale"], bias + weight @ head["shift"]
        return weight * self.spread[:, None], bias * self.spread + self.mean

    @torch.no_grad()
    def fold_batch_norm(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Weight and bias on raw features of each candidate, in evaluation mode."""
        for head in self.heads:
            weight, bias = self._merge_affine(head)
            if self.batch_norm:
                weight = weight * (self.running_var + EPS).rsqrt()
                bias = bias - weight @ self.running_mean
            yield weight, bias


def tune_thresholds(probe: LinearProbe, held_out: Examples) -> LinearProbe:
    """The probe with a bias such that 0.5 is each unit's threshold of the best F1 on held-out images.

    A unit that is active in none of them keeps its bias.

    Args:
        probe: Of several units.
        held_out: With targets `(images, units)`, 1, 0 or NaN where not known.
    """
    features, targets = held_out.read(torch.arange(len(held_out)))
    logits, targets = probe.compute_logits(features).numpy(), targets.numpy()
    bias = probe.bias.clone()
    for unit in range(targets.shape[1]):
        known = ~np.isnan(targets[:, unit])
        active = targets[known, unit] == 1
        if active.any():
            bias[unit] -= find_best_f1_threshold(active, logits[known, unit])
    return replace(probe, bias=bias)


def find_best_f1_threshold(active: np.ndarray, logits: np.ndarray) -> float:
    """The number half way to the next lower logit, from which on saying "active" gives the best F1.

    Args:
        active: `(images,)` booleans, one at least true.
        logits: `(images,)`.
    """
    precision, recall, levels = precision_recall_curve(active, logits)
    scores = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(scores[:-1]))  # The last point of the curve has no threshold.
    return float(levels[best] if best == 0 else (levels[best] + levels[best - 1]) / 2)
