"""What `test_distributed_pcl.py` runs in each of two processes; a module of its own, so that a new process finds it."""

from collections.abc import Iterable
from pathlib import Path

import tiny
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from modeling_pcl import PCLConfig, PCLForPreTraining
from modeling_pcl.distributed_pcl import gather_rows, rank, synchronise_batch_norm, world_size

PROCESSES = 2
IMAGES = 4  # of all processes together

# The orthogonality terms are centred over a process's own batch; all the rest does not depend on how it is shared out.
CONFIG = {"orthogonality_weight": 0.0}


def pretraining_model() -> PCLForPreTraining:
    """In float64, so that two orders of summation agree far below any mistake."""
    torch.manual_seed(11)
    return PCLForPreTraining(tiny.config(**CONFIG)).double().train()


def inputs(config: PCLConfig, objectives: Iterable[str]) -> dict[str, torch.Tensor]:
    """Inputs for all processes together."""
    return {
        name: value.double() if value.is_floating_point() else value
        for objective in objectives
        for name, value in tiny.INPUTS[objective](config, IMAGES, dtype=torch.float64).items()
    }


def share(name: str, value: torch.Tensor) -> torch.Tensor:
    """This process's part: of the images, or, where views or mirrors lie behind one another, of each half."""
    if name.endswith("permutation"):
        return value
    halves = value.chunk(2) if name in ("noise", "face_views", "face_mix", "pose_views") else (value,)
    return torch.cat([half.chunk(world_size())[rank()] for half in halves])


def results(outputs: dict[str, torch.Tensor], model: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "terms": {name: value.detach().clone() for name, value in outputs.items()},
        "gradients": {
            name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
        },
        "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()},
    }


def train_once(objectives: Iterable[str], is_wrapped: bool = False) -> dict[str, dict[str, torch.Tensor]]:
    """Terms, gradients and statistics of one backward pass, on this process's share of the inputs."""
    model = synchronise_batch_norm(pretraining_model())
    called = DistributedDataParallel(model, find_unused_parameters=True) if is_wrapped else model
    outputs = called(**{name: share(name, value) for name, value in inputs(model.config, objectives).items()})
    outputs.loss.backward()
    return results(outputs, model)


def gather() -> dict[str, torch.Tensor]:
    """Forward and gradient of a gather whose rows are weighted differently in each process."""
    rows = (torch.arange(6.0).view(3, 2) + 10 * rank()).t().requires_grad_()  # not contiguous
    gathered = gather_rows(rows)
    (gathered.square() * (1 + rank())).sum().backward()
    return {"rows": rows.detach(), "gathered": gathered.detach(), "gradient": rows.grad}


def batch_norm() -> dict[str, torch.Tensor]:
    """A synchronised batch norm in half precision, and in eval mode."""
    norm = synchronise_batch_norm(nn.BatchNorm2d(3))
    rows = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(rank())).bfloat16()
    trained = norm(rows)
    return {"rows": rows, "trained": trained.detach(), "evaluated": norm.eval()(rows.float()).detach()}


def work(index: int, folder: str):
    """Run everything in one process of the group and leave it in `<folder>/<index>.pt`."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=index, world_size=PROCESSES)
    everything = {
        "gather": gather(),
        "batch_norm": batch_norm(),
        "face_contrast": train_once(["face_contrast"]),
        "all": train_once(tiny.INPUTS),
        "face_contrast_wrapped": train_once(["face_contrast"], is_wrapped=True),
        "all_wrapped": train_once(tiny.INPUTS, is_wrapped=True),
    }
    torch.save(everything, Path(folder) / f"{index}.pt")
    torch.distributed.destroy_process_group()
