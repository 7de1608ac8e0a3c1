"""The heads on the branches in pre-training."""

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_pcl import PCLConfig


class PCLProjectionHead(nn.Module):
    """Project `(batch, feature_size)` features to `(batch, projection_size)` embeddings for the contrastive losses."""

    def __init__(self, config: PCLConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.feature_size, config.projection_hidden)
        self.fc2 = nn.Linear(config.projection_hidden, config.projection_size)
        self.norm = nn.BatchNorm1d(config.projection_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # As published, the batch norm follows the last layer. (batch, 2048) -> (batch, 2048) -> (batch, 512)
        return self.norm(self.fc2(self.fc1(features).relu()))


class PCLTurnHead(nn.Module):
    """Predict by how much the second of two views of an image is turned against the first.

    The prediction is linear in the pose features, so that the training makes turns linear in them.
    """

    def __init__(self, config: PCLConfig):
        super().__init__()
        self.linear = nn.Linear(config.feature_size, 2, bias=False)  # Views that are alike are not turned.

    def forward(self, pose_features: torch.Tensor) -> torch.Tensor:
        """Predict turns.

        Args:
            pose_features: `(2 * batch, feature_size)`, of the first views, then of the second views.

        Returns:
            Turns out of the plane and in it, `(batch, 2)`, in the unit of the targets in training.
        """
        # Features have no fixed scale; with this length, their entries are of size 1.
        length = pose_features.shape[1] ** 0.5
        first, second = (length * F.normalize(pose_features, dim=1)).chunk(2)
        return self.linear(second - first)
