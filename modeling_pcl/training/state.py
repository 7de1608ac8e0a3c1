"""Where a run stands, and its way into a checkpoint and back."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from ..files import opening
from .checkpoints import CheckpointFolder, read_state
from .sharding import WHOLE, whole_model
from .steps import BALANCED


@dataclass
class RunState:
    """What changes from one iteration to the next, beside weights and optimizer.

    Args:
        step: Iterations done.
        loss_history: Means of the contrastive losses in the last two epochs, as for `dynamic_weights`.
        epoch_sums: This process's sums of these losses since the epoch began, `(2,)`.
    """

    step: int = 0
    loss_history: list[list[float]] = field(default_factory=list)
    epoch_sums: torch.Tensor = field(default_factory=lambda: torch.zeros(2))

    def add(self, terms: dict[str, torch.Tensor], steps_per_epoch: int, accelerator: Accelerator):
        """Count an iteration; at the end of an epoch keep the losses' means."""
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
    """The objects whose state a checkpoint holds: as one process would write it, whether the model is in shards or not.

    Args:
        accelerator: Its processes write together; it may hold a loss scaler.
        model: The `PCLForPreTraining` itself, in shards or not.
        processor: Image processor to save beside the model.
        optimizer: The prepared optimizer.
        scheduler: The learning-rate schedule.
    """

    accelerator: Accelerator
    model: torch.nn.Module
    processor: object
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler

    def _plain_parts(self) -> dict:
        """What is the same in every process."""
        parts = {"scheduler": self.scheduler, "scaler": self.accelerator.scaler}
        return {name: part for name, part in parts.items() if part is not None}

    def save(self, folder: CheckpointFolder, state: RunState, loader_position: dict, options: dict) -> Path | None:
        """Write a checkpoint; every process must call it. Returns its path in the main process."""
        accelerator, path = self.accelerator, folder.begin(state.step)
        process_state = {"epoch_sums": state.epoch_sums.cpu(), "loader": loader_position, "random": _random_states()}
        # Each process writes its own part; state.json, which makes the checkpoint count, comes last and from one.
        _save_part(process_state, path / f"process-{accelerator.process_index}.pt")
        complete = whole_model(self.model)
        optimizer = get_optimizer_state_dict(self.model, self.optimizer.optimizer, options=WHOLE)
        final = None
        if accelerator.is_main_process:
            complete.save_pretrained(path / "model")
            self.processor.save_pretrained(path / "model")
            parts = {name: part.state_dict() for name, part in self._plain_parts().items()}
            _save_part({"optimizer": optimizer} | parts, path / "optimizer.pt")
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            record = {"step": state.step, "processes": accelerator.num_processes, "options": options}
            final = folder.finish(state.step, record | {"loss_history": state.loss_history})
        accelerator.wait_for_everyone()
        return final

    def load(self, checkpoint: Path) -> tuple[RunState, dict]:
        """Take over a checkpoint's state, but for the weights, which the model was made with.

        Returns:
            Where the run stands, and the loader's position.
        """
        parts = _open_part(checkpoint / "optimizer.pt")
        _set_optimizer_state(self.model, self.optimizer.optimizer, parts["optimizer"])
        for name, part in self._plain_parts().items():
            part.load_state_dict(parts[name])
        _set_rates(self.optimizer, self.scheduler)
        process_state = _open_part(checkpoint / f"process-{self.accelerator.process_index}.pt")
        _set_random_states(process_state["random"])
        record = read_state(checkpoint)
        state = RunState(record["step"], record["loss_history"], process_state["epoch_sums"])
        return state, process_state["loader"]


def _save_part(content: dict, path: Path):
    """Save what `_open_part` opens.

    Raises:
        OSError: If it cannot be written.
    """
    try:
        # To an open file: of a path torch says only `unexpected pos 576 vs 534` where the disk is full.
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _open_part(path: Path) -> dict:
    with opening(f"The checkpoint's file {path}"):  # Of one without hashes damage is seen only here.
        # `weights_only`: a checkpoint may come from anywhere, and unpickling runs code.
        return torch.load(path, map_location="cpu", weights_only=True)


def _set_optimizer_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict):
    before = [dict(group) for group in optimizer.param_groups]
    set_optimizer_state_dict(model, optimizer, state, options=WHOLE)
    # Adam's betas come back as a list: without this a resumed run's optimizer.pt would have other bytes.
    for group, values in zip(optimizer.param_groups, before):
        group.update({name: tuple(group[name]) for name, value in values.items() if isinstance(value, tuple)})


def _set_rates(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LambdaLR):
    """Take the rates of the next step from this run's schedule: one of other length may have ended at 0 here."""
    shares = [shape(scheduler.last_epoch) for shape in scheduler.lr_lambdas]
    scheduler._last_lr = [base * share for base, share in zip(scheduler.base_lrs, shares)]
    for group, rate in zip(optimizer.param_groups, scheduler._last_lr):
        group["lr"] = rate


def check_same_run(checkpoint: Path, options: dict, processes: int, may_change: set[str]):
    """Refuse to resume with options under which the run would not be the same.

    Raises:
        ValueError: Naming each option, its value then and now.
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


def _random_states() -> dict:
    """Python's, numpy's and torch's global generators. Views and loaders have their own and do not use these."""
    # As lists and tensors, which `weights_only` reads; Python's own tuple of 625 words it would not.
    version, words, position = random.getstate()
    name, keys, at, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), position],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), at, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _set_random_states(states: dict):
    version, words, position = states["python"]
    random.setstate((version, tuple(words), position))
    name, keys, at, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), at, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
