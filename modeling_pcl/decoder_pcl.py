"""The pose-disentangled decoder (PDD): the sum of a face and a pose feature to an image."""

import math

import torch
from torch import nn

from .configuration_pcl import PCLConfig


class PCLDecoderBlock(nn.Module):
    """Bilinear upsampling to a given side, then a convolution."""

    def __init__(self, in_channels: int, out_channels: int, size_px: int):
        super().__init__()
        self.upsample = nn.Upsample(size=(size_px, size_px), mode="bilinear", align_corners=False)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        return self.conv(self.upsample(hidden_state))


class PCLDecoder(nn.Module):
    """From 1x1 to `image_size`, doubling the side (rounded so that it ends there) with each convolution.

    Shape:
        `(batch, feature_size)` to `(batch, num_channels, image_size, image_size)`, values in (-1, 1).
    """

    def __init__(self, config: PCLConfig):
        super().__init__()
        steps = math.ceil(math.log2(config.image_size))
        sizes_px = [math.ceil(config.image_size / 2**step) for step in reversed(range(steps))]
        first, middle, last = config.decoder_size, config.decoder_size // 2, config.decoder_size // 4
        widths = [first] + [middle] * (steps - 2) + [last, config.num_channels]
        self.fc = nn.Linear(config.feature_size, first)
        self.blocks = nn.ModuleList(
            PCLDecoderBlock(*channels, size_px) for *channels, size_px in zip(widths, widths[1:], sizes_px)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:-1])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden_state = self.fc(features).relu()[:, :, None, None]  # (batch, width) -> (batch, width, 1, 1)
        for block, norm in zip(self.blocks, self.norms):
            hidden_state = norm(block(hidden_state)).relu()
        return self.blocks[-1](hidden_state).tanh()
