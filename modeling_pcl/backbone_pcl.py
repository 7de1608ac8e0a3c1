"""The PCL encoder: pixels to a trunk map, and from it a face-aware and a pose-related map."""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_pcl import PCLConfig


def convolution(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution of the encoder: padded to keep the side (rounded up when strided), with bias.

    It is torch's own class: LoRA makes its layers of the class that it finds, and quantisation looks that class up.
    """
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)


class PCLAttention(nn.Module):
    """Double attention: gather one global descriptor for each channel, then distribute them to every position.

    Source:
        Chen et al. 2018, A^2-Nets; the paper's g, theta and phi are `distribute`, `gather` and `describe`.
    """

    def __init__(self, channels: int, negative_slope: float):
        super().__init__()
        self.distribute = convolution(channels, channels, kernel_size=1)
        self.gather = convolution(channels, channels, kernel_size=1)
        self.describe = convolution(channels, channels, kernel_size=1)
        self.activation = nn.LeakyReLU(negative_slope, inplace=True)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        # Channels last, (batch, h * w, C), so that what lies so in memory is not copied.
        gathering, descriptions, logits = (
            layer(hidden_state).flatten(2).mT for layer in (self.gather, self.describe, self.distribute)
        )
        descriptors = gathering.softmax(dim=1).mT @ descriptions  # gathered over positions: (batch, C, C)
        attended = logits.softmax(dim=2) @ descriptors  # distributed over channels
        return self.activation(hidden_state + attended.mT.unflatten(2, hidden_state.shape[2:]))


class PCLResidualBlock(nn.Module):
    """Two convolutions around an identity shortcut."""

    def __init__(self, channels: int, negative_slope: float):
        super().__init__()
        self.conv1 = convolution(channels, channels)
        self.conv2 = convolution(channels, channels)
        self.activation = nn.LeakyReLU(negative_slope, inplace=True)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        return self.activation(hidden_state + self.conv2(self.activation(self.conv1(hidden_state))))


class PCLStage(GradientCheckpointingLayer):
    """Two activated convolutions, with attention between them and residual blocks behind them where asked for."""

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
        self.conv1 = convolution(in_channels, hidden_channels, kernel_size, stride)
        self.attention = PCLAttention(hidden_channels, negative_slope) if attention else nn.Identity()
        self.conv2 = convolution(hidden_channels, out_channels)
        self.blocks = nn.Sequential(*(PCLResidualBlock(out_channels, negative_slope) for _ in range(residual_blocks)))
        self.activation = nn.LeakyReLU(negative_slope, inplace=True)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        hidden_state = self.attention(self.activation(self.conv1(hidden_state)))
        return self.blocks(self.activation(self.conv2(hidden_state)))


class PCLTrunk(nn.Module):
    """Five stages: `(batch, channels, h, w)` pixels to `(batch, feature_channels, h / 16, w / 16)`, rounded up."""

    def __init__(self, config: PCLConfig):
        super().__init__()
        half, quarter, eighth, sixteenth = config.hidden_sizes
        slope = config.negative_slope
        self.stages = nn.ModuleList(
            [
                PCLStage(config.num_channels, half, half, slope, kernel_size=7, stride=2),
                PCLStage(half, half, half, slope, attention=True),
                PCLStage(half, quarter, quarter, slope, stride=2, attention=True, residual_blocks=2),
                PCLStage(quarter, eighth, eighth, slope, stride=2),
                PCLStage(eighth, sixteenth, config.feature_channels, slope, stride=2),
            ]
        )

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the five stages' maps, the trunk map last."""
        hidden_states = []
        hidden_state = pixel_values
        for stage in self.stages:
            hidden_state = stage(hidden_state)
            hidden_states.append(hidden_state)
        return tuple(hidden_states)


class PCLBranch(PCLStage):
    """The face or the pose branch: one stage on the trunk map, of the same shape."""

    def __init__(self, config: PCLConfig):
        channels = config.feature_channels
        super().__init__(channels, channels, channels, config.negative_slope)
