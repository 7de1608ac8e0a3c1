"""The terms of the PCL objectives, as pure functions of tensors.

Half-precision inputs are raised to float32 and autocast is switched off inside, so that every reduction is exact enough
to train on; float64 stays float64.
"""

import functools

import torch
from torch.nn import functional as F


def _full_precision(loss):
    """Run a loss outside of autocast, on tensors of at least float32."""

    def raised(value):
        is_half = isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        return value.float() if is_half else value

    @functools.wraps(loss)
    def wrapper(*args, **kwargs):
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return loss(*map(raised, args), **{name: raised(value) for name, value in kwargs.items()})

    return wrapper


def _check_paired(face: torch.Tensor, pose: torch.Tensor, least_rows: int):
    if face.dim() != 2 or face.shape != pose.shape or face.shape[0] < least_rows:
        raise ValueError(
            f"`face` and `pose` must both be (batch, dim) with a batch of at least {least_rows}, "
            f"got {tuple(face.shape)} and {tuple(pose.shape)}."
        )


@_full_precision
def orthogonality_loss(face: torch.Tensor, pose: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """Penalise linear dependence between face-aware and pose-related features over a batch.

    Computed from the two `(batch, batch)` Gram matrices, whose product has the same sum as the squared entries of the
    `(dim, dim)` cross product.

    Args:
        face: Face-aware features, `(batch, dim)`.
        pose: Pose-related features, `(batch, dim)`, rows paired with `face`.
        eps: Added to every row length so that a constant batch gives 0, not NaN.

    Returns:
        Scalar, at least 0 up to rounding: the mean squared entry of the `(dim, dim)` cross product.

    Raises:
        ValueError: If the shapes differ or the batch has fewer than two rows.

    Source:
        Liu et al. 2023, orthogonalizing regulation. Row lengths carry no gradient.
    """
    _check_paired(face, pose, least_rows=2)

    def unit_rows(features):
        centred = features - features.mean(dim=0)
        return centred / (centred.detach().norm(dim=1, keepdim=True) + eps)

    face, pose = unit_rows(face), unit_rows(pose)
    return ((face @ face.T) * (pose @ pose.T)).sum() / face.shape[1] ** 2


@_full_precision
def cosine_orthogonality_loss(face: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """Penalise the angle between the two features of each sample. Differs from the paper: see `orthogonality_loss`.

    Args:
        face: Face-aware features, `(batch, dim)`.
        pose: Pose-related features, `(batch, dim)`, rows paired with `face`.

    Returns:
        Scalar in [0, 1]: the mean squared cosine between paired rows; a row of zeros counts as orthogonal.

    Raises:
        ValueError: If the shapes differ or the batch is empty.
    """
    _check_paired(face, pose, least_rows=1)
    return F.cosine_similarity(face, pose, dim=1).square().mean()


def _check_mix(mix: torch.Tensor | None, permutation: torch.Tensor | None, shape: tuple[int, int]):
    if mix is None and permutation is None:
        return
    if mix is None or permutation is None or mix.shape != shape or permutation.shape != shape[1:]:
        raise ValueError(
            f"`mix` must be {shape} and `permutation` {shape[1:]}, or both None; "
            f"got {None if mix is None else tuple(mix.shape)} and "
            f"{None if permutation is None else tuple(permutation.shape)}."
        )


def _check_temperature(temperature: float):
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}.")


@_full_precision
def mixed_negative_logits(
    embeddings: torch.Tensor,
    mix: torch.Tensor | None,
    permutation: torch.Tensor | None,
    temperature: float,
    anchors: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits of the face contrast: each row against its positive and its mixed negatives.

    Row i is paired with row (i + N) mod 2N; its negatives are all other rows, in ascending order. Negative k becomes
    `mix[i, k] * n_k + (1 - mix[i, k]) * n_permutation[k]`, then unit length. Neither the mixtures nor their lengths are
    materialised: both follow from the Gram matrix of the embeddings, so memory is O(N^2).

    Args:
        embeddings: `(2N, dim)`, not normalised, N at least 2: first view of every image, then the second views.
        mix: Share of the unpermuted negative, in [0, 1], `(anchors, 2N - 2)`; None for plain negatives.
        permutation: Partner of each negative, a permutation of `2N - 2` columns; None with `mix`.
        temperature: Divides the cosines, positive.
        anchors: Rows to compute logits for, `(anchors,)` integers; None means all 2N.

    Returns:
        `(anchors, 2N - 1)`, the positive in column 0; cross-entropy with target 0 is the InfoNCE loss.

    Raises:
        ValueError: If a shape does not fit or `temperature` is not positive.

    Source:
        Liu et al. 2023, face-aware contrastive learning, with the negatives mixed as in their released code.
    """
    rows = embeddings.shape[0]
    if embeddings.dim() != 2 or rows % 2 or rows < 4:
        raise ValueError(f"`embeddings` must be (2N, dim) with N at least 2, got {tuple(embeddings.shape)}.")
    _check_temperature(temperature)
    if anchors is None:
        anchors = torch.arange(rows, device=embeddings.device)
    _check_mix(mix, permutation, (anchors.shape[0], rows - 2))

    gram = embeddings @ embeddings.T
    lengths = embeddings.norm(dim=1).clamp_min(1e-12)
    positives = (anchors + rows // 2) % rows
    negatives = _negative_columns(anchors, positives, rows)

    dots = gram[anchors]
    positive = dots.gather(1, positives[:, None]) / lengths[positives, None]
    plain = dots.gather(1, negatives)
    if mix is None:
        negative = plain / lengths[negatives]
    else:
        mix = mix.to(gram.dtype)
        partners = negatives[:, permutation]
        across = gram.flatten().gather(0, (negatives * rows + partners).flatten()).view_as(mix)
        squares = lengths.square()
        unpermuted, permuted = mix.square() * squares[negatives], (1 - mix).square() * squares[partners]
        mixed_square = unpermuted + permuted + 2 * mix * (1 - mix) * across
        # Where the two nearly cancel out, the rest is rounding: keep it from being blown up to unit length.
        least_square = 8 * torch.finfo(gram.dtype).eps * (unpermuted + permuted).detach()
        mixed_dot = mix * plain + (1 - mix) * dots.gather(1, partners)
        negative = mixed_dot / torch.maximum(mixed_square, least_square).sqrt()
    return torch.cat([positive, negative], dim=1) / (lengths[anchors, None] * temperature)


def _negative_columns(anchors: torch.Tensor, positives: torch.Tensor, rows: int) -> torch.Tensor:
    """For each anchor all rows but itself and its positive, ascending: `(anchors, rows - 2)`."""
    columns = torch.arange(rows - 2, device=anchors.device)
    first, second = torch.minimum(anchors, positives)[:, None], torch.maximum(anchors, positives)[:, None]
    columns = columns + (columns >= first)
    return columns + (columns >= second)


@_full_precision
def pose_logits(
    queries: torch.Tensor,
    negatives: torch.Tensor,
    mix: torch.Tensor | None,
    permutation: torch.Tensor | None,
    temperature: float,
) -> torch.Tensor:
    """Logits of the pose contrast: two views of an image against each other and against its mixed negatives.

    Args:
        queries: `(2 * images, dim)`, not normalised: first view of every image, then the second views.
        negatives: `(images, K, dim)`, not normalised; shared by the two views of an image.
        mix: Share of the unpermuted negative, in [0, 1], `(images, K)`; None for plain negatives.
        permutation: Partner of each negative, a permutation of K columns; None with `mix`.
        temperature: Divides the cosines, positive.

    Returns:
        `(2 * images, 1 + K)`, the positive in column 0.

    Raises:
        ValueError: If a shape does not fit or `temperature` is not positive.

    Source:
        Liu et al. 2023, pose-related contrastive learning, with the negatives mixed as in their released code.
    """
    if negatives.dim() != 3 or queries.shape != (2 * negatives.shape[0], negatives.shape[2]):
        raise ValueError(
            "`queries` must be (2 * images, dim) and `negatives` (images, K, dim), "
            f"got {tuple(queries.shape)} and {tuple(negatives.shape)}."
        )
    _check_temperature(temperature)
    _check_mix(mix, permutation, tuple(negatives.shape[:2]))
    if mix is not None:
        mix = mix.to(negatives.dtype)[:, :, None]
        negatives = mix * negatives + (1 - mix) * negatives[:, permutation]
    first, second = F.normalize(queries, dim=1).chunk(2)
    positive = (first * second).sum(dim=1).repeat(2)  # (images,) -> (2 * images,)
    views = torch.stack([first, second], dim=2)  # (images, dim, 2)
    negative = (F.normalize(negatives, dim=2) @ views).permute(2, 0, 1).flatten(0, 1)  # -> (2 * images, K)
    return torch.cat([positive[:, None], negative], dim=1) / temperature


@_full_precision
def info_nce_loss(logits: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits whose positive is column 0.

    Args:
        logits: `(rows, 1 + negatives)`.

    Returns:
        Scalar, at least 0; log(1 + negatives) at chance level.
    """
    return F.cross_entropy(logits, logits.new_zeros(logits.shape[0], dtype=torch.long))
