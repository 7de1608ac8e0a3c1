"""Fine-tuning: encoder and head trained end to end, layers near the pixels more slowly than those near the head."""

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
from ..progress import progress
from .heads import Head
from .objectives import Objective, Selection, format_candidate

logger = logging.getLogger(__name__)

WEIGHT_DECAY = 0.05  # AdamW's, of all weights but the biases.
WARMUP_SHARE = 0.05  # Of all steps, in which the rates rise from zero. Then they fall to zero along a cosine.

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def make_parameter_groups(model: Head, learning_rate: float, layer_decay: float) -> list[dict]:
    """AdamW's parameter groups. The layers are the head, the branch or branches that it reads, and the trunk's stages.

    Args:
        model: What its head does not read, and what does not require a gradient, is in no group.
        learning_rate: Of the head.
        layer_decay: Factor of the rate from each layer to the one below it: the head's neighbour has
            `learning_rate * layer_decay`.
    """
    head = model.regressor if isinstance(model, PCLForHeadPoseEstimation) else model.classifier
    parts = feature_parts(model.config.head_feature)
    branches = [getattr(model.pcl, f"{part}_branch") for part in parts if part != "trunk"]
    # From the head down; the branches lie side by side, and so are one layer.
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
    """A candidate's numbers are not finite any more."""


@dataclass(frozen=True)
class Finetuning:
    """Training of a whole model for each learning rate and layer decay, of which the best is kept at its best epoch.

    Training computes in bfloat16 by autocast; the held-out score is of the model in float32, as it will be run. With
    one seed, the same models and the same batches the result is the same, on a GPU up to the order of its sums.

    Args:
        train_batches: From an epoch, counted from 1, to its batches: images `(batch, 3, image_size, image_size)` uint8
            with targets `(batch, ...)`, what the objective's loss takes. A batch without images makes no step.
        held_out_batches: Gives batches of the same kind. If they are the test set, the score is no estimate for new
            images.
        objective: Loss and score.
        seed: Of which images are mirrored.
        steps_per_epoch: How many batches each epoch has, at least 1.
        mirror_targets: From targets `(images, ...)` to those of the images flipped along the width. Each training image
            is flipped with probability 0.5.
        learning_rates: Candidates, of the head, positive.
        layer_decays: Candidates, in (0, 1]: each layer's rate is this times the rate of the layer above it.
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
            make_model: Gives a new model with the same weights each time, on the device to train on.

        Returns:
            The best model, in eval mode, and which it is.

        Raises:
            ValueError: If every candidate diverges.
        """
        selection, weights = Selection(), None
        for rate, decay in product(self.learning_rates, self.layer_decays):
            candidate = {"learning_rate": rate, "layer_decay": decay}
            selection.history[format_candidate(candidate)] = []
            model = make_model().to(memory_format=torch.channels_last)
            try:
                for epoch, score in enumerate(self._train(model, candidate), 1):
                    if selection.add(candidate, epoch, score):
                        weights = {name: tensor.to("cpu", copy=True) for name, tensor in model.state_dict().items()}
            except _DivergenceError as divergence:
                logger.warning("Learning rate %g with layer decay %g diverged: %s.", rate, decay, divergence)
        if weights is None:
            raise ValueError(f"Every candidate diverged; lower `--learning_rates`, {self.learning_rates}.")
        model.load_state_dict(weights)
        return model.eval(), selection

    def _train(self, model: Head, candidate: dict[str, float]) -> Iterator[float]:
        """Train a model, and give its held-out score after each epoch."""
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
        images, targets = images.clone(), targets.clone()  # What the caller holds stays as it is.
        images[mirrored] = images[mirrored].flip(3)
        targets[mirrored] = self.mirror_targets(targets[mirrored])
        return images, targets

    def _step(self, model: Head, optimizer: torch.optim.Optimizer, images, targets) -> float:
        optimizer.zero_grad()
        with torch.autocast(model.device.type, torch.bfloat16):
            logits = _compute_logits(model, images)
        loss = self.objective.loss(logits.float(), targets.to(model.device))
        loss.backward()
        optimizer.step()
        value = loss.item()  # Last, since it waits for the device.
        if not math.isfinite(value):
            raise _DivergenceError(f"the training loss is {value}")
        return value

    @torch.no_grad()
    def _score(self, model: Head) -> float:
        model.eval()
        rows = [(_compute_logits(model, images).cpu(), targets) for images, targets in self.held_out_batches()]
        logits, targets = (torch.cat(parts) for parts in zip(*rows))
        score = self.objective.score(logits, targets)
        # An accuracy is a number even of logits that are none.
        if not logits.isfinite().all() or not math.isfinite(score):
            raise _DivergenceError(f"the logits of the held-out images are not finite, or their score {score}")
        return score


def _compute_logits(model: Head, images: torch.Tensor) -> torch.Tensor:
    pixel_values = images.to(model.device, memory_format=torch.channels_last).float() / 255
    return model(pixel_values, return_dict=True).logits
