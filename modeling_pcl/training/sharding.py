"""Sharding with FSDP2: each process keeps a part of every weight, its gradient and its optimizer state."""

from collections.abc import MutableMapping

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

from ..modeling_pcl import PCLForPreTraining

# Gathers the shards of all processes into plain tensors on the CPU of the main process; the others get an empty dict.
FULL_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True)


# Settings of `accelerate launch`: the value that is supported, and advice for other values.
_LAUNCH = {
    "version": ("2", "Give `--fsdp_version 2`"),
    "reshard_after_forward": ("true", "Launch without it"),
    "offload_params": ("false", "Launch without it: weights stay on the GPUs"),
    "activation_checkpointing": ("false", "Give `--gradient_checkpointing true` to this script"),
}


def take_launch_request(environment: MutableMapping[str, str]) -> bool:
    """Return whether `accelerate launch --use_fsdp` started this process, and remove the request from the environment.

    If Accelerate and transformers saw the request, Accelerate would shard on GPUs only and with another mixed precision
    than without shards, and transformers would read the weights of a checkpoint in the first process only.

    Raises:
        ValueError: If a launch option is not supported. The message names it.
    """
    if environment.pop("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return False
    for name, (supported, advice) in _LAUNCH.items():
        value = environment.get(f"FSDP_{name.upper()}", supported).lower()
        if value != supported:
            raise ValueError(f"`--fsdp_{name}` must be {supported}, got {value}. {advice}.")
    return True


def shard_model(model: PCLForPreTraining, channels_last: bool = False) -> PCLForPreTraining:
    """Shard the parameters of a model over all processes, in place. Their names do not change.

    Stages, branches, projection heads and decoder are gathered one at a time, when they run. The parameters are
    replaced, so the optimizer must be made afterwards. All processes must hold the same weights, and take part in
    every use of the model.

    Args:
        model: The model, on the device of this process.
        channels_last: Whether to pass images and maps to the convolutions in channels-last order. The shards of the
            weights cannot have this order themselves.

    Returns:
        `model`.
    """
    model.to(memory_format=torch.contiguous_format)
    # The maps of the decoder are in this order already, and a hook on a convolution would disable its fast path, see
    # `PCLDecoderBlock`.
    decoder_modules = {*model.decoder.modules()}
    for module in [*model.modules()]:
        if channels_last and isinstance(module, nn.Conv2d) and module not in decoder_modules:
            module.register_forward_pre_hook(_to_channels_last)
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module)
    return fully_shard(model)


def _to_channels_last(module: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return inputs[0].contiguous(memory_format=torch.channels_last)


def gather_model(model: nn.Module) -> PCLForPreTraining | None:
    """Gather a model on the CPU of the main process, for saving. All processes must call this.

    Args:
        model: A `PCLForPreTraining`, sharded or not.

    Returns:
        The model in the main process, which may share memory with `model`; None in the others.
    """
    state = get_model_state_dict(model, options=FULL_STATE)
    if not state:
        return None
    with torch.device("meta"):
        full_model = PCLForPreTraining(model.config)
    full_model.load_state_dict(state, assign=True)
    return full_model
