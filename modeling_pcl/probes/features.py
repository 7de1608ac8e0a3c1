"""A frozen model's features of a corpus."""

from collections.abc import Iterable

import torch
from tqdm.auto import tqdm

FEATURES = {"trunk": "pooler_output", "face": "face_features", "pose": "pose_features"}


@torch.no_grad()
def extract_features(model, batches: Iterable[torch.Tensor], total: int | None = None) -> dict[str, torch.Tensor]:
    """Encode images with a frozen encoder.

    Args:
        model: A `PCLModel`; put into eval mode.
        batches: Images, `(batch, 3, height, width)` uint8 or float in [0, 1], all of one size.
        total: Number of batches, for the progress bar.

    Returns:
        `trunk`, `face` and `pose`, each `(images, dim)` float32 on the CPU, in the order of the images.

    Raises:
        ValueError: If there are no images.
    """
    model.eval()
    rows = {name: [] for name in FEATURES}
    for images in tqdm(batches, total=total, desc="features", unit="batch", leave=False):
        images = images.to(model.device)
        pixel_values = images.float() / 255 if images.dtype == torch.uint8 else images
        outputs = model(pixel_values)
        for name, output_name in FEATURES.items():
            rows[name].append(outputs[output_name].float().cpu())
    if not rows["trunk"]:
        raise ValueError("There are no images to extract features from.")
    return {name: torch.cat(parts) for name, parts in rows.items()}
