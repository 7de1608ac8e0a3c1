"""Images to the views of one batch, for transformers' `Trainer` and torch's `DataLoader`."""

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
    """Makes what `PCLForPreTraining` takes of a batch of images: the views of every objective that has a weight.

    They are drawn anew for each batch, by torch's generator: the same for the same seed of the Trainer. Where several
    processes train together, each has other views, and all have the same permutation of negatives; every batch must
    then be as large as the others, as the Trainer sees to.

    Args:
        config: Of the model.
        settings: How views are drawn; None is as published, with 10 x 100 negatives in the pose contrast.
        load_size_px: Side of the images that the views are cut from; None is twice the model's.

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
        self.processor = PCLImageProcessor.for_image_size(load_size_px or 2 * config.image_size)
        self.objectives = [name for name, weight in config.objective_weights.items() if weight > 0]

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make one batch.

        Args:
            examples: At least two; each with an image, as `PCLImageProcessor` opens it, in a column `image` or
                `pixel_values`.

        Returns:
            Keyword arguments of `PCLForPreTraining`.

        Raises:
            ValueError: If an example has no image, or there are fewer than two.
            BrokenImageError: If an image cannot be read.
        """
        if len(examples) < 2:
            raise ValueError(
                f"A batch must be of at least 2 images, got {len(examples)}: the objectives compare them. Leave a last "
                "one alone out by `dataloader_drop_last=True`."
            )
        images = self.processor([_image_of(example) for example in examples], do_rescale=False, return_tensors="pt")
        seed = int(torch.randint(LARGEST_SEED, ()))
        # A loader's worker that was started anew has no process group, but the environment of its process.
        place = {
            "rank": max(rank(), int(os.environ.get("RANK", 0))),
            "world_size": max(world_size(), int(os.environ.get("WORLD_SIZE", 1))),
        }
        maker, inputs = ViewMaker(self.settings, self.image_size_px, seed, **place), {}
        for objective in self.objectives:
            inputs |= getattr(maker, objective)(images["pixel_values"], step=0)
        return inputs


def _image_of(example: Mapping[str, Any]) -> Any:
    for name in COLUMNS:
        if name in example:
            return example[name]
    raise ValueError(
        f"An example has no column `image` or `pixel_values`, but {sorted(example)}. The Trainer takes columns away "
        "that the model does not name: give TrainingArguments(remove_unused_columns=False)."
    )
