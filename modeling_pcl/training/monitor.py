"""Reporting of losses during training to the progress bar and the trackers, and checks that values are finite."""

import time

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from ..configuration_pcl import OBJECTIVES
from ..progress import progress

TERMS_SHOWN = {f"{name}_loss" for name in OBJECTIVES}


class Monitor:
    """Collect the losses of all iterations on the device, and transfer them only when they are reported.

    Args:
        accelerator: Accelerator whose trackers get the values, averaged over its processes.
        steps: Iterations of the whole run.
        start: Iteration at which the run starts or resumes.
        images_per_step: Images per iteration, over all processes.
    """

    def __init__(self, accelerator: Accelerator, steps: int, start: int, images_per_step: int):
        self.accelerator, self.images_per_step = accelerator, images_per_step
        self.pending: list[tuple[int, dict[str, torch.Tensor]]] = []
        self.bar = progress(
            desc="Training", total=steps, initial=start, unit="step", disable=not accelerator.is_main_process
        )
        self.clock = time.perf_counter()

    def add(self, step: int, terms: dict[str, torch.Tensor]):
        """Add the losses of iteration `step`, counted from 1, without waiting for the device."""
        self.pending.append((step, terms))
        self.bar.update()

    def flush(self, learning_rate: float) -> dict[str, float]:
        """Average the losses since the last call over iterations and processes, and report them.

        Args:
            learning_rate: Current learning rate, for the trackers.

        Returns:
            Mean of each loss by name.

        Raises:
            FloatingPointError: If a loss is not finite. The message names the first such iteration and loss.
        """
        if not self.pending:
            return {}
        names = list(self.pending[0][1])
        # One transfer for all iterations: reading each loss would make the host wait for every step.
        values = torch.stack([torch.stack([terms[name].float() for name in names]) for _, terms in self.pending])
        values = self.accelerator.reduce(values, reduction="mean").cpu()  # (iterations, terms)
        steps, self.pending = [step for step, _ in self.pending], []
        self._check_finite(values, steps, names)
        means = dict(zip(names, values.mean(dim=0).tolist()))
        seconds, self.clock = time.perf_counter() - self.clock, time.perf_counter()
        rate = len(steps) * self.images_per_step / seconds
        objectives = {name.removesuffix("_loss"): f"{means[name]:.3f}" for name in names if name in TERMS_SHOWN}
        self.bar.set_postfix(objectives | {"images/s": f"{rate:.0f}"}, refresh=False)
        self.accelerator.log(means | {"learning_rate": learning_rate, "images_per_s": rate}, step=steps[-1])
        return means

    def _check_finite(self, values: torch.Tensor, steps: list[int], names: list[str]):
        if values.isfinite().all():
            return
        row, column = (~values.isfinite()).nonzero()[0].tolist()
        raise FloatingPointError(f"at step {steps[row]} `{names[column]}` is {values[row, column].item()}")


def check_finite_weights(model: torch.nn.Module, step: int):
    """Check that all weights are finite. If they are sharded, all processes must call this.

    Raises:
        FloatingPointError: If a weight is not finite. The message names the first such parameter.
    """
    # The sum of a parameter is finite only if all its entries are, and one transfer reads all sums.
    sums = {name: parameter.detach().double().sum() for name, parameter in model.named_parameters()}
    full_sums = [value.full_tensor() if isinstance(value, DTensor) else value for value in sums.values()]
    for name, is_finite in zip(sums, torch.stack(full_sums).isfinite().tolist()):
        if not is_finite:
            raise FloatingPointError(f"after step {step} the weights `{name}` are not finite")
