"""Same person or not, by the cosine of two features."""

import numpy as np
import torch
from torch.nn import functional as F

from .feature_cache import JoinedFeatures

ROWS_AT_ONCE = 4096


def pair_cosines(features: torch.Tensor | JoinedFeatures, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Score pairs of images.

    Args:
        features: `(images, dim)`, memory-mapped if need be.
        first: Row of each pair's one image, `(pairs,)`.
        second: Row of its other image, `(pairs,)`.

    Returns:
        Cosines in [-1, 1], `(pairs,)` float64.

    Raises:
        ValueError: If the pairs are not as many on both sides.
    """
    if len(first) != len(second):
        raise ValueError(f"`first` and `second` must be as many rows, got {len(first)} and {len(second)}.")
    cosines = []
    for start in range(0, len(first), ROWS_AT_ONCE):
        sides = (torch.from_numpy(rows[start : start + ROWS_AT_ONCE]) for rows in (first, second))
        cosines.append(F.cosine_similarity(*(features[rows].double() for rows in sides)).numpy())
    return np.concatenate(cosines) if cosines else np.empty(0)
