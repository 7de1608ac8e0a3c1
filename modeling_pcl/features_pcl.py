"""The features that an encoder's outputs hold, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FEATURES = {"trunk": "pooler_output", "face": "face_features", "pose": "pose_features"}
# What a head or a comparison may read: also both branches together, in which PCL holds what other methods hold in one.
READABLE_FEATURES = (*FEATURES, "face+pose")


def feature_parts(name: str) -> list[str]:
    """The features of an encoder that a head or a comparison reads under one name, in the order of their entries.

    Args:
        name: Out of `READABLE_FEATURES`.

    Raises:
        ValueError: If it is none of these.
    """
    if name not in READABLE_FEATURES:
        raise ValueError(f"`feature` must be one of {', '.join(READABLE_FEATURES)}, got {name!r}.")
    return name.split("+")


def read_feature(outputs: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """One feature of an encoder's outputs, `(batch, dim)`; `"face+pose"` has the face's part first.

    Args:
        outputs: Of `PCLModel`.
        name: Out of `READABLE_FEATURES`.

    Raises:
        ValueError: If the name is none of these.
    """
    import torch  # Here: a command line names features without the seconds that torch takes to import.

    parts = [outputs[FEATURES[part]] for part in feature_parts(name)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
