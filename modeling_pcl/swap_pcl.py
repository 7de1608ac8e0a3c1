"""Swaps: what the decoder keeps of one image, and what it takes from another."""

import torch
from torch import nn

EXCHANGES = ("pose", "turn")


def split_for_swap(
    encoder: nn.Module, pixel_values: torch.Tensor, exchange: str = "pose"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode images as two features that `PCLForPreTraining.decode` combines, one to keep and one to exchange.

    Both features of one image draw it again. The first of one image with the second of another draws a swap.

    Args:
        encoder: The `PCLModel` of the model that decodes.
        pixel_values: `(batch, num_channels, side, side)` in [0, 1].
        exchange: `pose` keeps the face feature and exchanges the pose feature, as published. Pose features hold much of
            how a face looks, so that a swap may show the face that gave the pose. `turn` exchanges only the part of the
            pose feature that changes its sign if the image is mirrored, half of its difference to that of the mirror:
            to which side the head is turned and tilted. The rest is kept, which costs a second pass. Both are divided
            by the length of the sum of the image's face and pose features, as which it counts alike in every swap.

    Returns:
        What to keep and what to exchange, each `(batch, feature_size)`.

    Raises:
        ValueError: If `exchange` is not one of `EXCHANGES`.
    """
    if exchange not in EXCHANGES:
        raise ValueError(f"`exchange` must be one of {', '.join(EXCHANGES)}, got {exchange!r}.")
    outputs = encoder(pixel_values)
    face, pose = outputs.face_features, outputs.pose_features
    if exchange == "pose":
        return face, pose
    turn = (pose - encoder(pixel_values.flip(3), mirror_invariant_face=False).pose_features) / 2
    length = (face + pose).norm(dim=1, keepdim=True).clamp_min(1e-12)  # A black image may have features of zeros.
    return (face + pose - turn) / length, turn / length
