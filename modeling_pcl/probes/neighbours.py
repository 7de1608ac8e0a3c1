"""Classes by the nearest training images."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors


def nearest_neighbours(
    train: torch.Tensor,
    train_labels: Sequence | np.ndarray | torch.Tensor,
    test: torch.Tensor,
    ks: Sequence[int] = (5, 20),
) -> dict[int, np.ndarray]:
    """Classify images by a majority vote of the training images of highest cosine, exactly, with one search for all k.

    Args:
        train: Features, `(train images, dim)`, any floating dtype.
        train_labels: Their classes, `(train images,)`, numbers or names.
        test: Features, `(test images, dim)`.
        ks: How many images vote.

    Returns:
        For each k the predicted classes, `(test images,)`, out of those in `train_labels`. Where classes have equally
        many votes, the one with the nearest image of all of theirs wins.

    Raises:
        ValueError: If there are fewer training images than the largest k, a k is below 1, the labels are not one for
            each training image, or features are not finite.
    """
    labels = np.asarray(train_labels)
    _check(train, labels, test, ks)
    search = NearestNeighbors(n_neighbors=max(ks), metric="cosine", algorithm="brute").fit(train.float().numpy())
    nearest = labels[search.kneighbors(test.float().numpy(), return_distance=False)]  # (test images, largest k)
    return {k: _vote(nearest[:, :k]) for k in ks}


def _vote(nearest: np.ndarray) -> np.ndarray:
    """The most frequent class of each row of `(images, k)`, whose columns begin with the nearest."""
    votes = (nearest[:, :, None] == nearest[:, None, :]).sum(axis=2)  # (images, k): for the class of each neighbour
    return nearest[np.arange(len(nearest)), votes.argmax(axis=1)]  # argmax takes the first, which is the nearest.


def _check(train: torch.Tensor, labels: np.ndarray, test: torch.Tensor, ks: Sequence[int]):
    if labels.shape != train.shape[:1]:
        raise ValueError(f"`train_labels` must be {train.shape[0]} classes, got the shape {labels.shape}.")
    if not ks or min(ks) < 1 or max(ks) > len(labels):
        raise ValueError(
            f"`ks` must be from 1 to the number of training images, {len(labels)}, got {tuple(ks)}; "
            "lower them or give more images."
        )
    for name, features in (("train", train), ("test", test)):
        if not features.isfinite().all():
            raise ValueError(f"`{name}` must be finite features, got NaN or infinity; leave out such images.")
