"""Data-parallel training that synchronises only the gradients of parameters that an objective reaches."""

from contextlib import ExitStack, contextmanager

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..modeling_pcl import PCLForPreTraining
from .steps import select_trained_parameters

# The input that each objective requires.
INPUTS = {"disentangling": "pixel_values", "face_contrast": "face_views", "pose_contrast": "pose_views"}


class Replicas(nn.Module):
    """DistributedDataParallel for a model of which each optimizer step reaches only a part.

    A single DDP would search for the unused parameters in every pass, send zeros for them, and make the host wait for
    the device to copy the list of them. Here, each group of objectives has its own DDP over the parameters that it
    reaches. Buffers are not synchronised before each pass either: they are running statistics, which training does not
    read, and those of the main process are saved.

    Args:
        model: The model, on the device of this process. Its parameters and their names do not change.
        groups: Objectives that share an optimizer step, as for `Stepper`.
        is_encoder_frozen: Whether the encoder is not trained.
    """

    def __init__(self, model: PCLForPreTraining, groups: list[tuple[str, ...]], is_encoder_frozen: bool = False):
        super().__init__()
        self.groups, self.parts = groups, nn.ModuleList()
        for group in groups:
            select_trained_parameters(model, group, is_encoder_frozen)
            # With several micro-batches, the last pass of a joint step need not compute all objectives, so DDP must
            # search for unused parameters. The search costs a pass over the graph, and alternating steps do not need
            # it.
            is_mixed = len(group) > 1
            self.parts.append(
                DistributedDataParallel(model, find_unused_parameters=is_mixed, forward_sync_buffers=False)
            )
        select_trained_parameters(model, [objective for group in groups for objective in group], is_encoder_frozen)

    def forward(self, **inputs):
        """Call the model through the DDP of the group that the inputs belong to."""
        present = {objective for objective, name in INPUTS.items() if name in inputs}
        return next(part for group, part in zip(self.groups, self.parts) if present <= set(group))(**inputs)

    @contextmanager
    def no_sync(self):
        """Accumulate gradients in each process; the next pass outside of the block synchronises them."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.no_sync())
            yield
