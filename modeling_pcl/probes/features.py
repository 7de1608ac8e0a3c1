"""A frozen model's features of images."""

from collections.abc import Iterable, Iterator
from typing import Literal

import torch

from ..features_pcl import FEATURES
from ..progress import progress

Precision = Literal["bf16", "float32"]


def encode(model, batches: Iterable[torch.Tensor], precision: Precision = "bf16") -> Iterator[dict[str, torch.Tensor]]:
    """Encode images batch by batch with a frozen encoder.

    The next batch is made while an accelerator works on the last one.

    Args:
        model: A `PCLModel`; put into eval mode and channels-last order, on any device.
        batches: Images, `(batch, 3, height, width)` uint8 or float in [0, 1], all of one size.
        precision: `"bf16"` computes by autocast and gives bfloat16; `"float32"` is what the model's `forward` gives.

    Yields:
        For each batch `trunk`, `face` and `pose`, each `(batch, dim)` on the CPU.
    """
    model.eval().to(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    running = None
    for images in batches:
        following = _encode_batch(model, images, dtype)
        if running is not None:
            yield {name: rows.cpu() for name, rows in running.items()}
        running = following
    if running is not None:
        yield {name: rows.cpu() for name, rows in running.items()}


@torch.no_grad()
def _encode_batch(model, images: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    images = images.to(model.device, memory_format=torch.channels_last)
    pixel_values = images.float() / 255 if images.dtype == torch.uint8 else images
    with torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = model(pixel_values, return_dict=True)
    return {name: outputs[output_name].to(dtype) for name, output_name in FEATURES.items()}


def extract_features(
    model, batches: Iterable[torch.Tensor], precision: Precision = "float32"
) -> dict[str, torch.Tensor]:
    """Encode images with a frozen encoder, all features kept in memory.

    Args:
        model: A `PCLModel`; put into eval mode and channels-last order.
        batches: As for `encode`.
        precision: As for `encode`.

    Returns:
        `trunk`, `face` and `pose`, each `(images, dim)` on the CPU, in the order of the images.

    Raises:
        ValueError: If there are no images.
    """
    encoded = list(progress(encode(model, batches, precision), desc="features", unit="batch", leave=False))
    if not encoded:
        raise ValueError("There are no images to extract features from.")
    return {name: torch.cat([rows[name] for rows in encoded]) for name in FEATURES}
