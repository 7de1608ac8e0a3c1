"""The terms of the PCL objectives, as pure functions of tensors.

Half-precision inputs are raised to float32 and autocast is switched off inside, so that every reduction is exact enough
to train on; float64 stays float64.
"""

import functools

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Logits of a block of anchors: on a CPU what stays in its cache, on a GPU what keeps it busy.
CPU_BLOCK_ENTRIES, GPU_BLOCK_ENTRIES = 2**17, 2**24


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
    materialised: both follow from dot products, so memory is O(N^2); that of `mixed_negative_loss` is less.

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
    anchors = _check_face_contrast(embeddings, mix, permutation, temperature, anchors)
    dots, lengths = embeddings[anchors] @ embeddings.T, _lengths(embeddings)
    return _anchor_logits(dots, lengths, _pair_dots(embeddings, permutation), mix, permutation, temperature, anchors)


@_full_precision
def mixed_negative_loss(
    embeddings: torch.Tensor,
    mix: torch.Tensor | None,
    permutation: torch.Tensor | None,
    temperature: float,
    anchors: torch.Tensor | None = None,
    block_size: int | None = None,
) -> torch.Tensor:
    """InfoNCE loss of `mixed_negative_logits`, a block of anchors at a time, so that logits are never all in memory.

    The gradient is computed along with the loss, block by block, and only scaled in the backward pass; there is no
    second derivative.

    Args:
        embeddings: As for `mixed_negative_logits`, and likewise the next four.
        mix: `(anchors, 2N - 2)` or None.
        permutation: `(2N - 2,)` or None.
        temperature: Positive.
        anchors: `(anchors,)` or None for all rows.
        block_size: Anchors of a block, at least 1; None takes as many as are fast on the device.

    Returns:
        Scalar, at least 0: the mean over the anchors.

    Raises:
        ValueError: If a shape does not fit or `temperature` is not positive.

    Source:
        As for `mixed_negative_logits`.
    """
    if torch.compiler.is_compiling():  # It cannot look into a gradient that is computed in the forward pass.
        return info_nce_loss(mixed_negative_logits(embeddings, mix, permutation, temperature, anchors))
    anchors = _check_face_contrast(embeddings, mix, permutation, temperature, anchors)
    if block_size is None:
        entries = CPU_BLOCK_ENTRIES if embeddings.device.type == "cpu" else GPU_BLOCK_ENTRIES
        block_size = max(1, entries // embeddings.shape[0])
    lengths, pairs = _lengths(embeddings), _pair_dots(embeddings, permutation)
    return _BlockwiseInfoNCE.apply(embeddings, lengths, pairs, mix, permutation, temperature, anchors, block_size)


def _check_face_contrast(
    embeddings: torch.Tensor,
    mix: torch.Tensor | None,
    permutation: torch.Tensor | None,
    temperature: float,
    anchors: torch.Tensor | None,
) -> torch.Tensor:
    """Refuse what does not fit; the anchors, all rows where none are named."""
    rows = embeddings.shape[0]
    if embeddings.dim() != 2 or rows % 2 or rows < 4:
        raise ValueError(f"`embeddings` must be (2N, dim) with N at least 2, got {tuple(embeddings.shape)}.")
    _check_temperature(temperature)
    if anchors is None:
        anchors = torch.arange(rows, device=embeddings.device)
    _check_mix(mix, permutation, (anchors.shape[0], rows - 2))
    return anchors


def _lengths(embeddings: torch.Tensor) -> torch.Tensor:
    return embeddings.norm(dim=1).clamp_min(1e-12)


def _pair_dots(embeddings: torch.Tensor, permutation: torch.Tensor | None) -> torch.Tensor | None:
    """Dot products of all rows that are ever mixed: `(2N - 2, 3, 3)`.

    The k-th negative is row k, k + 1 or k + 2, whether the anchor's own two rows come behind it, around it or before
    it. Entry `(k, i, j)` belongs to rows `k + i` and `permutation[k] + j`.
    """
    if permutation is None:
        return None
    windows = embeddings.unfold(0, 3, 1)  # (2N, dim) -> (2N - 2, dim, 3), a view
    return windows.mT @ windows[permutation]


def _anchor_logits(
    dots: torch.Tensor,
    lengths: torch.Tensor,
    pairs: torch.Tensor | None,
    mix: torch.Tensor | None,
    permutation: torch.Tensor | None,
    temperature: float,
    anchors: torch.Tensor,
) -> torch.Tensor:
    """Logits of some anchors.

    Args:
        dots: Of the anchors with all rows, `(anchors, 2N)`.
        lengths: Of all rows, `(2N,)`.
        pairs: As `_pair_dots` gives them; None where nothing is mixed.
        mix: `(anchors, 2N - 2)`, and the rest as for `mixed_negative_logits`.
    """
    rows = dots.shape[1]
    positives = (anchors + rows // 2) % rows
    columns = torch.arange(rows - 2, device=anchors.device)
    first, second = torch.minimum(anchors, positives)[:, None], torch.maximum(anchors, positives)[:, None]
    passed = (columns >= first).long() + (columns >= second - 1)  # own rows before the k-th negative: 0, 1 or 2
    negatives = columns + passed  # (anchors, 2N - 2)

    positive = dots.gather(1, positives[:, None]) / lengths[positives, None]
    plain = dots.gather(1, negatives)
    if mix is None:
        negative = plain / lengths[negatives]
    else:
        mix = mix.to(dots.dtype)
        rest = 1 - mix
        dot = mix * plain + rest * plain[:, permutation]
        squares = lengths.square()[negatives]
        parts = mix.square() * squares + rest.square() * squares[:, permutation]
        across = pairs.flatten()[9 * columns + 3 * passed + passed[:, permutation]]
        # Where the two nearly cancel out, the rest is rounding: keep it from being blown up to unit length.
        least_square = 8 * torch.finfo(dots.dtype).eps * parts.detach()
        negative = dot / torch.maximum(parts + 2 * mix * rest * across, least_square).sqrt()
    return torch.cat([positive, negative], dim=1) / (lengths[anchors, None] * temperature)


class _BlockwiseInfoNCE(torch.autograd.Function):
    """Mean InfoNCE loss over anchors, from embeddings and what `_anchor_logits` takes beside their dot products."""

    @staticmethod
    def forward(ctx, embeddings, lengths, pairs, mix, permutation, temperature, anchors, block_size):
        is_trained = any(ctx.needs_input_grad)
        shared = [None if tensor is None else tensor.detach().requires_grad_() for tensor in (lengths, pairs)]
        leaves = [tensor for tensor in shared if tensor is not None]
        gradients = [torch.zeros_like(tensor) for tensor in (embeddings, *leaves)]
        total = embeddings.new_zeros(())
        for block in torch.arange(len(anchors), device=anchors.device).split(block_size):
            rows = anchors[block]
            anchor_rows = embeddings[rows]
            dots = (anchor_rows @ embeddings.T).requires_grad_()
            with torch.set_grad_enabled(is_trained):
                own_mix = None if mix is None else mix[block]
                logits = _anchor_logits(dots, *shared, own_mix, permutation, temperature, rows)
                loss = F.cross_entropy(logits, _first_column(logits), reduction="sum") / len(anchors)
            total += loss.detach()
            if is_trained:
                of_dots, *of_leaves = torch.autograd.grad(loss, (dots, *leaves))
                gradients[0].addmm_(of_dots.T, anchor_rows).index_add_(0, rows, of_dots @ embeddings)
                for gradient, part in zip(gradients[1:], of_leaves):
                    gradient += part
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        gradients = [gradient * saved for saved in ctx.saved_tensors]
        return *gradients, *[None] * (8 - len(gradients))


def _first_column(logits: torch.Tensor) -> torch.Tensor:
    return logits.new_zeros(logits.shape[0], dtype=torch.long)


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
    return F.cross_entropy(logits, _first_column(logits))
