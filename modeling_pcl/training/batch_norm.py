"""Batch norms over all processes, on CPUs too."""

import torch
from torch import nn

from ..distributed_pcl import gather_rows, world_size


class _SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm with the statistics of all processes' rows. torch's own class refuses CPU tensors."""

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
    """The sum of the rows of all processes, `(C,)`, with the gradient that each process finds for its own."""
    return gather_rows(rows.sum(0, keepdim=True)).sum(0)


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Let every batch norm of `model` use the statistics of all processes, in place; state-dict names stay.

    Args:
        model: A module whose batch norms are `BatchNorm1d` or `BatchNorm2d`. Every process must pass as many rows.

    Returns:
        `model`.
    """
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.__class__ = _SynchronisedBatchNorm
    return model
