"""The state of a run, and how it is saved to a checkpoint and loaded."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from ..files import report_open_errors
from .checkpoints import CheckpointFolder, read_state
from .sharding import FULL_STATE, gather_model
from .steps import BALANCED


@dataclass
class RunState:
    """The state of a run apart from weights, optimizer and loader.

    Args:
        step: Number of finished iterations.
        loss_history: Means of the contrastive losses in the last two epochs, see `compute_dynamic_weights`.
        epoch_sums: Sums of these losses in this process since the start of the epoch, `(2,)`.
    """

    step: int = 0
    loss_history: list[list[float]] = field(default_factory=list)
    epoch_sums: torch.Tensor = field(default_factory=lambda: torch.zeros(2))

    def add(self, terms: dict[str, torch.Tensor], steps_per_epoch: int, accelerator: Accelerator):
        """Count an iteration and add its losses; at the end of an epoch, append their means to `loss_history`."""
        self.step += 1
        names = [f"{name}_loss" for name in BALANCED]
        if not all(name in terms for name in names):
            return
        self.epoch_sums = self.epoch_sums.to(terms[names[0]].device)
        self.epoch_sums += torch.stack([terms[name].float() for name in names])
        if self.step % steps_per_epoch == 0:
            means = accelerator.reduce(self.epoch_sums, reduction="mean") / steps_per_epoch
            self.loss_history = [*self.loss_history, means.tolist()][-2:]
            self.epoch_sums = torch.zeros_like(self.epoch_sums)


@dataclass
class TrainingState:
    """The objects whose state a checkpoint holds. Checkpoints do not depend on whether the model is sharded.

    Args:
        accelerator: Accelerator of this process, which may hold a loss scaler.
        model: The `PCLForPreTraining`, not wrapped, sharded or not.
        processor: Image processor to save with the model.
        optimizer: The prepared optimizer.
        scheduler: The learning-rate schedule.
    """

    accelerator: Accelerator
    model: torch.nn.Module
    processor: object
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler

    def _get_shared_parts(self) -> dict:
        """Return the objects besides the optimizer whose state is the same in all processes."""
        parts = {"scheduler": self.scheduler, "scaler": self.accelerator.scaler}
        return {name: part for name, part in parts.items() if part is not None}

    def save(self, folder: CheckpointFolder, state: RunState, loader_position: dict, options: dict) -> Path | None:
        """Write a checkpoint; all processes must call this. Returns its path in the main process.

        Args:
            folder: Folder of the checkpoints.
            state: State of the run.
            loader_position: Position of this process's loader.
            options: All options by name, to compare with those of a resumed run.
        """
        accelerator, path = self.accelerator, folder.begin(state.step)
        random_states = _get_random_states()
        process_state = {"epoch_sums": state.epoch_sums.cpu(), "loader": loader_position, "random": random_states}
        # Each process writes its part; then the main process writes state.json, which completes the checkpoint.
        _save_part(process_state, path / f"process-{accelerator.process_index}.pt")
        model = gather_model(self.model)
        optimizer = get_optimizer_state_dict(self.model, self.optimizer.optimizer, options=FULL_STATE)
        final = None
        if accelerator.is_main_process:
            model.save_pretrained(path / "model")
            self.processor.save_pretrained(path / "model")
            parts = {name: part.state_dict() for name, part in self._get_shared_parts().items()}
            _save_part({"optimizer": optimizer} | parts, path / "optimizer.pt")
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            record = {"step": state.step, "processes": accelerator.num_processes, "options": options}
            final = folder.finish(state.step, record | {"loss_history": state.loss_history})
        accelerator.wait_for_everyone()
        return final

    def load(self, checkpoint: Path) -> tuple[RunState, dict]:
        """Load the state of a checkpoint, except for the weights, with which the model was opened.

        Returns:
            State of the run, and position of this process's loader.
        """
        parts = _open_part(checkpoint / "optimizer.pt")
        _set_optimizer_state(self.model, self.optimizer.optimizer, parts["optimizer"])
        for name, part in self._get_shared_parts().items():
            part.load_state_dict(parts[name])
        _set_learning_rates(self.optimizer, self.scheduler)
        process_state = _open_part(checkpoint / f"process-{self.accelerator.process_index}.pt")
        _set_random_states(process_state["random"])
        record = read_state(checkpoint)
        state = RunState(record["step"], record["loss_history"], process_state["epoch_sums"])
        return state, process_state["loader"]


def _save_part(content: dict, path: Path):
    """Save a file for `_open_part`.

    Raises:
        OSError: If the file cannot be written.
    """
    try:
        # To an open file: given a path, torch only reports `unexpected pos 576 vs 534` if the disk is full.
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _open_part(path: Path) -> dict:
    with report_open_errors(f"The checkpoint's file {path}"):  # Checkpoints without hashes are not checked before.
        # `weights_only`: a checkpoint may come from a stranger, and unpickling runs code.
        return torch.load(path, map_location="cpu", weights_only=True)


def _set_optimizer_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict):
    original_groups = [dict(group) for group in optimizer.param_groups]
    set_optimizer_state_dict(model, optimizer, state, options=FULL_STATE)
    # Adam's betas come back as a list. As a tuple, optimizer.pt of a resumed run has the same bytes as without a stop.
    for group, values in zip(optimizer.param_groups, original_groups):
        group.update({name: tuple(group[name]) for name, value in values.items() if isinstance(value, tuple)})


def _set_learning_rates(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LambdaLR):
    """Set the learning rates of the next step from the schedule of this run.

    The schedule in the checkpoint may have another length, and may have ended at 0 at this step.
    """
    factors = [schedule(scheduler.last_epoch) for schedule in scheduler.lr_lambdas]
    scheduler._last_lr = [base * factor for base, factor in zip(scheduler.base_lrs, factors)]
    for group, rate in zip(optimizer.param_groups, scheduler._last_lr):
        group["lr"] = rate


def check_same_run(checkpoint: Path, options: dict, processes: int, may_change: set[str]):
    """Check that a run can be resumed with these options and this number of processes.

    Raises:
        ValueError: If the number of processes or an option outside of `may_change` differs. The message names each
            option with both values.
    """
    record = read_state(checkpoint)
    if record["processes"] != processes:
        raise ValueError(
            f"{checkpoint} was written by {record['processes']} processes, this run has {processes}: launch as many, "
            "or start a new run with `--init_from` and its model folder."
        )
    changed = [
        f"`--{name}` was {record['options'].get(name)!r}, is {value!r}"
        for name, value in options.items()
        if name not in may_change and record["options"].get(name) != value
    ]
    if changed:
        raise ValueError(
            f"{checkpoint} belongs to a run with other options: {'; '.join(changed)}. Give the same options, or start "
            "a new run in another `--output_dir` with `--init_from` and its model folder."
        )


def _get_random_states() -> dict:
    """Return the states of Python's, numpy's and torch's global generators. Views and loaders have their own."""
    # As lists and tensors, which torch.load(weights_only=True) can read.
    version, words, python_position = random.getstate()
    name, keys, numpy_position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), python_position],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), numpy_position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _set_random_states(states: dict):
    version, words, python_position = states["python"]
    random.setstate((version, tuple(words), python_position))
    name, keys, numpy_position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), numpy_position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
