"""What `test_distributed_pcl.py` runs in each of two processes; a module of its own, so that a new process finds it."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import tiny
import torch
from accelerate import Accelerator
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainingArguments

from modeling_pcl import PCLConfig, PCLForHeadPoseEstimation, PCLForImageClassification, PCLForPreTraining
from modeling_pcl.distributed_pcl import gather_rows, rank, world_size
from modeling_pcl.training.batch_norm import synchronise_batch_norm
from modeling_pcl.training.monitor import check_finite_weights
from modeling_pcl.training.optimizers import make_optimizer
from modeling_pcl.training.replicas import Replicas
from modeling_pcl.training.sharding import gather_model, shard_model
from modeling_pcl.training.steps import Stepper, give_zero_gradients

PROCESSES = 2
IMAGES = 4  # of all processes together

# Objectives that share an optimizer step, and micro-batches before it.
SCHEDULES = {
    "alternating": ([(objective,) for objective in tiny.INPUTS], 1),
    "alternating, accumulated": ([(objective,) for objective in tiny.INPUTS], 2),
    "joint, accumulated": ([tuple(tiny.INPUTS)], 2),
}

MUON_ITERATIONS = 2  # So that the momentum counts, too.

# The orthogonality terms are centred over a process's own batch; all the rest does not depend on how it is shared out.
CONFIG = {"orthogonality_weight": 0.0, "turn_weight": 2.0}


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


Groups = list[tuple[str, ...]]


def unwrapped(model: PCLForPreTraining, groups: Groups) -> nn.Module:
    return model


def shards(model: PCLForPreTraining, groups: Groups) -> nn.Module:
    return shard_model(model)


def checkpointed_shards(model: PCLForPreTraining, groups: Groups) -> nn.Module:
    model.gradient_checkpointing_enable()
    model.images_at_once = 3
    return shard_model(model)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def results(outputs: dict[str, torch.Tensor], model: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "terms": {name: whole(value) for name, value in outputs.items()},
        "gradients": {
            name: whole(parameter.grad) for name, parameter in model.named_parameters() if parameter.grad is not None
        },
        "buffers": {name: whole(buffer) for name, buffer in model.named_buffers()},
    }


def train_once(objectives: Iterable[str], share_out: Callable = unwrapped) -> dict[str, dict[str, torch.Tensor]]:
    """Terms, gradients and statistics of one backward pass, on this process's share of the inputs."""
    model = synchronise_batch_norm(pretraining_model())
    called = share_out(model, [tuple(objectives)])
    outputs = called(**{name: share(name, value) for name, value in inputs(model.config, objectives).items()})
    outputs.loss.backward()
    return results(outputs, model)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """One that does not blow rounding up."""
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def muon(model: nn.Module) -> torch.optim.Optimizer:
    return make_optimizer(model, "muon", 0.02, 0.1)


def steps(
    share_out: Callable,
    groups: Groups,
    micro_batches: int,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] = sgd,
    iterations: int = 1,
) -> dict[str, torch.Tensor]:
    """Weights after some iterations with clipped gradients."""
    model = synchronise_batch_norm(pretraining_model())
    accelerator = Accelerator(cpu=True)
    called = share_out(model, groups)
    optimizer = accelerator.prepare_optimizer(make_optimizer(model))
    give_zero_gradients(model)
    stepper = Stepper(accelerator, called, optimizer, groups, keep_zero_gradients=True, max_grad_norm=0.1)

    def make_inputs(objective: str, index: int | None) -> dict[str, torch.Tensor]:
        return {name: share(name, value) for name, value in inputs(model.config, [objective]).items()}

    for _ in range(iterations):
        stepper.step(make_inputs, dict.fromkeys(tiny.INPUTS, 1.0), micro_batches)
    return {name: whole(parameter) for name, parameter in model.named_parameters()}


def look_at_shards() -> dict:
    """What a process finds of a model in shards: its part, the whole for saving, and a NaN that process 0 holds."""
    model = shard_model(pretraining_model())
    weight = model.decoder.fc.weight
    found = {"local_rows": weight.to_local().shape[0], "whole": (copy := gather_model(model)) and copy.state_dict()}
    if rank() == 0:
        weight.to_local().data[0, 0] = torch.nan
    try:
        check_finite_weights(model, 7)
    except FloatingPointError as error:
        found["error"] = str(error)
    return found


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


def train_head(model_class: type, folder: Path, is_checkpointed: bool) -> dict[str, torch.Tensor]:
    """Weights of a head after three steps of transformers' Trainer."""
    config = tiny.config(num_labels=3)
    torch.manual_seed(3)
    model = model_class(config).double()
    labels = torch.eye(3) if model_class is PCLForHeadPoseEstimation else torch.arange(3)
    rows = [
        {"pixel_values": image, "labels": labels[index % 3]}
        for index, image in enumerate(tiny.images(config, 2 * 2 * 3))
    ]
    arguments = TrainingArguments(
        str(folder),
        use_cpu=True,
        per_device_train_batch_size=2 * PROCESSES // world_size(),
        max_steps=3,
        gradient_checkpointing=is_checkpointed,
        train_sampling_strategy="sequential",
        optim="sgd",
        learning_rate=0.1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    Trainer(model, arguments, train_dataset=rows).train()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def shards_of_a_launch() -> dict[str, str]:
    """Environment that `accelerate launch --use_fsdp --fsdp_version 2` gives its processes."""
    words = ["--use_fsdp", "--fsdp_version", "2", "--num_processes", str(PROCESSES), "script.py"]
    environment = prepare_multi_gpu_env(_validate_launch_command(launch_command_parser().parse_args(words))[0])
    return {name: value for name, value in environment.items() if name.startswith(("ACCELERATE_USE_", "FSDP_"))}


def join_group(index: int, path: Path):
    """Make this process one of two, also for Accelerate."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index)}
    os.environ |= {"WORLD_SIZE": str(PROCESSES), "LOCAL_WORLD_SIZE": str(PROCESSES)}
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=index, world_size=PROCESSES)


def work(index: int, folder: str):
    """Run everything in one process of the group and leave it in `<folder>/<index>.pt`."""
    join_group(index, Path(folder) / "group")
    everything = {"gather": gather(), "batch_norm": batch_norm(), "shards": look_at_shards()}
    for share_out in (unwrapped, Replicas, shards, checkpointed_shards):
        everything[f"face_contrast, {share_out.__name__}"] = train_once(["face_contrast"], share_out)
        everything[f"all, {share_out.__name__}"] = train_once(tiny.INPUTS, share_out)
    for share_out in (Replicas, shards):
        for name, (groups, micro_batches) in SCHEDULES.items():
            everything[f"{name}, {share_out.__name__}"] = steps(share_out, groups, micro_batches)
        joint = [tuple(tiny.INPUTS)]
        everything[f"muon, {share_out.__name__}"] = steps(share_out, joint, 1, muon, MUON_ITERATIONS)
    for model_class in (PCLForImageClassification, PCLForHeadPoseEstimation):
        for is_checkpointed in (False, True):
            run = f"{model_class.__name__}, {is_checkpointed}"
            everything[run] = train_head(model_class, Path(folder) / "trainer", is_checkpointed)
    torch.save(everything, Path(folder) / f"{index}.pt")
    torch.distributed.destroy_process_group()
