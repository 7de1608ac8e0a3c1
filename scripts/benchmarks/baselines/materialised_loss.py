"""Plain implementation of the contrastive losses, which materialises and normalises the mixed negatives of each anchor.

Tests compare the value and the gradient of `modeling_pcl.losses_pcl` with it, and `scripts/benchmark.py` compares time
and memory.
"""

import torch
from torch.nn import functional as F


def materialised_face_loss(
    embeddings: torch.Tensor, mix: torch.Tensor, permutation: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Compute InfoNCE over embeddings of which row i and row i + N are views of one image.

    Args:
        embeddings: `(2N, dim)`, not normalised.
        mix: Weight of the unpermuted negative, `(2N, 2N - 2)`.
        permutation: Partner of each negative, `(2N - 2,)`.
        temperature: Divides the cosines.
    """
    rows = len(embeddings)
    is_negative = ~torch.eye(rows // 2, dtype=torch.bool).repeat(2, 2)  # All but the row itself and its positive.
    others = torch.arange(rows).expand(rows, rows)[is_negative].view(rows, rows - 2).to(embeddings.device)
    negatives = embeddings[others]  # (2N, 2N - 2, dim)
    negatives = mix[:, :, None] * negatives + (1 - mix[:, :, None]) * negatives[:, permutation]
    return _info_nce(embeddings, F.normalize(negatives, dim=2), temperature)


def materialised_pose_loss(
    queries: torch.Tensor, negatives: torch.Tensor, mix: torch.Tensor, permutation: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Compute InfoNCE over queries, each against the K mixed negatives of its image.

    Args:
        queries: `(2 * images, dim)`, not normalised; row i and row i + images are views of one image.
        negatives: `(images, K, dim)`.
        mix: `(images, K)`.
        permutation: `(K,)`.
        temperature: Divides the cosines.
    """
    negatives, mix = torch.cat([negatives, negatives]), torch.cat([mix, mix])[:, :, None]
    negatives = mix * negatives + (1 - mix) * negatives[:, permutation]
    return _info_nce(queries, F.normalize(negatives, dim=2), temperature)


def _info_nce(queries: torch.Tensor, negatives: torch.Tensor, temperature: float) -> torch.Tensor:
    queries = F.normalize(queries, dim=1)
    positive = (queries * queries.roll(len(queries) // 2, dims=0)).sum(dim=1, keepdim=True)
    negative = torch.einsum("nd,nkd->nk", queries, negatives)
    logits = torch.cat([positive, negative], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
