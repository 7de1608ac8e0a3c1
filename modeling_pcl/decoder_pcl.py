"""The pose-disentangled decoder (PDD): the sum of a face and a pose feature to an image."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_pcl import PCLConfig


class PCLDecoderBlock(nn.Module):
    """Bilinear upsampling to a given side, then a 3x3 convolution.

    Both are linear and upsampling treats channels alike, so the convolution's nine taps are taken of the small map, as
    one matrix product. Upsampling a tap's map and shifting it to the tap's place is then one matrix for each side. At
    twice the side this is a third of the multiplications, and the upsampled map is never in memory. A convolution that
    something is attached to - LoRA, fake quantisation, hooks - is called on the upsampled map.

    Shape:
        `(batch, in_channels, height, width)` to `(batch, out_channels, size_px, size_px)`, channels last in memory.
    """

    def __init__(self, in_channels: int, out_channels: int, size_px: int):
        super().__init__()
        self.size_px = size_px
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        if not _is_plain(self.conv):
            size = (self.size_px, self.size_px)
            return self.conv(F.interpolate(hidden_state, size=size, mode="bilinear"))
        batch, _, height, width = hidden_state.shape
        size_px, channels = self.size_px, self.conv.out_channels
        # Each channel's taps in the order (across, down): (out, in, 3, 3) -> (3 * 3 * out, in).
        weight = self.conv.weight.permute(3, 2, 0, 1).flatten(0, 2)
        # An upsampled constant is itself, so that the bias may join the middle tap.
        bias = F.pad(self.conv.bias, (4 * channels, 4 * channels))
        taps = F.linear(hidden_state.permute(0, 2, 3, 1), weight, bias)  # (batch, height, width, 9 * out)
        across = _upsampled_taps(width, size_px, taps) @ taps.view(batch * height, 3 * width, 3 * channels)
        across = across.view(batch, height, size_px, 3, channels).transpose(2, 3)
        down = _upsampled_taps(height, size_px, taps) @ across.reshape(batch, 3 * height, size_px * channels)
        return down.view(batch, size_px, size_px, channels).permute(0, 3, 1, 2)


def _is_plain(layer: nn.Module) -> bool:
    """Whether calling a convolution does what its weight and bias say, and nothing besides."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is nn.Conv2d and not any(hooks) and "forward" not in vars(layer)


def _upsampled_taps(size_px: int, new_size_px: int, like: torch.Tensor) -> torch.Tensor:
    """What each tap of each pixel of a side adds to each new pixel, `(new_size, size * 3)`; zeros lie outside."""
    pixels = torch.eye(size_px, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
    upsampled = F.interpolate(pixels[None], size=new_size_px, mode="linear")[0]  # (size, new_size)
    return F.pad(upsampled, (1, 1)).unfold(1, new_size_px, 1).permute(2, 0, 1).flatten(1).to(like.dtype)


class PCLDecoder(nn.Module):
    """From 1x1 to the drawn side, doubling the side (rounded so that it ends there) with each convolution.

    Shape:
        `(batch, feature_size)` to `(batch, num_channels, drawn_size, drawn_size)`, values in (-1, 1).
    """

    def __init__(self, config: PCLConfig):
        super().__init__()
        steps = math.ceil(math.log2(config.drawn_size))
        sizes_px = [math.ceil(config.drawn_size / 2**step) for step in reversed(range(steps))]
        first, middle, last = config.decoder_size, config.decoder_size // 2, config.decoder_size // 4
        widths = [first] + [middle] * (steps - 2) + [last, config.num_channels]
        self.fc = nn.Linear(config.feature_size, first)
        self.blocks = nn.ModuleList(
            PCLDecoderBlock(*channels, size_px) for *channels, size_px in zip(widths, widths[1:], sizes_px)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:-1])

    def forward(self, features: torch.Tensor, groups: int = 1) -> torch.Tensor:
        """Decode features, of which each of `groups` equal parts is a batch of its own to the batch norms.

        The parts are normalised, and tracked, one after the other: outputs and running statistics are those of as many
        calls.
        """
        if groups > 1 and features.device.type == "cpu":  # More at once would only be further from the cache.
            return torch.cat([self._decode(part, 1) for part in features.chunk(groups)])
        return self._decode(features, groups)

    def _decode(self, features: torch.Tensor, groups: int) -> torch.Tensor:
        hidden_state = self.fc(features).relu()[:, :, None, None]  # (batch, width) -> (batch, width, 1, 1)
        for block, norm in zip(self.blocks, self.norms):
            hidden_state = block(hidden_state)
            if groups == 1:
                hidden_state = norm(hidden_state)
            else:
                hidden_state = torch.cat([norm(part) for part in hidden_state.chunk(groups)])
            hidden_state = hidden_state.relu_()
        return self.blocks[-1](hidden_state).tanh()
