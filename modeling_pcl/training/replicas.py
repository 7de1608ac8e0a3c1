"""A model of which every process holds all, and of whose gradients only those are sent that an objective reaches."""

from contextlib import ExitStack, contextmanager

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..modeling_pcl import PCLForPreTraining
from .steps import select_trained_parameters

# The input that an objective cannot do without.
INPUTS = {"disentangling": "pixel_values", "face_contrast": "face_views", "pose_contrast": "pose_views"}


class Replicas(nn.Module):
    """DDP over a model whose optimizer steps each reach only a part of it.

    A single DDP would find the parameters that are left out anew in every pass: it would send zeros for them, and make
    the host wait for the device to copy the list of them. Here each group of objectives has a DDP of its own, over what
    the group reaches. Buffers are not sent before every pass either: they are statistics, which training does not read,
    and those of the main process are the ones that are saved.

    Args:
        model: On this process's device; its parameters and their names stay.
        groups: Objectives that share an optimizer step, as for `Stepper`.
        is_encoder_frozen: Whether the encoder stays as it is.
    """

    def __init__(self, model: PCLForPreTraining, groups: list[tuple[str, ...]], is_encoder_frozen: bool = False):
        super().__init__()
        self.groups, self.parts = groups, nn.ModuleList()
        for group in groups:
            select_trained_parameters(model, group, is_encoder_frozen)
            # With several micro-batches, the last pass of a group need not hold all of its objectives.
            # The search for unused parameters costs a pass over the graph; alternating steps need none.
            is_mixed = len(group) > 1
            self.parts.append(
                DistributedDataParallel(model, find_unused_parameters=is_mixed, forward_sync_buffers=False)
            )
        select_trained_parameters(model, [objective for group in groups for objective in group], is_encoder_frozen)

    def forward(self, **inputs):
        """As the model's, by the group that the inputs belong to."""
        present = {objective for objective, name in INPUTS.items() if name in inputs}
        return next(part for group, part in zip(self.groups, self.parts) if present <= set(group))(**inputs)

    @contextmanager
    def no_sync(self):
        """Add gradients up in each process; the next pass outside sends them."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.no_sync())
            yield
