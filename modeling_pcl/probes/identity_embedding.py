"""A linear embedding of features in which images of the same person are close together."""

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
    """Compute the cross-entropy over identities, with cosines as logits.

    Args:
        embeddings: `(batch, dim)`.
        centres: One direction per identity, `(identities, dim)`.
        identities: Identity of each row, `(batch,)` int64.

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
    """Train a linear layer on standardised features whose outputs tell people apart by their cosine.

    People with a single image are left out.

    Args:
        features: `(images, features)`, any floating dtype, may be memory-mapped.
        subjects: Person in each image, `(images,)`.
        held_out_score: Maps weight and bias, as in the result, to a score on other people; higher is better. It is
            called after every epoch, and the best epoch of all learning rates is kept. None trains with the first
            learning rate only and keeps its last epoch.
        dim: Size of the embedding.
        epochs: Passes over the images for each learning rate.
        learning_rates: Candidates for Adam's learning rate, which decays to zero along a cosine.
        seed: Seed of the initial weights and of the order of the images, the same for each learning rate.

    Raises:
        ValueError: If fewer than two people have two images, or no epoch has a score above minus infinity.
    """
    rows, identities = _select_usable_rows(subjects)
    scaler = StandardScaler()
    for batch in rows.split(BATCH_SIZE):  # In batches, because a float32 copy of all features may not fit in memory.
        scaler.partial_fit(features[batch].float().numpy())
    mean, scale = torch.from_numpy(scaler.mean_).float(), torch.from_numpy(scaler.scale_).float()

    def train(rate: float) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield weight and bias on raw features after every epoch."""
        generator = torch.Generator().manual_seed(seed)
        weight = (torch.randn(dim, len(mean), generator=generator) / math.sqrt(len(mean))).requires_grad_()
        bias = torch.zeros(dim, requires_grad=True)
        centres = torch.randn(int(identities.max()) + 1, dim, generator=generator).requires_grad_()
        optimizer = torch.optim.Adam([weight, bias, centres], lr=rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * math.ceil(len(rows) / BATCH_SIZE))
        for _ in progress(range(epochs), desc=f"identities, learning rate {rate:g}", unit="epoch", leave=False):
            for positions in torch.randperm(len(rows), generator=generator).split(BATCH_SIZE):
                standardised = (features[rows[positions]].float() - mean) / scale
                optimizer.zero_grad()
                normalised_softmax_loss(F.linear(standardised, weight, bias), centres, identities[positions]).backward()
                optimizer.step()
                schedule.step()
            # W (x - mean) / scale + b  =  (W / scale) x + (b - (W / scale) mean)
            folded = weight.detach() / scale
            yield folded, bias.detach() - folded @ mean

    selection, best_probe = Selection(), None
    for rate in learning_rates if held_out_score else learning_rates[:1]:
        candidate = {"learning_rate": rate}
        for epoch, (weight, bias) in enumerate(train(rate), start=1):
            if held_out_score is None:
                best_probe = LinearProbe(weight, bias, Selection(candidate, epoch, score=None))
            elif selection.add(candidate, epoch, held_out_score(weight, bias)):
                best_probe = LinearProbe(weight, bias, selection)
    if best_probe is None:
        raise ValueError("No epoch of the identity embedding has a valid score; lower `learning_rates`.")
    return best_probe


def _select_usable_rows(subjects: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Select the rows of people with at least two images.

    Returns:
        The rows, and the identity of each, numbered from 0; both `(usable images,)`.
    """
    _, people, counts = np.unique(np.asarray(subjects), return_inverse=True, return_counts=True)
    is_usable = counts >= 2
    if is_usable.sum() < 2:
        raise ValueError(
            f"There must be at least 2 people with at least 2 images each, got {is_usable.sum()} of {len(counts)}; "
            "give another `--train`."
        )
    if not is_usable.all():
        logger.warning("%d of %d people have a single image and are left out.", (~is_usable).sum(), len(counts))
    (rows,) = np.nonzero(is_usable[people])
    numbers = np.cumsum(is_usable) - 1
    return torch.from_numpy(rows), torch.from_numpy(numbers[people[rows]])
