"""Classes by the nearest training images."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier


def nearest_neighbours(
    train: torch.Tensor, train_labels: Sequence | np.ndarray | torch.Tensor, test: torch.Tensor, k: int
) -> np.ndarray:
    """Classify images by a majority vote of the training images of highest cosine, exactly.

    Args:
        train: Features, `(train images, dim)`, any floating dtype.
        train_labels: Their classes, `(train images,)`, numbers or names.
        test: Features, `(test images, dim)`.
        k: How many images vote.

    Returns:
        The predicted classes, `(test images,)`; of several with as many votes the first in order.

    Raises:
        ValueError: If there are fewer training images than k, k is below 1, the labels are not one for each training
            image, or features are not finite.
    """
    if not 1 <= k <= len(train):
        raise ValueError(f"`k` must be from 1 to the number of training images, {len(train)}, got {k}.")
    classifier = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    return classifier.fit(train.float().numpy(), np.asarray(train_labels)).predict(test.float().numpy())
