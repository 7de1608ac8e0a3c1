"""Fine-tuning: training of encoder and head end to end, with lower learning rates for lower layers."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from ..features_pcl import feature_parts
from ..modeling_pcl import PCLForHeadPoseEstimation
from ..precision import has_fast_bfloat16
from ..progress import progress
from .heads import Head
from .objectives import Objective, Selection, format_candidate

logger = logging.getLogger(__name__)

WEIGHT_DECAY = 0.05  # For AdamW, on all weights except biases.
# Share of the steps in which learning rates rise from zero; then they decay to zero along a cosine.
WARMUP_SHARE = 0.05

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def make_parameter_groups(model: Head, learning_rate: float, layer_decay: float) -> list[dict]:
    """Make AdamW's parameter groups, by layer: the head, the branches that it reads, and the stages of the trunk.

    Args:
        model: Model with a head. Parameters that the head does not use or that do not require a gradient are left out.
        learning_rate: Learning rate of the head.
        layer_decay: Factor of the learning rate from each layer to the one below it: the layer below the head has
            `learning_rate * layer_decay`.
    """
    head = model.regressor if isinstance(model, PCLForHeadPoseEstimation) else model.classifier
    parts = feature_parts(model.config.head_feature)
    branches = [getattr(model.pcl, f"{part}_branch") for part in parts if part != "trunk"]
    # From the head down. The branches are parallel, so they count as one layer.
    layers = [head, *([nn.ModuleList(branches)] if branches else []), *reversed(model.pcl.trunk.stages)]
    groups = []
    for depth, layer in enumerate(layers):
        trainable = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        weights = [parameter for parameter in trainable if parameter.dim() > 1]
        biases = [parameter for parameter in trainable if parameter.dim() == 1]
        for parameters, decay in ((weights, WEIGHT_DECAY), (biases, 0.0)):
            if parameters:
                groups.append({"params": parameters, "lr": learning_rate * layer_decay**depth, "weight_decay": decay})
    return groups


class _DivergenceError(Exception):
    """Raised when the loss or the logits of a candidate are not finite."""


@dataclass(frozen=True)
class Finetuning:
    """Fine-tuning with each combination of learning rate and layer decay; the best model is kept at its best epoch.

    Training computes in bfloat16 by autocast if the device has instructions for it. The held-out score is computed in
    float32, as the model will be used. With the same seed, models and batches, the result is the same; on a GPU, up to
    the order of summation.

    Args:
        train_batches: Maps an epoch, counted from 1, to its batches: images `(batch, 3, image_size, image_size)` uint8
            and targets `(batch, ...)`, as the objective's loss takes them. Batches without images are skipped.
        held_out_batches: Returns batches of the same kind. If they are the test set, the score is optimistic for new
            images.
        objective: Loss and score.
        seed: Seed of the choice of images that are mirrored.
        steps_per_epoch: Number of batches per epoch, at least 1.
        mirror_targets: Maps targets `(images, ...)` to those of the images flipped along the width. Each training image
            is flipped with probability 0.5.
        learning_rates: Candidates for the learning rate of the head, positive.
        layer_decays: Candidates for the factor of the learning rate from each layer to the one below it, in (0, 1].
        epochs: Passes over the images, at least 1.
    """

    train_batches: Callable[[int], Batches]
    held_out_batches: Callable[[], Batches]
    objective: Objective
    seed: int
    steps_per_epoch: int
    mirror_targets: Callable[[torch.Tensor], torch.Tensor]
    learning_rates: Sequence[float] = (1e-3, 3e-4)
    layer_decays: Sequence[float] = (1.0, 0.7)
    epochs: int = 20

    def run(self, make_model: Callable[[], Head]) -> tuple[Head, Selection]:
        """Train all candidates.

        Args:
            make_model: Returns a new model with the same weights each time, on the device for training.

        Returns:
            The best model, in eval mode, and the selection with its hyper-parameters and epoch.

        Raises:
            ValueError: If every candidate diverges.
        """
        selection, best_weights = Selection(), None
        for rate, decay in product(self.learning_rates, self.layer_decays):
            candidate = {"learning_rate": rate, "layer_decay": decay}
            selection.history[format_candidate(candidate)] = []
            model = make_model().to(memory_format=torch.channels_last)
            try:
                for epoch, score in enumerate(self._train(model, candidate), 1):
                    if selection.add(candidate, epoch, score):
                        best_weights = {
                            name: tensor.to("cpu", copy=True) for name, tensor in model.state_dict().items()
                        }
            except _DivergenceError as divergence:
                logger.warning("Learning rate %g with layer decay %g diverged: %s.", rate, decay, divergence)
        if best_weights is None:
            raise ValueError(f"Every candidate diverged; lower `--learning_rates`, {self.learning_rates}.")
        model.load_state_dict(best_weights)
        return model.eval(), selection

    def _train(self, model: Head, candidate: dict[str, float]) -> Iterator[float]:
        """Train a model, and yield its held-out score after each epoch."""
        steps = self.epochs * self.steps_per_epoch
        groups = make_parameter_groups(model, **candidate)
        optimizer = torch.optim.AdamW(groups, fused=True)
        schedule = get_cosine_schedule_with_warmup(optimizer, round(WARMUP_SHARE * steps), steps)
        generator = torch.Generator().manual_seed(self.seed)
        with progress(total=steps, desc=format_candidate(candidate), unit="step", leave=False) as bar:
            for epoch in range(1, self.epochs + 1):
                model.train()
                for images, targets in self.train_batches(epoch):
                    if len(images):
                        loss = self._step(model, optimizer, *self._mirror(images, targets, generator))
                        schedule.step()
                        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                        bar.update()
                yield self._score(model)

    def _mirror(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator):
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images, targets = images.clone(), targets.clone()  # The caller's tensors must not change.
        images[mirrored] = images[mirrored].flip(3)
        targets[mirrored] = self.mirror_targets(targets[mirrored])
        return images, targets

    def _step(self, model: Head, optimizer: torch.optim.Optimizer, images, targets) -> float:
        optimizer.zero_grad()
        device = model.device.type
        with torch.autocast(device, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            logits = _compute_logits(model, images)
        loss = self.objective.loss(logits.float(), targets.to(model.device))
        loss.backward()
        optimizer.step()
        value = loss.item()  # Read last, because it waits for the device.
        if not math.isfinite(value):
            raise _DivergenceError(f"the training loss is {value}")
        return value

    @torch.no_grad()
    def _score(self, model: Head) -> float:
        model.eval()
        batches = [(_compute_logits(model, images).cpu(), targets) for images, targets in self.held_out_batches()]
        logits, targets = (torch.cat(parts) for parts in zip(*batches))
        score = self.objective.score(logits, targets)
        # The score alone does not suffice: an accuracy is finite even if logits are not.
        if not logits.isfinite().all() or not math.isfinite(score):
            raise _DivergenceError(f"the logits of the held-out images are not finite, or their score {score}")
        return score


def _compute_logits(model: Head, images: torch.Tensor) -> torch.Tensor:
    pixel_values = images.to(model.device, memory_format=torch.channels_last).float() / 255
    return model(pixel_values, return_dict=True).logits
