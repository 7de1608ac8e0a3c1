"""Linear probes: linear layers trained on fixed features."""

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
    """Recipe for training a linear probe.

    Args:
        optimizer: `"adam"` without weight decay, or `"adamw"`.
        learning_rates: Candidates, trained side by side on the same batches; the best on held-out data is kept.
        batch_size: Images per step.
        batch_norm: Whether a BatchNorm1d precedes the linear layer.
        one_scale: Whether the batch norm divides all features by one common spread instead of each by its own. Features
            that hardly vary among the training images vary more in images of another kind; divided by their own spread,
            they would dominate there.
        cosine: Whether the learning rate decays to zero along a cosine.
        epochs: Passes over the features.
        weight_decay: Weight decay of AdamW; the default is torch's.
    """

    optimizer: Literal["adam", "adamw"]
    learning_rates: tuple[float, ...]
    batch_size: int
    batch_norm: bool
    cosine: bool
    epochs: int = 300
    one_scale: bool = False
    weight_decay: float = 0.01

    def with_search(self) -> "LinearRecipe":
        """Return the recipe with batch norm, and also a tenth and a hundredth of its learning rate."""
        (rate,) = self.learning_rates
        return replace(self, learning_rates=(rate, rate / 10, rate / 100), batch_norm=True)


# The paper gives no optimizer for action units and does not probe other numbers: both use the recipe of head pose.
_OF_HEAD_POSE = LinearRecipe("adamw", (1e-3,), batch_size=128, batch_norm=True, cosine=False)
PUBLISHED = {
    "expression": LinearRecipe("adam", (1e-2,), batch_size=256, batch_norm=False, cosine=True),
    **dict.fromkeys(("head_pose", "regression", "action_units"), _OF_HEAD_POSE),
}


@dataclass(frozen=True)
class Examples:
    """Features with targets.

    Args:
        features: `(images, dim)`, any floating dtype, may be memory-mapped.
        targets: `(images, ...)`, as the objective's loss takes them.
        rows: Rows to use, `(rows,)` int64; None uses all.
    """

    features: torch.Tensor | ShardedFeatures
    targets: torch.Tensor
    rows: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets if self.rows is None else self.rows)

    def read(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read features, in float32, and targets of the examples at some positions."""
        rows = places if self.rows is None else self.rows[places]
        return self.features[rows].float(), self.targets[rows]

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield batches of one pass in random order.

        A last batch of a single example is left out, because batch norm cannot compute a spread from it.
        """
        for places in torch.randperm(len(self), generator=generator).split(batch_size):
            if len(places) > 1:
                yield self.read(places)


@dataclass(frozen=True)
class LinearProbe:
    """A linear layer on raw features; the normalisation of the features is folded in.

    Args:
        weight: `(outputs, dim)` float32.
        bias: `(outputs,)` float32.
        selection: The learning rate and the epoch that were chosen.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    selection: Selection

    def compute_logits(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the outputs of the layer.

        Args:
            features: `(images, dim)`, any floating dtype.

        Returns:
            `(images, outputs)` float32.
        """
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
    """Train a linear layer for each learning rate, and keep the best one at its best epoch.

    Args:
        train: At least two examples.
        held_out: Examples on which epoch and learning rate are chosen. If they are the test set, the score is
            optimistic for new images.
        outputs: Number of classes, units or angles.
        objective: Loss and score.
        recipe: Optimizer and candidates.
        seed: Seed of the initial weights and of the order of the examples.
        description: Label of the progress bar.

    Raises:
        ValueError: If there are fewer than two training examples or no held-out examples, or every candidate diverges.
    """
    if len(train) < 2 or len(held_out) < 1:
        raise ValueError(
            f"A linear probe needs 2 training examples and 1 held out, got {len(train)} and {len(held_out)}."
        )
    generator = torch.Generator().manual_seed(seed)
    heads = _CandidateHeads(train.features.shape[1], outputs, recipe, generator)
    if objective.has_units:  # Standardised targets make the step size independent of their unit.
        _, targets = train.read(torch.arange(len(train)))
        heads.mean, heads.spread = targets.mean(dim=0), targets.std(dim=0)
    groups = [{"params": list(head.values()), "lr": rate} for head, rate in zip(heads.heads, recipe.learning_rates)]
    if recipe.optimizer == "adam":
        optimizer = torch.optim.Adam(groups, fused=True)
    else:
        optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
    steps = recipe.epochs * math.ceil(len(train) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps if recipe.cosine else math.inf)
    held_out_features, held_out_targets = held_out.read(torch.arange(len(held_out)))
    selection, best_probe = Selection(), None
    bar = progress(range(1, recipe.epochs + 1), desc=description, unit="epoch", leave=False)
    for epoch in bar:
        for features, targets in train.batches(recipe.batch_size, generator):
            optimizer.zero_grad()
            sum(objective.loss(logits, targets) for logits in heads(features)).backward()
            optimizer.step()
            schedule.step()
        for rate, (weight, bias) in zip(recipe.learning_rates, heads.fold_batch_norm()):
            score = objective.score(F.linear(held_out_features, weight, bias), held_out_targets)
            if selection.add({"learning_rate": rate}, epoch, score, is_usable=bool(weight.isfinite().all())):
                best_probe = LinearProbe(weight.clone(), bias.clone(), selection)
        bar.set_postfix(best=f"{selection.score:.4f}")
    if best_probe is None:
        raise ValueError("Every candidate of the linear probe diverged; lower its learning rates.")
    return best_probe


class _CandidateHeads:
    """Linear layers on the same features, one per learning rate, computed by one matrix product.

    Attributes:
        heads: Parameters of each layer, by name.
        mean, spread: `(outputs,)`. The layers predict targets that are standardised by them.
    """

    def __init__(self, dim: int, outputs: int, recipe: LinearRecipe, generator: torch.Generator):
        self.batch_norm, self.one_scale = recipe.batch_norm, recipe.one_scale
        bound = 1 / math.sqrt(dim)  # torch's default for linear layers
        weight, bias = ((2 * torch.rand(shape, generator=generator) - 1) * bound for shape in ((outputs, dim), outputs))
        initial = {"weight": weight, "bias": bias}
        if recipe.batch_norm:
            initial |= {"scale": torch.ones(dim), "shift": torch.zeros(dim)}
        self.heads = [
            {name: value.clone().requires_grad_() for name, value in initial.items()} for _ in recipe.learning_rates
        ]
        self.mean, self.spread = torch.zeros(outputs), torch.ones(outputs)
        self.batches, self.running_mean, self.running_var = 0, torch.zeros(dim), torch.ones(dim)

    def __call__(self, features: torch.Tensor) -> Sequence[torch.Tensor]:
        """Compute the logits of each candidate, `(batch, outputs)`, in training mode."""
        if self.batch_norm:
            self.batches += 1
            # Differs from torch: the first batches have equal weight, so that a few steps give good running statistics.
            features = self._normalise(features, max(MOMENTUM, 1 / self.batches))
        heads = [self._merge_affine(head) for head in self.heads]
        # One product for all candidates, because reading the features takes most of the time.
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
        """Merge a linear layer with the scale and shift of its batch norm and the units of the targets."""
        weight, bias = head["weight"], head["bias"]
        if self.batch_norm:
            weight, bias = weight * head["scale"], bias + weight @ head["shift"]
        return weight * self.spread[:, None], bias * self.spread + self.mean

    @torch.no_grad()
    def fold_batch_norm(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield weight and bias on raw features for each candidate, in evaluation mode."""
        for head in self.heads:
            weight, bias = self._merge_affine(head)
            if self.batch_norm:
                weight = weight * (self.running_var + EPS).rsqrt()
                bias = bias - weight @ self.running_mean
            yield weight, bias


def tune_thresholds(probe: LinearProbe, held_out: Examples) -> LinearProbe:
    """Shift the bias so that a probability of 0.5 is each unit's threshold with the best F1 on held-out images.

    A unit that is active in none of them keeps its bias.

    Args:
        probe: Probe of one or several units.
        held_out: Examples with targets `(images, units)`: 1 for active, 0 for inactive, NaN for unknown.

    Returns:
        A probe with another bias.
    """
    features, targets = held_out.read(torch.arange(len(held_out)))
    logits, targets = probe.compute_logits(features).numpy(), targets.numpy()
    bias = probe.bias.clone()
    for unit in range(targets.shape[1]):
        is_known = ~np.isnan(targets[:, unit])
        active = targets[is_known, unit] == 1
        if active.any():
            bias[unit] -= find_best_f1_threshold(active, logits[is_known, unit])
    return replace(probe, bias=bias)


def find_best_f1_threshold(active: np.ndarray, logits: np.ndarray) -> float:
    """Find the threshold with the best F1, half way between two neighbouring logits.

    Args:
        active: `(images,)` booleans, at least one of them True.
        logits: `(images,)`.
    """
    precision, recall, thresholds = precision_recall_curve(active, logits)
    scores = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(scores[:-1]))  # The last point of the curve has no threshold.
    return float(thresholds[best] if best == 0 else (thresholds[best] + thresholds[best - 1]) / 2)
