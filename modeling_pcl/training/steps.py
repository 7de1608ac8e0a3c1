"""One iteration: which objectives share an optimizer step, and how they are weighted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator

BALANCED = ("face_contrast", "pose_contrast")  # The objectives that dynamic weight averaging is about.


def select_trained_parameters(model: torch.nn.Module, objectives: Sequence[str], is_encoder_frozen: bool = False):
    """Train exactly what some objective in use reaches, so that decay does not shrink the rest.

    Args:
        model: A `PCLForPreTraining`.
        objectives: Names out of `configuration_pcl.OBJECTIVES`.
        is_encoder_frozen: Whether the encoder stays as it is whatever reaches it.
    """
    model.pcl.trunk.requires_grad_(not is_encoder_frozen)
    used = set(objectives)
    for module, users in (
        (model.decoder, {"disentangling"}),
        (model.face_projection, {"face_contrast"}),
        (model.pose_projection, {"pose_contrast"}),
        (model.pcl.face_branch, set() if is_encoder_frozen else {"disentangling", "face_contrast"}),
        (model.pcl.pose_branch, set() if is_encoder_frozen else {"disentangling", "pose_contrast"}),
    ):
        module.requires_grad_(bool(used & users))


def give_zero_gradients(model: torch.nn.Module):
    """Start every trained parameter with a gradient of zeros.

    Differs from the paper: there a parameter has no gradient before its objective's first step, so that in the very
    first iteration decay does not act on it yet; a resumed run could not tell.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


@dataclass
class Stepper:
    """Makes the optimizer steps of an iteration.

    Args:
        accelerator: Gives autocast, loss scaling and gradient synchronisation.
        model: The prepared `PCLForPreTraining`.
        optimizer: The prepared optimizer.
        groups: Objectives that share an optimizer step: `[(a,), (b,), (c,)]` alternating, `[(a, b, c)]` joint.
        keep_zero_gradients: Leave gradients of zeros where an objective does not reach, instead of none.
        max_grad_norm: L2 norm to clip each step's gradient to; None does not clip.
    """

    accelerator: Accelerator
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    groups: list[tuple[str, ...]]
    keep_zero_gradients: bool = True
    max_grad_norm: float | None = None

    def step(
        self,
        make_inputs: Callable[[str, int | None], dict[str, torch.Tensor]],
        weights: Mapping[str, float],
        micro_batches: int = 1,
    ) -> dict[str, torch.Tensor]:
        """Make one optimizer step for each group.

        Of several micro-batches the gradients are averaged, but for the face contrast: its negatives are other images,
        and so it is computed once, over all of them; `PCLForPreTraining.images_at_once` bounds its memory.

        Args:
            make_inputs: From an objective and a micro-batch's index, None for all images, to keyword arguments of the
                model.
            weights: Factor of each objective's loss.
            micro_batches: How many there are before each optimizer step.

        Returns:
            Every term that the model returned, unweighted, mean over the micro-batches; detached, on the device.
        """
        terms = {}
        for group in self.groups:
            # torch 1.7, which the authors used, left zeros: momentum and decay of Adam then go on everywhere.
            self.optimizer.zero_grad(set_to_none=not self.keep_zero_gradients)
            passes = _passes(group, micro_batches)
            for number, (objectives, index) in enumerate(passes, 1):
                share = 1.0 if index is None else 1 / micro_batches
                inputs = {
                    name: value for objective in objectives for name, value in make_inputs(objective, index).items()
                }
                for name, value in self._backward(objectives, inputs, weights, share, is_last=number == len(passes)):
                    terms[name] = terms.get(name, 0.0) + share * value
            if self.max_grad_norm is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
            self.optimizer.step()
        return terms

    def _backward(self, objectives, inputs, weights, share: float, is_last: bool):
        # Gradients are sent once a step, with the last pass.
        with torch.enable_grad() if is_last else self.accelerator.no_sync(self.model):
            outputs = self.model(**inputs)
            loss = sum(weights[objective] * outputs[f"{objective}_loss"] for objective in objectives)
            self.accelerator.backward(share * loss)
        return [(name, value.detach()) for name, value in outputs.items() if name != "loss"]


def _passes(group: tuple[str, ...], micro_batches: int) -> list[tuple[tuple[str, ...], int | None]]:
    """The model's passes before an optimizer step: objectives, and which micro-batch, or None for all images."""
    if micro_batches == 1:
        return [(group, None)]
    # The mean of two batches' contrasts is not the contrast of both: its negatives would be half as many.
    apart = tuple(objective for objective in group if objective != "face_contrast")
    passes = [(apart, index) for index in range(micro_batches)] if apart else []
    return [*passes, (("face_contrast",), None)] if "face_contrast" in group else passes


def dynamic_weights(history: Sequence[Sequence[float]], temperature: float = 2.0) -> dict[str, float]:
    """Weigh the face and pose contrast by how fast each one falls, from the third epoch on.

    With r = L(t-1) / L(t-2) of the epoch means of the unweighted losses, the weights are 2 * softmax(r / 2): an
    objective whose loss falls more slowly weighs more.

    Args:
        history: Epoch means of the losses, in the order of `BALANCED`, of the last two epochs; fewer give 1 for both.
        temperature: Divides the ratios.

    Returns:
        The factor of each objective in the current epoch; they sum to their number.

    Source:
        Liu et al. 2019, End-to-end multi-task learning with attention; constants as in Liu et al. 2023.
    """
    if len(history) < 2 or any(loss == 0 for loss in history[0]):
        return dict.fromkeys(BALANCED, 1.0)
    before, last = torch.tensor(history, dtype=torch.float64)
    shares = torch.softmax(last / before / temperature, dim=0)
    return dict(zip(BALANCED, (len(BALANCED) * shares).tolist()))
