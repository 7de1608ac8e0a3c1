import math
from collections.abc import Callable

import pytest
import torch

from modeling_pcl import losses_pcl
from modeling_pcl.losses_pcl import (
    cosine_orthogonality_loss,
    info_nce_loss,
    mixed_negative_logits,
    mixed_negative_loss,
    orthogonality_loss,
    pose_logits,
)

# Twins and losses run in float64, where the two orders of summation differ by about 1e-15.
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def shares(*shape: int) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.float64)


def gradients(function: Callable, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Gradients of a fixed, uneven weighting of the function's outputs, so that no entry can hide."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    outputs = function(*leaves)
    weights = torch.linspace(-1, 2, outputs.numel(), dtype=outputs.dtype).view_as(outputs) + 0.1
    return torch.autograd.grad((outputs * weights).sum(), leaves)


def unit(row: torch.Tensor) -> torch.Tensor:
    return row / (row * row).sum().sqrt()


# Orthogonality, published form


def naive_orthogonality(face: torch.Tensor, pose: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    batch, dim = face.shape

    def unit_rows(features):
        mean = sum(features[i] for i in range(batch)) / batch
        rows = [features[i] - mean for i in range(batch)]
        # `item` turns a length into a plain number: it carries no gradient.
        return [row / (sum(value.item() ** 2 for value in row) ** 0.5 + eps) for row in rows]

    face_rows, pose_rows = unit_rows(face), unit_rows(pose)
    total = 0.0
    for i in range(dim):
        for j in range(dim):
            entry = sum(face_rows[sample][i] * pose_rows[sample][j] for sample in range(batch))
            total = total + entry**2
    return total / dim**2


def test_orthogonality_and_its_gradient_equal_the_loops():
    face, pose = randn(5, 7) + 3, 2 * randn(5, 7)
    torch.testing.assert_close(orthogonality_loss(face, pose), naive_orthogonality(face, pose), **EXACT)
    torch.testing.assert_close(
        gradients(orthogonality_loss, face, pose), gradients(naive_orthogonality, face, pose), **EXACT
    )


def test_orthogonality_of_two_samples_has_a_closed_form():
    # Centred, two rows are d and -d: the cross product is 2 u v^T of unit vectors, its squared entries sum to 4.
    loss = orthogonality_loss(randn(2, 6), randn(2, 6), eps=0)
    torch.testing.assert_close(loss, torch.tensor(4 / 6**2, dtype=torch.float64), **EXACT)


def test_uncorrelated_face_and_pose_are_orthogonal():
    face_signs = torch.tensor([1.0, 1, -1, -1], dtype=torch.float64)
    pose_signs = torch.tensor([1.0, -1, 1, -1], dtype=torch.float64)
    loss = orthogonality_loss(face_signs[:, None] * randn(1, 6), pose_signs[:, None] * randn(1, 6))
    assert abs(loss) < 1e-12
    assert orthogonality_loss(face_signs[:, None] * randn(1, 6), face_signs[:, None] * randn(1, 6)) > 0.1


def test_constant_features_give_zero_and_not_nan():
    face, pose = torch.ones(4, 6, requires_grad=True), torch.ones(4, 6, requires_grad=True)
    loss = orthogonality_loss(face, pose)
    loss.backward()
    assert loss == 0
    assert face.grad.isfinite().all()


def test_orthogonality_ignores_offset_scale_and_order_of_the_batch():
    face, pose, order = randn(6, 5), randn(6, 5), torch.randperm(6)
    loss = orthogonality_loss(face, pose, eps=0)
    torch.testing.assert_close(orthogonality_loss(face * 10 + 3, pose * 0.1 - 5, eps=0), loss, **EXACT)
    torch.testing.assert_close(orthogonality_loss(face[order], pose[order], eps=0), loss, **EXACT)
    assert loss > 0


@pytest.mark.parametrize(
    ("face", "pose"), [((1, 4), (1, 4)), ((3, 4), (3, 5)), ((3, 4), (2, 4)), ((3, 4, 1), (3, 4, 1))]
)
def test_orthogonality_refuses_shapes_that_do_not_fit(face, pose):
    with pytest.raises(ValueError, match="`face` and `pose`"):
        orthogonality_loss(randn(*face), randn(*pose))


# Orthogonality, cosine form


def naive_cosine_orthogonality(face: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    total = 0.0
    for face_row, pose_row in zip(face, pose):
        total = total + (unit(face_row) * unit(pose_row)).sum() ** 2
    return total / face.shape[0]


def test_cosine_orthogonality_and_its_gradient_equal_the_loops():
    face, pose = randn(5, 7) + 1, randn(5, 7)
    torch.testing.assert_close(cosine_orthogonality_loss(face, pose), naive_cosine_orthogonality(face, pose), **EXACT)
    torch.testing.assert_close(
        gradients(cosine_orthogonality_loss, face, pose), gradients(naive_cosine_orthogonality, face, pose), **EXACT
    )
    assert torch.autograd.gradcheck(cosine_orthogonality_loss, (face.requires_grad_(), pose.requires_grad_()))


def test_cosine_orthogonality_is_1_for_parallel_and_0_for_perpendicular_rows():
    face = randn(1, 6)
    axes = torch.eye(6, dtype=torch.float64)
    one = torch.tensor(1.0, dtype=torch.float64)
    torch.testing.assert_close(cosine_orthogonality_loss(face, -3 * face), one, **EXACT)
    assert cosine_orthogonality_loss(axes, axes.roll(1, 0)) == 0
    torch.testing.assert_close(cosine_orthogonality_loss(axes[:2], axes[[0, 2]]), one / 2, **EXACT)


def test_a_row_of_zeros_counts_as_orthogonal():
    face = torch.zeros(1, 6, requires_grad=True)
    loss = cosine_orthogonality_loss(face, torch.ones(1, 6))
    loss.backward()
    assert loss == 0
    assert face.grad.isfinite().all()


@pytest.mark.parametrize(("face", "pose"), [((0, 4), (0, 4)), ((3, 4), (3, 5)), ((3,), (3,))])
def test_cosine_orthogonality_refuses_shapes_that_do_not_fit(face, pose):
    with pytest.raises(ValueError, match="`face` and `pose`"):
        cosine_orthogonality_loss(randn(*face), randn(*pose))


# Face contrast


def naive_face_logits(embeddings, mix=None, permutation=None, temperature=0.07) -> torch.Tensor:
    rows = embeddings.shape[0]
    logits = []
    for anchor in range(rows):
        positive = (anchor + rows // 2) % rows
        candidates = [embeddings[row] for row in range(rows) if row not in (anchor, positive)]
        if mix is not None:
            candidates = [
                mix[anchor, k] * candidates[k] + (1 - mix[anchor, k]) * candidates[permutation[k]]
                for k in range(rows - 2)
            ]
        row = [(unit(embeddings[anchor]) * unit(other)).sum() for other in (embeddings[positive], *candidates)]
        logits.append(torch.stack(row) / temperature)
    return torch.stack(logits)


@pytest.mark.parametrize("is_mixed", [True, False], ids=["mixed", "plain"])
def test_face_logits_and_their_gradient_equal_the_loops(is_mixed):
    embeddings = randn(8, 5)
    mixing = (shares(8, 6), torch.randperm(6)) if is_mixed else (None, None)

    def ours(embeddings):
        return mixed_negative_logits(embeddings, *mixing, 0.07)

    def naive(embeddings):
        return naive_face_logits(embeddings, *mixing, 0.07)

    torch.testing.assert_close(ours(embeddings), naive(embeddings), **EXACT)
    torch.testing.assert_close(gradients(ours, embeddings), gradients(naive, embeddings), **EXACT)
    assert torch.autograd.gradcheck(ours, embeddings.requires_grad_())


def test_face_logits_of_orthonormal_images_have_a_closed_form():
    # Two equal views of four images with orthonormal embeddings: the positive is 1 / T, every mixture stays at 0.
    embeddings = 3 * torch.eye(4, dtype=torch.float64).repeat(2, 1)
    mix = torch.ones(8, 6, dtype=torch.float64)
    logits = mixed_negative_logits(embeddings, mix, torch.randperm(6), temperature=0.5)
    expected = torch.zeros(8, 7, dtype=torch.float64)
    expected[:, 0] = 2
    torch.testing.assert_close(logits, expected, **EXACT)
    loss = torch.tensor(math.log(1 + 6 * math.exp(-2)), dtype=torch.float64)
    torch.testing.assert_close(info_nce_loss(logits), loss, **EXACT)


def test_a_share_of_1_keeps_the_negative_and_0_takes_its_partner():
    embeddings, permutation = randn(8, 5), torch.randperm(6)
    plain = mixed_negative_logits(embeddings, None, None, 0.1)
    keep = mixed_negative_logits(embeddings, torch.ones(8, 6), permutation, 0.1)
    take = mixed_negative_logits(embeddings, torch.zeros(8, 6), permutation, 0.1)
    torch.testing.assert_close(keep, plain, **EXACT)
    torch.testing.assert_close(take[:, 1:], plain[:, 1:][:, permutation], **EXACT)


def test_logits_of_some_anchors_are_those_rows_of_all():
    embeddings, mix, permutation = randn(10, 5), shares(10, 8), torch.randperm(8)
    every = mixed_negative_logits(embeddings, mix, permutation, 0.07)
    for rows in ([0], [3, 8], [9, 4, 0]):
        anchors = torch.tensor(rows)
        some = mixed_negative_logits(embeddings, mix[anchors], permutation, 0.07, anchors=anchors)
        torch.testing.assert_close(some, every[anchors], **EXACT)


def test_face_logits_ignore_the_anchors_length_but_mix_before_normalising():
    embeddings, mix, permutation = randn(8, 5), shares(8, 6), torch.randperm(6)
    logits = mixed_negative_logits(embeddings, mix, permutation, 0.07)
    torch.testing.assert_close(mixed_negative_logits(7 * embeddings, mix, permutation, 0.07), logits, **EXACT)
    longer = embeddings.clone()
    longer[0] *= 7
    changed = (mixed_negative_logits(longer, mix, permutation, 0.07) - logits).abs() > 1e-6
    assert not changed[0].any()  # as an anchor
    assert not changed[4, 0]  # as a positive
    assert changed[1:4].any()  # within a mixture


@pytest.mark.parametrize("block_size", [1, 3, 8, None])
@pytest.mark.parametrize("is_mixed", [True, False], ids=["mixed", "plain"])
def test_blockwise_face_loss_and_its_gradient_are_those_of_the_logits(block_size, is_mixed):
    embeddings = randn(8, 5)
    mixing = (shares(8, 6), torch.randperm(6)) if is_mixed else (None, None)

    def blockwise(embeddings):
        return 3 * mixed_negative_loss(embeddings, *mixing, 0.07, block_size=block_size)

    def whole(embeddings):
        return 3 * info_nce_loss(naive_face_logits(embeddings, *mixing, 0.07))

    torch.testing.assert_close(blockwise(embeddings), whole(embeddings), **EXACT)
    torch.testing.assert_close(gradients(blockwise, embeddings), gradients(whole, embeddings), **EXACT)
    assert torch.autograd.gradcheck(blockwise, embeddings.requires_grad_())


def test_blockwise_face_loss_of_some_anchors_is_their_mean():
    embeddings, mix, permutation = randn(10, 5), shares(10, 8), torch.randperm(8)
    anchors = torch.tensor([9, 4, 0])

    def blockwise(embeddings):
        return mixed_negative_loss(embeddings, mix[anchors], permutation, 0.07, anchors=anchors, block_size=2)

    def whole(embeddings):
        return info_nce_loss(naive_face_logits(embeddings, mix, permutation)[anchors])

    torch.testing.assert_close(blockwise(embeddings), whole(embeddings), **EXACT)
    torch.testing.assert_close(gradients(blockwise, embeddings), gradients(whole, embeddings), **EXACT)


def test_blockwise_face_loss_holds_the_logits_of_one_block_at_a_time(monkeypatch):
    blocks = []
    anchor_logits = losses_pcl._compute_anchor_logits

    def watched(dots, *arguments):
        blocks.append(tuple(dots.shape))
        return anchor_logits(dots, *arguments)

    monkeypatch.setattr(losses_pcl, "_compute_anchor_logits", watched)
    mixed_negative_loss(randn(10, 5), shares(10, 8), torch.randperm(8), 0.07, block_size=4)
    assert blocks == [(4, 10), (4, 10), (2, 10)]


def test_blockwise_face_loss_without_gradient_computes_none():
    with torch.no_grad():
        loss = mixed_negative_loss(randn(8, 5).requires_grad_(), None, None, 0.07)
    assert not loss.requires_grad


def test_blockwise_face_loss_leaves_no_gradient_in_the_forward_pass():
    embeddings = randn(8, 5).requires_grad_()
    mixed_negative_loss(embeddings, shares(8, 6), torch.randperm(6), 0.07)
    assert embeddings.grad is None


@pytest.mark.parametrize("dim", [2, 16, 128])
def test_face_logits_stay_within_their_bound_where_negatives_cancel_out(dim):
    # Mixed half and half, a negative and its opposite leave rounding only: no direction, and a length of nothing.
    opposites = torch.tensor([2, 1, 0, 5, 4, 3])  # of anchor 0: (h1, -h0, -h1, h3, -h2, -h3)
    for step in range(50):
        half = torch.randn(4, dim)
        opposite = -half * (1 + 1e-6 * (step % 5))
        embeddings = torch.cat([half[:2], opposite[:2], half[2:], opposite[2:]]).requires_grad_()
        logits = mixed_negative_logits(embeddings, torch.full((8, 6), 0.5), opposites, temperature=1.0)
        # A cosine and float32's rounding, which the shortest length allowed, 1e-3 of the parts', enlarges to 1e-3.
        assert logits.abs().max() < 1.002
        (gradient,) = torch.autograd.grad(logits.square().sum(), embeddings)
        assert gradient.isfinite().all()


def test_zero_embeddings_give_finite_logits_and_gradients():
    embeddings = torch.zeros(4, 3, requires_grad=True)
    logits = mixed_negative_logits(embeddings, torch.full((4, 2), 0.5), torch.tensor([1, 0]), 0.07)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize(
    ("embeddings", "mix", "permutation", "temperature", "name"),
    [
        ((5, 3), None, None, 0.1, "`embeddings`"),
        ((2, 3), None, None, 0.1, "`embeddings`"),
        ((6,), None, None, 0.1, "`embeddings`"),
        ((6, 3), (6, 3), 4, 0.1, "`mix`"),
        ((6, 3), (5, 4), 4, 0.1, "`mix`"),
        ((6, 3), (6, 4), 3, 0.1, "`permutation`"),
        ((6, 3), (6, 4), None, 0.1, "`permutation`"),
        ((6, 3), None, 4, 0.1, "`mix`"),
        ((6, 3), None, None, 0.0, "`temperature`"),
        ((6, 3), None, None, float("nan"), "`temperature`"),
    ],
)
def test_face_logits_refuse_what_does_not_fit_by_name(embeddings, mix, permutation, temperature, name):
    mix = None if mix is None else shares(*mix)
    permutation = None if permutation is None else torch.arange(permutation)
    for function in (mixed_negative_logits, mixed_negative_loss):
        with pytest.raises(ValueError, match=name):
            function(randn(*embeddings), mix, permutation, temperature)


# Pose contrast


def naive_pose_logits(queries, negatives, mix=None, permutation=None, temperature=0.07) -> torch.Tensor:
    images, count, _ = negatives.shape
    logits = []
    for view in range(2 * images):
        image = view % images
        other = (view + images) % (2 * images)
        row = [(unit(queries[view]) * unit(queries[other])).sum()]
        for k in range(count):
            negative = negatives[image, k]
            if mix is not None:
                negative = mix[image, k] * negative + (1 - mix[image, k]) * negatives[image, permutation[k]]
            row.append((unit(queries[view]) * unit(negative)).sum())
        logits.append(torch.stack(row) / temperature)
    return torch.stack(logits)


@pytest.mark.parametrize("is_mixed", [True, False], ids=["mixed", "plain"])
def test_pose_logits_and_their_gradient_equal_the_loops(is_mixed):
    queries, negatives = randn(6, 5), randn(3, 4, 5)
    mixing = (shares(3, 4), torch.randperm(4)) if is_mixed else (None, None)

    def ours(queries, negatives):
        return pose_logits(queries, negatives, *mixing, 0.07)

    def naive(queries, negatives):
        return naive_pose_logits(queries, negatives, *mixing, 0.07)

    torch.testing.assert_close(ours(queries, negatives), naive(queries, negatives), **EXACT)
    torch.testing.assert_close(gradients(ours, queries, negatives), gradients(naive, queries, negatives), **EXACT)
    assert torch.autograd.gradcheck(ours, (queries.requires_grad_(), negatives.requires_grad_()))


def test_pose_logits_of_a_mirror_that_is_the_opposite_have_a_closed_form():
    query = randn(1, 6)
    logits = pose_logits(query.repeat(2, 1), -query.repeat(3, 1)[None], None, None, temperature=0.5)
    expected = torch.tensor([[2.0, -2, -2, -2]], dtype=torch.float64).repeat(2, 1)
    torch.testing.assert_close(logits, expected, **EXACT)
    loss = torch.tensor(math.log(1 + 3 * math.exp(-4)), dtype=torch.float64)
    torch.testing.assert_close(info_nce_loss(logits), loss, **EXACT)


def test_an_images_pose_logits_do_not_depend_on_other_images():
    queries, negatives, mix, permutation = randn(6, 5), randn(3, 4, 5), shares(3, 4), torch.randperm(4)
    every = pose_logits(queries, negatives, mix, permutation, 0.1)
    alone = pose_logits(queries[[1, 4]], negatives[1:2], mix[1:2], permutation, 0.1)
    torch.testing.assert_close(alone, every[[1, 4]], **EXACT)


@pytest.mark.parametrize(
    ("queries", "negatives", "mix", "permutation", "temperature", "name"),
    [
        ((5, 3), (3, 4, 3), None, None, 0.1, "`queries`"),
        ((6, 2), (3, 4, 3), None, None, 0.1, "`queries`"),
        ((6, 3), (3, 3), None, None, 0.1, "`negatives`"),
        ((6, 3), (3,), None, None, 0.1, "`negatives`"),
        ((6, 3), (3, 4, 3), (6, 4), 4, 0.1, "`mix`"),
        ((6, 3), (3, 4, 3), (3, 4), 5, 0.1, "`permutation`"),
        ((6, 3), (3, 4, 3), None, 4, 0.1, "`mix`"),
        ((6, 3), (3, 4, 3), None, None, -1.0, "`temperature`"),
    ],
)
def test_pose_logits_refuse_what_does_not_fit_by_name(queries, negatives, mix, permutation, temperature, name):
    mix = None if mix is None else shares(*mix)
    permutation = None if permutation is None else torch.arange(permutation)
    with pytest.raises(ValueError, match=name):
        pose_logits(randn(*queries), randn(*negatives), mix, permutation, temperature)


# InfoNCE


def test_info_nce_and_its_gradient_equal_the_loops():
    def naive(logits):
        return sum(row.exp().sum().log() - row[0] for row in logits) / logits.shape[0]

    logits = randn(5, 7)
    torch.testing.assert_close(info_nce_loss(logits), naive(logits), **EXACT)
    torch.testing.assert_close(gradients(info_nce_loss, logits), gradients(naive, logits), **EXACT)


def test_info_nce_is_the_log_of_the_choices_at_chance_level_and_0_when_solved():
    assert info_nce_loss(torch.zeros(3, 511)).item() == pytest.approx(math.log(511))
    solved = torch.zeros(3, 511)
    solved[:, 0] = 100
    assert info_nce_loss(solved).item() == pytest.approx(0, abs=1e-6)


# Half precision

LOSSES = {
    "orthogonality": lambda first, second, mix: orthogonality_loss(first, second),
    "cosine_orthogonality": lambda first, second, mix: cosine_orthogonality_loss(face=first, pose=second),
    "face_logits": lambda first, second, mix: mixed_negative_logits(first, mix, torch.arange(6).flip(0), 0.07),
    "face_loss": lambda first, second, mix: mixed_negative_loss(first, mix, torch.arange(6).flip(0), 0.07),
    "pose_logits": lambda first, second, mix: pose_logits(
        first, second.unflatten(0, (4, 2)), mix=mix[:4, :2], permutation=torch.tensor([1, 0]), temperature=0.07
    ),
    "info_nce": lambda first, second, mix: info_nce_loss(first),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_inputs_give_float32_results_under_autocast(name, dtype):
    first, second, mix = torch.randn(8, 16).to(dtype), torch.randn(8, 16).to(dtype), torch.rand(8, 6).to(dtype)
    expected = LOSSES[name](first.float(), second.float(), mix.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = LOSSES[name](first, second, mix)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)  # the same float32 operations


@pytest.mark.parametrize("name", LOSSES)
def test_float64_stays_float64(name):
    assert LOSSES[name](randn(8, 16), randn(8, 16), shares(8, 6)).dtype == torch.float64
