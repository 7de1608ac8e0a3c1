"""A model in shards: each process keeps a part of every weight, its gradient and its optimizer state (FSDP2)."""

from collections.abc import MutableMapping

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

from ..modeling_pcl import PCLForPreTraining

# All that the processes hold, as plain tensors on the CPU; in the main process, while the others get nothing.
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


# What `accelerate launch` hands on, what it must be, and the way out.
_LAUNCH = {
    "version": ("2", "Give `--fsdp_version 2`"),
    "reshard_after_forward": ("true", "Launch without it"),
    "offload_params": ("false", "Launch without it: weights stay on the GPUs"),
    "activation_checkpointing": ("false", "Give `--gradient_checkpointing true` to this script"),
}


def take_launch_request(environment: MutableMapping[str, str]) -> bool:
    """Whether `accelerate launch --use_fsdp` started this process, which Accelerate itself is kept from knowing.

    Accelerate would shard on GPUs only, with another mixed precision than without shards, and transformers would read
    a checkpoint's weights in the first process alone.

    Raises:
        ValueError: Naming the launch option that is not supported.
    """
    if environment.pop("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return False
    for name, (supported, way_out) in _LAUNCH.items():
        value = environment.get(f"FSDP_{name.upper()}", supported).lower()
        if value != supported:
            raise ValueError(f"`--fsdp_{name}` must be {supported}, got {value}. {way_out}.")
    return True


def shard(model: PCLForPreTraining, channels_last: bool = False) -> PCLForPreTraining:
    """Share a model's parameters out over all processes, in place; names stay.

    Stages, branches, heads and decoder are gathered one after the other, each where it runs. Parameters are replaced:
    make the optimizer afterwards. Every process must hold the same weights, and take part in every use of the model.

    Args:
        model: On the device of this process.
        channels_last: Give images and maps to the convolutions in this order; shards cannot have it themselves.

    Returns:
        `model`.
    """
    model.to(memory_format=torch.contiguous_format)
    # The decoder's maps lie so already, and with a hook its convolutions would not be plain ones any more.
    drawing = {*model.decoder.modules()}
    for module in [*model.modules()]:
        if channels_last and isinstance(module, nn.Conv2d) and module not in drawing:
            module.register_forward_pre_hook(_to_channels_last)
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module)
    return fully_shard(model)


def _to_channels_last(module: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return inputs[0].contiguous(memory_format=torch.channels_last)


def whole_model(model: nn.Module) -> PCLForPreTraining | None:
    """The model on the CPU, as one process has it, for saving.

    Args:
        model: A `PCLForPreTraining`, in shards or not, in all processes. Every one must call this.

    Returns:
        In the main process the model, which may share its memory with `model`; in the others None.
    """
    state = get_model_state_dict(model, options=WHOLE)
    if not state:
        return None
    with torch.device("meta"):
        complete = PCLForPreTraining(model.config)
    complete.load_state_dict(state, assign=True)
    return complete
