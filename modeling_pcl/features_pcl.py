"""Names of the encoder's features, and how to read a feature from the encoder's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FEATURES = {"trunk": "pooler_output", "face": "face_features", "pose": "pose_features"}
# Features that a head or a comparison may read. Both branches together hold what other methods hold in one feature.
READABLE_FEATURES = (*FEATURES, "face+pose")


def feature_parts(name: str) -> list[str]:
    """Split the name of a readable feature into the names of the encoder's features, in concatenation order.

    Args:
        name: One of `READABLE_FEATURES`.

    Raises:
        ValueError: If `name` is not one of `READABLE_FEATURES`.
    """
    if name not in READABLE_FEATURES:
        raise ValueError(f"`feature` must be one of {', '.join(READABLE_FEATURES)}, got {name!r}.")
    return name.split("+")


def read_feature(outputs: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """Read a feature from an encoder's outputs.

    Args:
        outputs: Outputs of `PCLModel`.
        name: One of `READABLE_FEATURES`.

    Returns:
        `(batch, dim)`; for `"face+pose"` the face feature comes first.

    Raises:
        ValueError: If `name` is not one of `READABLE_FEATURES`.
    """
    import torch  # Not at the top: command lines use the names above, and importing torch takes seconds.

    parts = [outputs[FEATURES[part]] for part in feature_parts(name)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
