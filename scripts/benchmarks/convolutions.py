"""A lower bound for the time of a network: its convolutions alone, on existing tensors, with nothing between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Convolution:
    """A convolution of a batch.

    Args:
        layer: Name of the layer in the model.
        inputs: Shape of its input, `(batch, channels, height, width)`.
        weight: Shape of its weight, `(out_channels, in_channels, kernel, kernel)`.
        stride: As for torch.
        padding: As for torch.
        trains_inputs: Whether the backward pass computes the gradient of its input, which it does not for images.
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
    """Record the convolutions of a forward pass. Calls of one layer on images of one size are merged into one batch."""
    batches: dict[Convolution, int] = {}

    def record(name: str, layer: nn.Conv2d, inputs: tuple[torch.Tensor]):
        batch, *shape = inputs[0].shape
        geometry = (tuple(layer.weight.shape), layer.stride, layer.padding)
        convolution = Convolution(name, (0, *shape), *geometry, inputs[0].requires_grad)
        batches[convolution] = batches.get(convolution, 0) + batch

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(partial(record, name)) for name, layer in layers]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return [replace(call, inputs=(batch, *call.inputs[1:])) for call, batch in batches.items()]


class BareConvolutions:
    """Compute convolutions on random channels-last tensors: forward, and gradients of weight, bias and inputs.

    All convolutions read the same memory, so that those of a large model fit, and only results are allocated.

    Args:
        convolutions: Convolutions that may be computed.
        dtype: Dtype of all tensors.
        device: Device of all tensors.
    """

    def __init__(self, convolutions: Sequence[Convolution], dtype: torch.dtype, device: torch.device):
        shapes = [
            [getattr(convolution, name) for convolution in convolutions] for name in ("inputs", "weight", "outputs")
        ]
        sizes = [max(torch.Size(shape).numel() for shape in kind_shapes) for kind_shapes in shapes]
        self.memory = [torch.empty(size, dtype=dtype, device=device).normal_() for size in sizes]
        self.biases = torch.zeros(max(shape[0] for shape in shapes[1]), dtype=dtype, device=device)

    @torch.no_grad()
    def __call__(self, convolutions: Sequence[Convolution]):
        """Compute some of the convolutions."""
        for convolution in convolutions:
            shapes = convolution.inputs, convolution.weight, convolution.outputs
            inputs, weight, gradient = (_view_channels_last(*pair) for pair in zip(self.memory, shapes))
            channels, stride, padding = convolution.weight[0], convolution.stride, convolution.padding
            F.conv2d(inputs, weight, self.biases[:channels], stride, padding)
            output_mask = [convolution.trains_inputs, True, True]  # Gradients of input, weight and bias.
            plain = ([1, 1], False, [0, 0], 1)  # Dilation, transposed, output padding, groups.
            arguments = [channels], stride, padding, *plain, output_mask
            torch.ops.aten.convolution_backward(gradient, inputs, weight, *arguments)


def _view_channels_last(memory: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    batch, channels, height, width = shape
    size = torch.Size(shape).numel()
    return memory[:size].view(batch, height, width, channels).permute(0, 3, 1, 2)
