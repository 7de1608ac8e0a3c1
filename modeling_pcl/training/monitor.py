"""What a run tells about itself: progress bar, trackers, and the stop at a loss that is not finite."""

import time

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from ..configuration_pcl import OBJECTIVES
from ..progress import progress

TERMS_SHOWN = {f"{name}_loss" for name in OBJECTIVES}


class Monitor:
    """Collects every iteration's terms on the device and reads them only when they are to be shown.

    Args:
        accelerator: Its trackers get the values; its processes' terms are averaged.
        steps: Iterations of the whole run.
        start: Iteration it starts or resumes at.
        images_per_step: Images that one iteration takes, over all processes.
    """

    def __init__(self, accelerator: Accelerator, steps: int, start: int, images_per_step: int):
        self.accelerator, self.images_per_step = accelerator, images_per_step
        self.pending: list[tuple[int, dict[str, torch.Tensor]]] = []
        self.bar = progress(
            desc="Training", total=steps, initial=start, unit="step", disable=not accelerator.is_main_process
        )
        self.clock = time.perf_counter()

    def add(self, step: int, terms: dict[str, torch.Tensor]):
        """Take the terms of iteration `step`, counted from 1, without waiting for the device."""
        self.pending.append((step, terms))
        self.bar.update()

    def flush(self, learning_rate: float) -> dict[str, float]:
        """Average the terms since the last call over iterations and processes; show and track them.

        Raises:
            FloatingPointError: Naming the first iteration and term that is not finite.
        """
        if not self.pending:
            return {}
        names = list(self.pending[0][1])
        # One transfer from the device for all iterations since the last; reading each loss would wait for each step.
        values = torch.stack([torch.stack([terms[name].float() for name in names]) for _, terms in self.pending])
        values = self.accelerator.reduce(values, reduction="mean").cpu()  # (iterations, terms)
        steps, self.pending = [step for step, _ in self.pending], []
        self._check_finite(values, steps, names)
        means = dict(zip(names, values.mean(dim=0).tolist()))
        seconds, self.clock = time.perf_counter() - self.clock, time.perf_counter()
        rate = len(steps) * self.images_per_step / seconds
        shown = {name.removesuffix("_loss"): f"{means[name]:.3f}" for name in names if name in TERMS_SHOWN}
        self.bar.set_postfix(shown | {"images/s": f"{rate:.0f}"}, refresh=False)
        self.accelerator.log(means | {"learning_rate": learning_rate, "images_per_s": rate}, step=steps[-1])
        return means

    def _check_finite(self, values: torch.Tensor, steps: list[int], names: list[str]):
        if values.isfinite().all():
            return
        row, column = (~values.isfinite()).nonzero()[0].tolist()
        raise FloatingPointError(f"at step {steps[row]} `{names[column]}` is {values[row, column].item()}")


def check_finite_weights(model: torch.nn.Module, step: int):
    """Refuse to go on with weights that are not finite. Where they are in shards, every process must call it.

    Raises:
        FloatingPointError: Naming the first such parameter.
    """
    sums = {name: parameter.detach().double().sum() for name, parameter in model.named_parameters()}
    wholes = [value.full_tensor() if isinstance(value, DTensor) else value for value in sums.values()]
    for name, is_finite in zip(sums, torch.stack(wholes).isfinite().tolist()):
        if not is_finite:
            raise FloatingPointError(f"after step {step} the weights `{name}` are not finite")
