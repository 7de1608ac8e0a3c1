"""The optimizer steps of an iteration, and the weights of the objectives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator

BALANCED = ("face_contrast", "pose_contrast")  # The objectives that dynamic weight averaging weighs.


def select_trained_parameters(model: torch.nn.Module, objectives: Sequence[str], is_encoder_frozen: bool = False):
    """Set `requires_grad` for exactly the parameters that the objectives reach, so that decay does not shrink others.

    Args:
        model: A `PCLForPreTraining`.
        objectives: Names in `configuration_pcl.OBJECTIVES`.
        is_encoder_frozen: Whether to exclude the encoder.
    """
    model.pcl.trunk.requires_grad_(not is_encoder_frozen)
    objectives = set(objectives)
    turned = set() if model.turn_head is None else {"face_contrast"}
    for module, users in (
        (model.decoder, {"disentangling"}),
        (model.face_projection, {"face_contrast"}),
        (model.pose_projection, {"pose_contrast"}),
        (model.pcl.face_branch, set() if is_encoder_frozen else {"disentangling", "face_contrast"}),
        (model.pcl.pose_branch, set() if is_encoder_frozen else {"disentangling", "pose_contrast"} | turned),
    ):
        module.requires_grad_(bool(objectives & users))
    if model.turn_head is not None:
        model.turn_head.requires_grad_(bool(objectives & turned))


def give_zero_gradients(model: torch.nn.Module):
    """Give every trained parameter a gradient of zeros before the first step.

    Differs from the paper: in the authors' code a parameter has no gradient before the first step of its objective, so
    that decay does not act on it in the very first iteration. A resumed run could not reproduce that.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


@dataclass
class Stepper:
    """Make the optimizer steps of an iteration.

    Args:
        accelerator: Accelerator for autocast, loss scaling and gradient synchronisation.
        model: The prepared `PCLForPreTraining`.
        optimizer: The prepared optimizer.
        groups: Objectives that share an optimizer step: `[(a,), (b,), (c,)]` for the alternating schedule,
            `[(a, b, c)]` for the joint one.
        keep_zero_gradients: Whether parameters that an objective does not reach have gradients of zeros instead of
            none.
        max_grad_norm: L2 norm to which the gradient of each step is clipped; None does not clip.
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

        Gradients are averaged over the micro-batches, except for the face contrast: its negatives are the other images,
        so it is computed once over all micro-batches. `PCLForPreTraining.images_at_once` bounds its memory.

        Args:
            make_inputs: Function from an objective and the index of a micro-batch, or None for all images, to keyword
                arguments of the model.
            weights: Weight of the loss of each objective.
            micro_batches: Number of micro-batches per optimizer step.

        Returns:
            All losses of the model by name, unweighted, averaged over the micro-batches, detached, on the device.
        """
        terms = {}
        for group in self.groups:
            # torch 1.7, which the authors used, set gradients to zero and not to None, so that Adam's momentum and
            # decay also acted on parameters that the current objective does not reach.
            self.optimizer.zero_grad(set_to_none=not self.keep_zero_gradients)
            passes = _plan_passes(group, micro_batches)
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
        # Gradients are synchronised once per step, in the last pass.
        with torch.enable_grad() if is_last else self.accelerator.no_sync(self.model):
            outputs = self.model(**inputs)
            loss = sum(weights[objective] * outputs[f"{objective}_loss"] for objective in objectives)
            self.accelerator.backward(share * loss)
        return [(name, value.detach()) for name, value in outputs.items() if name != "loss"]


def _plan_passes(group: tuple[str, ...], micro_batches: int) -> list[tuple[tuple[str, ...], int | None]]:
    """Plan the forward passes before an optimizer step.

    Returns:
        For each pass its objectives, and the index of its micro-batch, or None for all images.
    """
    if micro_batches == 1:
        return [(group, None)]
    # The mean of the face contrasts of two micro-batches would have half as many negatives as one over both.
    averaged = tuple(objective for objective in group if objective != "face_contrast")
    passes = [(averaged, index) for index in range(micro_batches)] if averaged else []
    return [*passes, (("face_contrast",), None)] if "face_contrast" in group else passes


def compute_dynamic_weights(history: Sequence[Sequence[float]], temperature: float = 2.0) -> dict[str, float]:
    """Weigh the face and the pose contrast by how fast their losses fall, from the third epoch on.

    With r = L(t-1) / L(t-2) of the epoch means of the unweighted losses, the factors are 2 * softmax(r / 2): the
    objective whose loss falls more slowly gets the larger factor.

    Args:
        history: Epoch means of the losses in the last two epochs, in the order of `BALANCED`. With fewer than two
            epochs, both factors are 1.
        temperature: Divides the ratios r.

    Returns:
        Factor of each objective in the current epoch. The factors sum to the number of objectives.

    Source:
        Liu et al. 2019, End-to-end multi-task learning with attention; constants as in Liu et al. 2023.
    """
    if len(history) < 2 or any(loss == 0 for loss in history[0]):
        return dict.fromkeys(BALANCED, 1.0)
    earlier, latest = torch.tensor(history, dtype=torch.float64)
    shares = torch.softmax(latest / earlier / temperature, dim=0)
    return dict(zip(BALANCED, (len(BALANCED) * shares).tolist()))
