"""The terms of the PCL objectives, as pure functions of tensors.

Half-precision inputs are converted to float32 and autocast is disabled inside, because reductions in half precision
would be too inexact to train on. float64 stays float64.
"""

import functools

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Number of logits in one block of anchors: few enough for the cache of a CPU, and enough to keep a GPU busy.
CPU_BLOCK_ENTRIES, GPU_BLOCK_ENTRIES = 2**17, 2**24


def _full_precision(loss):
    """Decorate a loss so that it runs without autocast and on tensors of at least float32."""

    def cast(value):
        is_half = isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        return value.float() if is_half else value

    @functools.wraps(loss)
    def wrapper(*args, **kwargs):
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return loss(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})

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

    Args:
        face: Face-aware features, `(batch, dim)`.
        pose: Pose-related features, `(batch, dim)`, rows paired with `face`.
        eps: Added to every row length so that a constant batch gives 0, not NaN.

    Returns:
        Scalar, at least 0 up to rounding: the mean squared entry of the `(dim, dim)` cross product.

    Raises:
        ValueError: If the shapes differ or the batch has fewer than two rows.

    Source:
        Liu et al. 2023, orthogonalizing regulation. Row lengths carry no gradient. About 1e-6 at random weights.
    """
    _check_paired(face, pose, least_rows=2)

    def unit_rows(features):
        centred = features - features.mean(dim=0)
        return centred / (centred.detach().norm(dim=1, keepdim=True) + eps)

    face, pose = unit_rows(face), unit_rows(pose)
    # Equals (face.T @ pose).square().mean(), but with (batch, batch) instead of (dim, dim) matrices.
    return ((face @ face.T) * (pose @ pose.T)).sum() / face.shape[1] ** 2


@_full_precision
def cosine_orthogonality_loss(face: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """Penalise the cosine between the face-aware and the pose-related feature of each sample.

    Differs from the paper: `orthogonality_loss` is the published form.

    Args:
        face: Face-aware features, `(batch, dim)`.
        pose: Pose-related features, `(batch, dim)`, rows paired with `face`.

    Returns:
        Scalar in [0, 1]: the mean squared cosine between paired rows. A row of zeros counts as orthogonal.

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
    """Compute the logits of the face contrast: each row against its positive and its mixed negatives.

    Row i is paired with row (i + N) mod 2N; its negatives are all other rows, in ascending order. Negative k becomes
    `mix[i, k] * n_k + (1 - mix[i, k]) * n_permutation[k]` and is then normalised to unit length. The mixed negatives
    are not materialised: their dot products and lengths follow from the dot products of the rows, so that memory is
    O(N^2) and not O(N^2 * dim). `mixed_negative_loss` needs less.

    Args:
        embeddings: `(2N, dim)`, not normalised, N at least 2: the first view of every image, then the second views.
        mix: Weight of the unpermuted negative, in [0, 1], `(anchors, 2N - 2)`; None for plain negatives.
        permutation: Partner of each negative, a permutation of `2N - 2` columns; None together with `mix`.
        temperature: Divides the cosines; positive.
        anchors: Rows for which to compute logits, `(anchors,)` integers; None means all 2N.

    Returns:
        `(anchors, 2N - 1)`, the positive in column 0; cross-entropy with target 0 is the InfoNCE loss.

    Raises:
        ValueError: If a shape does not fit or `temperature` is not positive.

    Source:
        Liu et al. 2023, face-aware contrastive learning, with the negatives mixed as in their released code.
    """
    anchors = _check_face_contrast(embeddings, mix, permutation, temperature, anchors)
    dots, lengths = embeddings[anchors] @ embeddings.T, _compute_row_lengths(embeddings)
    pairs = _compute_pair_dots(embeddings, permutation)
    return _compute_anchor_logits(dots, lengths, pairs, mix, permutation, temperature, anchors)


@_full_precision
def mixed_negative_loss(
    embeddings: torch.Tensor,
    mix: torch.Tensor | None,
    permutation: torch.Tensor | None,
    temperature: float,
    anchors: torch.Tensor | None = None,
    block_size: int | None = None,
) -> torch.Tensor:
    """Compute the InfoNCE loss of `mixed_negative_logits` in blocks of anchors.

    Equals `info_nce_loss(mixed_negative_logits(...))`, but never holds all logits in memory. The gradient is computed
    in the forward pass, block by block, and only scaled in the backward pass; there is no second derivative. For 512
    embeddings, forward and backward take 19 MiB, where written-out negatives take 3 GiB (`hub_cards/results.md`).

    Args:
        embeddings: As for `mixed_negative_logits`, and likewise the other arguments.
        block_size: Number of anchors in a block, at least 1; None chooses a size that is fast on the device.

    Returns:
        Scalar, at least 0: the mean over the anchors.

    Raises:
        ValueError: If a shape does not fit or `temperature` is not positive.

    Source:
        As for `mixed_negative_logits`.
    """
    if torch.compiler.is_compiling():  # torch.compile cannot trace torch.autograd.grad inside a forward pass.
        return info_nce_loss(mixed_negative_logits(embeddings, mix, permutation, temperature, anchors))
    anchors = _check_face_contrast(embeddings, mix, permutation, temperature, anchors)
    if block_size is None:
        entries = CPU_BLOCK_ENTRIES if embeddings.device.type == "cpu" else GPU_BLOCK_ENTRIES
        block_size = max(1, entries // embeddings.shape[0])
    lengths, pairs = _compute_row_lengths(embeddings), _compute_pair_dots(embeddings, permutation)
    return _BlockwiseInfoNCE.apply(embeddings, lengths, pairs, mix, permutation, temperature, anchors, block_size)


def _check_face_contrast(
    embeddings: torch.Tensor,
    mix: torch.Tensor | None,
    permutation: torch.Tensor | None,
    temperature: float,
    anchors: torch.Tensor | None,
) -> torch.Tensor:
    """Check the arguments of the face contrast, and return the anchors, by default all rows."""
    rows = embeddings.shape[0]
    if embeddings.dim() != 2 or rows % 2 or rows < 4:
        raise ValueError(f"`embeddings` must be (2N, dim) with N at least 2, got {tuple(embeddings.shape)}.")
    _check_temperature(temperature)
    if anchors is None:
        anchors = torch.arange(rows, device=embeddings.device)
    _check_mix(mix, permutation, (anchors.shape[0], rows - 2))
    return anchors


def _compute_row_lengths(embeddings: torch.Tensor) -> torch.Tensor:
    return embeddings.norm(dim=1).clamp_min(1e-12)


def _compute_pair_dots(embeddings: torch.Tensor, permutation: torch.Tensor | None) -> torch.Tensor | None:
    """Compute the dot products of all pairs of rows that may be mixed, `(2N - 2, 3, 3)`.

    The negatives of an anchor skip two rows, the anchor and its positive, so the k-th negative is row k, k + 1 or
    k + 2, depending on how many of the two come before it. Whatever the anchor, a mixture combines one of three
    rows with one of three. Entry `(k, i, j)` belongs to rows `k + i` and `permutation[k] + j`.
    """
    if permutation is None:
        return None
    windows = embeddings.unfold(0, 3, 1)  # (2N, dim) -> (2N - 2, dim, 3), a view
    return windows.mT @ windows[permutation]


def _compute_anchor_logits(
    dots: torch.Tensor,
    lengths: torch.Tensor,
    pairs: torch.Tensor | None,
    mix: torch.Tensor | None,
    permutation: torch.Tensor | None,
    temperature: float,
    anchors: torch.Tensor,
) -> torch.Tensor:
    """Compute the logits of some anchors from dot products.

    Args:
        dots: Dot products of the anchors with all rows, `(anchors, 2N)`.
        lengths: Lengths of all rows, `(2N,)`.
        pairs: Result of `_compute_pair_dots`; None if nothing is mixed.
        mix: As for `mixed_negative_logits`, and likewise the other arguments.
    """
    rows = dots.shape[1]
    positives = (anchors + rows // 2) % rows
    columns = torch.arange(rows - 2, device=anchors.device)
    first, second = torch.minimum(anchors, positives)[:, None], torch.maximum(anchors, positives)[:, None]
    skipped = (columns >= first).long() + (columns >= second - 1)  # Skipped rows before the k-th negative: 0, 1 or 2.
    negatives = columns + skipped  # (anchors, 2N - 2)

    positive = dots.gather(1, positives[:, None]) / lengths[positives, None]
    plain = dots.gather(1, negatives)
    if mix is None:
        negative = plain / lengths[negatives]
    else:
        mix = mix.to(dots.dtype)
        partner_mix = 1 - mix
        dot = mix * plain + partner_mix * plain[:, permutation]
        # |m a + (1 - m) b|^2 = m^2 |a|^2 + (1 - m)^2 |b|^2 + 2 m (1 - m) a.b
        squares = lengths.square()[negatives]
        square_terms = mix.square() * squares + partner_mix.square() * squares[:, permutation]
        pair_dots = pairs.flatten()[9 * columns + 3 * skipped + skipped[:, permutation]]
        # If the two rows nearly cancel out, what remains is rounding error, which must not be scaled to unit length.
        least_square = 8 * torch.finfo(dots.dtype).eps * square_terms.detach()
        negative = dot / torch.maximum(square_terms + 2 * mix * partner_mix * pair_dots, least_square).sqrt()
    return torch.cat([positive, negative], dim=1) / (lengths[anchors, None] * temperature)


class _BlockwiseInfoNCE(torch.autograd.Function):
    """Mean InfoNCE loss over anchors, from embeddings and the arguments of `_compute_anchor_logits` except `dots`."""

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
                block_mix = None if mix is None else mix[block]
                logits = _compute_anchor_logits(dots, *shared, block_mix, permutation, temperature, rows)
                loss = F.cross_entropy(logits, _make_targets(logits), reduction="sum") / len(anchors)
            total += loss.detach()
            if is_trained:
                dots_gradient, *leaf_gradients = torch.autograd.grad(loss, (dots, *leaves))
                # Each row is a factor of `dots` twice: as one of all rows, and as an anchor.
                gradients[0].addmm_(dots_gradient.T, anchor_rows).index_add_(0, rows, dots_gradient @ embeddings)
                for gradient, leaf_gradient in zip(gradients[1:], leaf_gradients):
                    gradient += leaf_gradient
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        gradients = [gradient * block_sum for block_sum in ctx.saved_tensors]
        return *gradients, *[None] * (8 - len(gradients))


def _make_targets(logits: torch.Tensor) -> torch.Tensor:
    return logits.new_zeros(logits.shape[0], dtype=torch.long)


@_full_precision
def pose_logits(
    queries: torch.Tensor,
    negatives: torch.Tensor,
    mix: torch.Tensor | None,
    permutation: torch.Tensor | None,
    temperature: float,
) -> torch.Tensor:
    """Compute the logits of the pose contrast: two views of an image against each other and its mixed negatives.

    Args:
        queries: `(2 * images, dim)`, not normalised: the first view of every image, then the second views.
        negatives: `(images, K, dim)`, not normalised; shared by the two views of an image.
        mix: Weight of the unpermuted negative, in [0, 1], `(images, K)`; None for plain negatives.
        permutation: Partner of each negative, a permutation of K columns; None together with `mix`.
        temperature: Divides the cosines; positive.

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
    """Compute the mean cross-entropy of logits whose positive is column 0.

    Args:
        logits: `(rows, 1 + negatives)`.

    Returns:
        Scalar, at least 0; log(1 + negatives) at chance level.
    """
    return F.cross_entropy(logits, _make_targets(logits))
