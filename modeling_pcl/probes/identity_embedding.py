"""A linear embedding of features in which images of one person lie close together."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from ..progress import progress
from .linear import LinearProbe
from .objectives import Selection

logger = logging.getLogger(__name__)

BATCH_SIZE = 256
# The loss cannot fall below a bound (NormFace, proposition 2): with 1,000 identities 5.9 at a scale of 1, 1e-4 at 16.
SCALE = 16.0


def normalised_softmax_loss(embeddings: torch.Tensor, centres: torch.Tensor, identities: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over identities by cosine.

    Args:
        embeddings: `(batch, dim)`.
        centres: One direction for each identity, `(identities, dim)`.
        identities: Whose image each row is, `(batch,)` int64.

    Returns:
        Scalar, at least 0: mean over the batch of the cross-entropy of `SCALE` times the cosines.

    Source:
        Wang et al. 2017, NormFace, normalised softmax. Differs from the paper: the scale is fixed, not learnt.
    """
    cosines = F.normalize(embeddings, dim=1) @ F.normalize(centres, dim=1).T
    return F.cross_entropy(SCALE * cosines, identities)


def train_identity_embedding(
    features: torch.Tensor,
    subjects: Sequence[str],
    held_out_score: Callable[[torch.Tensor, torch.Tensor], float] | None,
    dim: int = 128,
    epochs: int = 50,
    learning_rates: Sequence[float] = (3e-2, 1e-2),
    seed: int = 0,
) -> LinearProbe:
    """Train a linear layer on standardised features, whose outputs are compared by their cosine, to tell people apart.

    People with a single image are left out.

    Args:
        features: `(images, features)`, any floating dtype, memory-mapped if need be.
        subjects: Who each image shows, `(images,)`.
        held_out_score: From weight and bias, as in the result, to a score of other people; the higher, the better.
            Called after every epoch; the best epoch of all learning rates is kept. None trains the first learning rate
            only and keeps its last epoch.
        dim: Size of the embedding.
        epochs: Passes over the images for each learning rate.
        learning_rates: Of Adam, each brought to zero by a cosine.
        seed: Of the initial weights and the order of the images; the same for each learning rate.

    Raises:
        ValueError: If fewer than two people have two images, or no epoch has a score above minus infinity.
    """
    rows, identities = _select_usable_rows(subjects)
    scaler = StandardScaler()
    for some in rows.split(BATCH_SIZE):  # Without a copy of all features.
        scaler.partial_fit(features[some].float().numpy())
    mean, scale = torch.from_numpy(scaler.mean_).float(), torch.from_numpy(scaler.scale_).float()

    def train(rate: float) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Weight and bias on raw features after every epoch."""
        generator = torch.Generator().manual_seed(seed)
        weight = (torch.randn(dim, len(mean), generator=generator) / math.sqrt(len(mean))).requires_grad_()
        bias = torch.zeros(dim, requires_grad=True)
        centres = torch.randn(int(identities.max()) + 1, dim, generator=generator).requires_grad_()
        optimizer = torch.optim.Adam([weight, bias, centres], lr=rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * math.ceil(len(rows) / BATCH_SIZE))
        for _ in progress(range(epochs), desc=f"identities, learning rate {rate:g}", unit="epoch", leave=False):
            for places in torch.randperm(len(rows), generator=generator).split(BATCH_SIZE):
                standardised = (features[rows[places]].float() - mean) / scale
                optimizer.zero_grad()
                normalised_softmax_loss(F.linear(standardised, weight, bias), centres, identities[places]).backward()
                optimizer.step()
                schedule.step()
            # W (x - mean) / scale + b  =  (W / scale) x + (b - (W / scale) mean)
            folded = weight.detach() / scale
            yield folded, bias.detach() - folded @ mean

    selection, kept = Selection(), None
    for rate in learning_rates if held_out_score else learning_rates[:1]:
        candidate = {"learning_rate": rate}
        for epoch, (weight, bias) in enumerate(train(rate), start=1):
            if held_out_score is None:
                kept = LinearProbe(weight, bias, Selection(candidate, epoch, score=None))
            elif selection.add(candidate, epoch, held_out_score(weight, bias)):
                kept = LinearProbe(weight, bias, selection)
    if kept is None:
        raise ValueError("No epoch of the identity embedding has a score; lower `learning_rates`.")
    return kept


def _select_usable_rows(subjects: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of people with two images or more, and their numbers from 0, both `(usable images,)`."""
    _, people, counts = np.unique(np.asarray(subjects), return_inverse=True, return_counts=True)
    usable = counts >= 2
    if usable.sum() < 2:
        raise ValueError(
            f"There must be at least 2 people with at least 2 images each, got {usable.sum()} of {len(counts)}; give "
            "another `--train`."
        )
    if not usable.all():
        logger.warning("%d of %d people have a single image and are left out.", (~usable).sum(), len(counts))
    (rows,) = np.nonzero(usable[people])
    numbers = np.cumsum(usable) - 1
    return torch.from_numpy(rows), torch.from_numpy(numbers[people[rows]])
