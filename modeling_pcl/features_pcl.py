"""The features that an encoder's outputs hold, by name."""

from collections.abc import Mapping

import torch

FEATURES = {"trunk": "pooler_output", "face": "face_features", "pose": "pose_features"}
# What a head or a comparison may read: also both branches together, in which PCL holds what other methods hold in one.
READABLE_FEATURES = (*FEATURES, "face+pose")


def read_feature(outputs: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """One feature of an encoder's outputs, `(batch, dim)`; `"face+pose"` has the face's part first.

    Args:
        outputs: Of `PCLModel`.
        name: Out of `READABLE_FEATURES`.
    """
    parts = [outputs[FEATURES[part]] for part in name.split("+")]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
