"""Building blocks of the PCL encoder: the trunk and the face and pose branches on top of it."""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_pcl import PCLConfig


def build_convolution(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Build a convolution with bias, padded so that the output side is the input side / `stride`, rounded up."""
    # A plain nn.Conv2d and not a subclass: PEFT and quantisation look layers up by their exact class.
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)


class PCLAttention(nn.Module):
    """Double attention: gather one global descriptor per channel, then distribute the descriptors to every position.

    Source:
        Chen et al. 2018, A^2-Nets; the paper's g, theta and phi are `distribute`, `gather` and `describe`.
    """

    def __init__(self, channels: int, negative_slope: float):
        super().__init__()
        self.distribute = build_convolution(channels, channels, kernel_size=1)
        self.gather = build_convolution(channels, channels, kernel_size=1)
        self.describe = build_convolution(channels, channels, kernel_size=1)
        self.activation = nn.LeakyReLU(negative_slope, inplace=True)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        # (batch, C, h, w) -> (batch, h * w, C): a view, not a copy, of maps that are channels_last in memory.
        gathering, descriptions, logits = (
            layer(hidden_state).flatten(2).mT for layer in (self.gather, self.describe, self.distribute)
        )
        # The two softmaxes take 19 % of the encoder's time (quarter width, one CPU thread).
        # The paper computes (phi @ softmax(theta)^T) @ softmax(g) on (C, h * w) maps; these are the transposes.
        descriptors = gathering.softmax(dim=1).mT @ descriptions  # Softmax over positions: (batch, C, C)
        attended = logits.softmax(dim=2) @ descriptors  # Softmax over channels: (batch, h * w, C)
        # (batch, h * w, C) -> (batch, C, h, w)
        return self.activation(hidden_state + attended.mT.unflatten(2, hidden_state.shape[2:]))


class PCLResidualBlock(nn.Module):
    """Two convolutions with an identity shortcut. There is no normalisation, as in the authors' encoder."""

    def __init__(self, channels: int, negative_slope: float):
        super().__init__()
        self.conv1 = build_convolution(channels, channels)
        self.conv2 = build_convolution(channels, channels)
        self.activation = nn.LeakyReLU(negative_slope, inplace=True)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        return self.activation(hidden_state + self.conv2(self.activation(self.conv1(hidden_state))))


class PCLStage(GradientCheckpointingLayer):
    """Two convolutions with activations, optionally with attention between them and residual blocks after them.

    Args:
        in_channels: Channels of the input map.
        hidden_channels: Channels between the two convolutions.
        out_channels: Channels of the output map.
        negative_slope: Slope of the LeakyReLUs for negative inputs.
        kernel_size: Kernel size of the first convolution; the second one is 3x3.
        stride: Stride of the first convolution.
        attention: Whether to apply `PCLAttention` between the convolutions.
        residual_blocks: Number of `PCLResidualBlock`s after the second convolution.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        negative_slope: float,
        kernel_size: int = 3,
        stride: int = 1,
        attention: bool = False,
        residual_blocks: int = 0,
    ):
        super().__init__()
        self.conv1 = build_convolution(in_channels, hidden_channels, kernel_size, stride)
        self.attention = PCLAttention(hidden_channels, negative_slope) if attention else nn.Identity()
        self.conv2 = build_convolution(hidden_channels, out_channels)
        self.blocks = nn.Sequential(*(PCLResidualBlock(out_channels, negative_slope) for _ in range(residual_blocks)))
        self.activation = nn.LeakyReLU(negative_slope, inplace=True)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        hidden_state = self.attention(self.activation(self.conv1(hidden_state)))
        return self.blocks(self.activation(self.conv2(hidden_state)))


class PCLTrunk(nn.Module):
    """Five stages from pixels to the trunk map.

    Shape:
        `(batch, num_channels, h, w)` to `(batch, feature_channels, h / 16, w / 16)`, rounded up.
    """

    def __init__(self, config: PCLConfig):
        super().__init__()
        half, quarter, eighth, sixteenth = config.hidden_sizes
        slope = config.negative_slope
        # Shapes of the published model at 64 px.
        self.stages = nn.ModuleList(
            [
                # (batch, 3, 64, 64) -> (batch, 64, 32, 32)
                PCLStage(config.num_channels, half, half, slope, kernel_size=7, stride=2),
                PCLStage(half, half, half, slope, attention=True),
                # (batch, 64, 32, 32) -> (batch, 128, 16, 16)
                PCLStage(half, quarter, quarter, slope, stride=2, attention=True, residual_blocks=2),
                # (batch, 128, 16, 16) -> (batch, 128, 8, 8)
                PCLStage(quarter, eighth, eighth, slope, stride=2),
                # (batch, 128, 8, 8) -> (batch, 128, 4, 4), with 256 channels between the two convolutions
                PCLStage(eighth, sixteenth, config.feature_channels, slope, stride=2),
            ]
        )

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the maps of the five stages, with the trunk map last."""
        hidden_states = []
        hidden_state = pixel_values
        for stage in self.stages:
            hidden_state = stage(hidden_state)
            hidden_states.append(hidden_state)
        return tuple(hidden_states)


class PCLBranch(PCLStage):
    """The face or the pose branch: one stage that keeps the shape of the trunk map."""

    def __init__(self, config: PCLConfig):
        channels = config.feature_channels
        super().__init__(channels, channels, channels, config.negative_slope)
