"""The least that a network's arithmetic takes: its convolutions alone, on ready tensors, with nothing between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Convolution:
    """One convolution of a whole batch.

    Args:
        layer: Name of the layer in the model.
        inputs: Shape of what it reads, `(batch, channels, height, width)`.
        weight: Shape, `(out_channels, in_channels, kernel, kernel)`.
        stride: As for torch.
        padding: As for torch.
        trains_inputs: Whether the backward pass goes on to what it reads; not for images.
    """

    layer: str
    inputs: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[int, int]
    trains_inputs: bool

    @property
    def is_of_decoder(self) -> bool:
        return self.layer.startswith("decoder")

    @property
    def outputs(self) -> tuple[int, ...]:
        sides = zip(self.inputs[2:], self.weight[2:], self.stride, self.padding)
        out = ((side + 2 * padding - kernel) // stride + 1 for side, kernel, stride, padding in sides)
        return (self.inputs[0], self.weight[0], *out)


def record_convolutions(model: nn.Module, forward: Callable[[], object]) -> list[Convolution]:
    """Every convolution of a forward pass; those of one layer on images of one size count as one, of a larger batch."""
    batches: dict[Convolution, int] = {}

    def see(name: str, layer: nn.Conv2d, inputs: tuple[torch.Tensor]):
        batch, *shape = inputs[0].shape
        geometry = (tuple(layer.weight.shape), layer.stride, layer.padding)
        convolution = Convolution(name, (0, *shape), *geometry, inputs[0].requires_grad)
        batches[convolution] = batches.get(convolution, 0) + batch

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(partial(see, name)) for name, layer in layers]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return [replace(seen, inputs=(batch, *seen.inputs[1:])) for seen, batch in batches.items()]


class BareConvolutions:
    """Computes convolutions on random tensors, channels last, with bias: forward, and the gradients of weight, bias
    and, where the convolution trains them, inputs.

    All read the same memory, so that those of a large model have room, and nothing but results is allocated.

    Args:
        convolutions: What to compute, in this order.
        dtype: Of all tensors.
        device: Where.
    """

    def __init__(self, convolutions: Sequence[Convolution], dtype: torch.dtype, device: torch.device):
        shapes = [
            [getattr(convolution, name) for convolution in convolutions] for name in ("inputs", "weight", "outputs")
        ]
        sizes = [max(torch.Size(shape).numel() for shape in of_kind) for of_kind in shapes]
        self.memory = [torch.empty(size, dtype=dtype, device=device).normal_() for size in sizes]
        self.biases = torch.zeros(max(shape[0] for shape in shapes[1]), dtype=dtype, device=device)

    @torch.no_grad()
    def __call__(self, convolutions: Sequence[Convolution]):
        """Compute some of the convolutions."""
        for convolution in convolutions:
            shapes = convolution.inputs, convolution.weight, convolution.outputs
            inputs, weight, gradient = (_channels_last(*pair) for pair in zip(self.memory, shapes))
            channels, stride, padding = convolution.weight[0], convolution.stride, convolution.padding
            F.conv2d(inputs, weight, self.biases[:channels], stride, padding)
            wanted = [convolution.trains_inputs, True, True]
            plain = ([1, 1], False, [0, 0], 1)  # dilation, transposed, output padding, groups
            torch.ops.aten.convolution_backward(gradient, inputs, weight, [channels], stride, padding, *plain, wanted)


def _channels_last(memory: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    batch, channels, height, width = shape
    size = torch.Size(shape).numel()
    return memory[:size].view(batch, height, width, channels).permute(0, 3, 1, 2)
