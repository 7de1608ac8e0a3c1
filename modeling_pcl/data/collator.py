"""A data collator that makes views of images, for transformers' `Trainer` and torch's `DataLoader`."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..configuration_pcl import PCLConfig
from ..distributed_pcl import rank, world_size
from ..image_processing_pcl import PCLImageProcessor
from .view_settings import ViewSettings
from .views import ViewMaker

LARGEST_SEED = 2**63 - 1
COLUMNS = ("image", "pixel_values")


class PCLDataCollator:
    """Make the inputs of `PCLForPreTraining` from images: the views of every objective whose weight is not 0.

    Every batch gets new random views. Their seed comes from torch's global generator, so runs with the same seed of the
    Trainer have the same views. If several processes train together, each has its own views, and all share one
    permutation of the negatives; their batches must have the same size, which the Trainer ensures.

    Args:
        config: Config of the model.
        settings: How views are drawn; None takes the published settings, with 10 x 100 negatives in the pose contrast.
        load_size_px: Side of the images from which views are cut; None is twice the image size of the model.

    Example:
        ```python
        >>> from transformers import Trainer, TrainingArguments
        >>> from modeling_pcl import PCLConfig, PCLDataCollator, PCLForPreTraining
        >>> config = PCLConfig().scaled(0.25)
        >>> arguments = TrainingArguments("run", remove_unused_columns=False, dataloader_drop_last=True)
        >>> trainer = Trainer(
        ...     PCLForPreTraining(config), arguments, PCLDataCollator(config), train_dataset=faces, eval_dataset=others
        ... )
        >>> trainer.evaluate()["eval_loss"]
        ```
    """

    def __init__(self, config: PCLConfig, settings: ViewSettings | None = None, load_size_px: int | None = None):
        self.image_size_px, self.settings = config.image_size, settings or ViewSettings()
        # Twice the size of the model, so that a window of 0.4 of the side is not enlarged from 26 px to 64 px.
        self.processor = PCLImageProcessor.for_image_size(load_size_px or 2 * config.image_size)
        self.objectives = [name for name, weight in config.objective_weights.items() if weight > 0]

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make the inputs of one batch.

        Args:
            examples: At least two examples, each with a column `image` or `pixel_values` that holds an image as
                `PCLImageProcessor` accepts it.

        Returns:
            Keyword arguments of `PCLForPreTraining`.

        Raises:
            ValueError: If an example has no image, or there are fewer than two.
            BrokenImageError: If an image cannot be read.
        """
        if len(examples) < 2:
            raise ValueError(
                f"A batch must have at least 2 images, got {len(examples)}: the objectives compare them. Drop an "
                "incomplete last batch with `dataloader_drop_last=True`."
            )
        images = self.processor([_get_image(example) for example in examples], do_rescale=False, return_tensors="pt")
        seed = int(torch.randint(LARGEST_SEED, ()))
        # A loader's worker that was spawned has no process group, but it inherits the environment of its process.
        process = {
            "rank": max(rank(), int(os.environ.get("RANK", 0))),
            "world_size": max(world_size(), int(os.environ.get("WORLD_SIZE", 1))),
        }
        maker, inputs = ViewMaker(self.settings, self.image_size_px, seed, **process), {}
        for objective in self.objectives:
            inputs |= getattr(maker, objective)(images["pixel_values"], step=0)
        return inputs


def _get_image(example: Mapping[str, Any]) -> Any:
    for name in COLUMNS:
        if name in example:
            return example[name]
    raise ValueError(
        f"An example has no column `image` or `pixel_values`, only {sorted(example)}. The Trainer removes columns that "
        "the model does not accept: set TrainingArguments(remove_unused_columns=False)."
    )
