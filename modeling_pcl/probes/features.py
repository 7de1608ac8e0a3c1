"""A frozen model's features of images."""

from collections.abc import Sequence
from typing import Literal

import torch

from ..features_pcl import FEATURES
from ..progress import progress

Precision = Literal["bf16", "float32"]


@torch.no_grad()
def encode(model, images: torch.Tensor, precision: Precision = "bf16") -> dict[str, torch.Tensor]:
    """Encode a batch of images with a frozen encoder.

    Args:
        model: A `PCLModel`; put into eval mode and channels-last order, on any device.
        images: `(batch, 3, height, width)` uint8 or float in [0, 1].
        precision: `"bf16"` computes by autocast and gives bfloat16; `"float32"` is what the model's `forward` gives.

    Returns:
        `trunk`, `face` and `pose`, each `(batch, dim)` on the CPU.
    """
    model.eval().to(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    images = images.to(model.device, memory_format=torch.channels_last)
    pixel_values = images.float() / 255 if images.dtype == torch.uint8 else images
    with torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = model(pixel_values, return_dict=True)
    return {name: outputs[output_name].to(dtype).cpu() for name, output_name in FEATURES.items()}


def extract_features(
    model, batches: Sequence[torch.Tensor], precision: Precision = "float32"
) -> dict[str, torch.Tensor]:
    """Encode images with a frozen encoder, all features kept in memory.

    Args:
        model: As for `encode`.
        batches: Of images, as for `encode`, at least one.
        precision: As for `encode`.

    Returns:
        `trunk`, `face` and `pose`, each `(images, dim)` on the CPU, in the order of the images.
    """
    encoded = [
        encode(model, images, precision) for images in progress(batches, desc="features", unit="batch", leave=False)
    ]
    return {name: torch.cat([rows[name] for rows in encoded]) for name in FEATURES}
