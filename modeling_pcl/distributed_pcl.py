"""Gathering of embeddings across the processes of a training run."""

import torch


def world_size() -> int:
    """Return the number of processes of this run; 1 outside of torch.distributed."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def rank() -> int:
    """Return the index of this process, in [0, `world_size()`)."""
    return torch.distributed.get_rank() if world_size() > 1 else 0


class _GatherRows(torch.autograd.Function):
    """All-gather with a gradient. Without one the forward pass is the same, but the gradient of the loss is wrong."""

    @staticmethod
    def forward(ctx, rows):
        gathered = rows.new_empty(world_size() * rows.shape[0], *rows.shape[1:])
        torch.distributed.all_gather_single(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx, gradient):
        # Every process computed a loss with these rows, so their gradient is the sum over all processes.
        local_gradient = gradient.new_empty(gradient.shape[0] // world_size(), *gradient.shape[1:])
        torch.distributed.reduce_scatter_single(local_gradient, gradient.contiguous())
        return local_gradient


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate the rows of all processes, in order of rank, and keep the gradient.

    Args:
        rows: `(batch, ...)`, of the same shape in every process.

    Returns:
        `(world_size * batch, ...)`; `rows` itself when there is one process.
    """
    return rows if world_size() == 1 else _GatherRows.apply(rows)
