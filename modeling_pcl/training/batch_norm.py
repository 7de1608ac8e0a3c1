"""Batch norms with the statistics of all processes, on CPUs too."""

import torch
from torch import nn

from ..distributed_pcl import gather_rows, world_size


class _SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm with the statistics of the rows of all processes. torch's SyncBatchNorm only supports GPUs."""

    def _check_input_dim(self, input):
        pass

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or world_size() == 1:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        rows = values.movedim(1, -1).flatten(0, -2)  # (batch, C, ...) -> (batch * positions, C)
        count = rows.shape[0] * world_size()
        mean = _sum_over_processes(rows) / count
        variance = _sum_over_processes((rows - mean).square()) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        shape = (-1,) + (1,) * (input.dim() - 2)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (values * scale.view(shape) + (self.bias - mean * scale).view(shape)).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor):
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


def _sum_over_processes(rows: torch.Tensor) -> torch.Tensor:
    """Sum the rows of all processes, with gradient: `(rows, C)` to `(C,)`."""
    return gather_rows(rows.sum(0, keepdim=True)).sum(0)


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Make every batch norm of `model` use the statistics of all processes, in place. State-dict names do not change.

    Args:
        model: A module whose batch norms are `BatchNorm1d` or `BatchNorm2d`. All processes must pass equally many rows.

    Returns:
        `model`.
    """
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.__class__ = _SynchronisedBatchNorm
    return model
