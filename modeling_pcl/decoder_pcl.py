"""The pose-disentangled decoder (PDD), which draws an image from the sum of a face and a pose feature."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_pcl import PCLConfig


class PCLDecoderBlock(nn.Module):
    """Bilinear upsampling to a given side, then a 3x3 convolution.

    Both are linear, and upsampling treats all channels alike, so they commute: the nine taps of the convolution are
    computed on the small map with one matrix product, and then each tap is upsampled and shifted to its position, which
    is one matrix per axis. At twice the side this takes a third of the multiplications, and the upsampled map is never
    in memory. A convolution with something attached to it (LoRA, fake quantisation, hooks) is called on the upsampled
    map instead.

    Shape:
        `(batch, in_channels, height, width)` to `(batch, out_channels, size_px, size_px)`, channels last in memory.
    """

    def __init__(self, in_channels: int, out_channels: int, size_px: int):
        super().__init__()
        self.size_px = size_px
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        if not _is_plain_convolution(self.conv):
            size = (self.size_px, self.size_px)
            return self.conv(F.interpolate(hidden_state, size=size, mode="bilinear"))
        # The rest of this function equals the two lines above, up to rounding. With it, a training iteration takes 1.03
        # times as long as the plain convolutions of the network alone (hub_cards/results.md).
        batch, _, height, width = hidden_state.shape
        size_px, channels = self.size_px, self.conv.out_channels
        # Taps ordered by column, then row, of the kernel: (out, in, 3, 3) -> (3 * 3 * out, in)
        weight = self.conv.weight.permute(3, 2, 0, 1).flatten(0, 2)
        # Upsampling keeps a constant, and the middle tap is never shifted over the border: it can carry the bias.
        bias = F.pad(self.conv.bias, (4 * channels, 4 * channels))
        taps = F.linear(hidden_state.permute(0, 2, 3, 1), weight, bias)  # (batch, height, width, 9 * out)
        # Sum over the three columns of the kernel: (batch * height, 3 * width, 3 * out) -> (..., size_px, 3 * out)
        wide = _build_upsampling_matrix(width, size_px, taps) @ taps.view(batch * height, 3 * width, 3 * channels)
        wide = wide.view(batch, height, size_px, 3, channels).transpose(2, 3)
        # Sum over the three rows: (batch, 3 * height, size_px * out) -> (batch, size_px, size_px * out)
        upsampled = _build_upsampling_matrix(height, size_px, taps) @ wide.reshape(
            batch, 3 * height, size_px * channels
        )
        return upsampled.view(batch, size_px, size_px, channels).permute(0, 3, 1, 2)


def _is_plain_convolution(layer: nn.Module) -> bool:
    """Return whether calling a convolution does no more than apply its weight and bias."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is nn.Conv2d and not any(hooks) and "forward" not in vars(layer)


def _build_upsampling_matrix(size_px: int, new_size_px: int, like: torch.Tensor) -> torch.Tensor:
    """Build the matrix that upsamples one axis, shifts each of three taps to its position, and sums them.

    Args:
        size_px: Length of the axis before upsampling.
        new_size_px: Length after it.
        like: Tensor whose dtype and device the matrix gets.

    Returns:
        `(new_size_px, size_px * 3)`: the weight of each tap of each old pixel in each new pixel.
    """
    # The weights of linear interpolation are what it makes of unit vectors.
    pixels = torch.eye(size_px, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
    upsampled = F.interpolate(pixels[None], size=new_size_px, mode="linear")[0]  # (size, new_size)
    # Windows of a side that is padded by one zero are the three shifts: (size, 3, new_size) -> (new_size, size * 3)
    return F.pad(upsampled, (1, 1)).unfold(1, new_size_px, 1).permute(2, 0, 1).flatten(1).to(like.dtype)


class PCLDecoder(nn.Module):
    """Draw images from features, starting from a 1x1 map.

    Each block doubles the side; sides are rounded up where the final one, `config.drawn_size`, is not a power of two.

    Shape:
        `(batch, feature_size)` to `(batch, num_channels, drawn_size, drawn_size)`, values in (-1, 1).
    """

    def __init__(self, config: PCLConfig):
        super().__init__()
        steps = math.ceil(math.log2(config.drawn_size))
        sizes_px = [math.ceil(config.drawn_size / 2**step) for step in reversed(range(steps))]
        first, middle, last = config.decoder_size, config.decoder_size // 2, config.decoder_size // 4
        # Published: 512-256-256-256-256-128-3, from 1x1 to 64x64.
        widths = [first] + [middle] * (steps - 2) + [last, config.num_channels]
        self.fc = nn.Linear(config.feature_size, first)
        self.blocks = nn.ModuleList(
            PCLDecoderBlock(*channels, size_px) for *channels, size_px in zip(widths, widths[1:], sizes_px)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:-1])

    def forward(self, features: torch.Tensor, groups: int = 1) -> torch.Tensor:
        """Decode features in `groups` equal parts, each of which is a separate batch for the batch norms.

        Outputs and running statistics equal those of one call per part, in order.

        Args:
            features: `(batch, feature_size)`.
            groups: Number of parts; must divide the batch.
        """
        if groups > 1 and features.device.type == "cpu":  # On a CPU, smaller parts stay longer in the cache.
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
