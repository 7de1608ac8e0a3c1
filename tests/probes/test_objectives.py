import math

import pytest
import torch
from torch.nn import functional as F

from modeling_pcl.probes.objectives import OBJECTIVES, masked_binary_cross_entropy, negative_error

NAN = math.nan
EXACT = {"rtol": 1e-12, "atol": 1e-12}  # In float64 two orders of summation differ by about 1e-16.


def logits_and_units(images: int = 9, units: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, float64, and labels 1, 0 and NaN, `(images, units)`; no label of the last unit is known."""
    logits = 2 * torch.randn(images, units, dtype=torch.float64)
    targets = (torch.rand(images, units, dtype=torch.float64) < 0.4).double()
    targets[torch.rand(images, units) < 0.3] = NAN
    targets[:, -1] = NAN
    return logits, targets


# Binary cross-entropy


def naive_binary_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> float:
    losses = []
    for row, labels in zip(logits.tolist(), targets.tolist()):
        for logit, label in zip(row, labels):
            if not math.isnan(label):
                probability = 1 / (1 + math.exp(-logit))
                losses.append(-math.log(probability if label == 1 else 1 - probability))
    return sum(losses) / len(losses)


def test_binary_cross_entropy_is_the_mean_over_the_known_labels():
    logits, targets = logits_and_units()
    assert masked_binary_cross_entropy(logits, targets).item() == pytest.approx(
        naive_binary_cross_entropy(logits, targets), rel=1e-12
    )


def test_its_gradient_is_the_one_of_finite_differences_and_zero_where_no_label_is_known():
    logits, targets = logits_and_units()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: masked_binary_cross_entropy(values, targets), logits)
    (gradient,) = torch.autograd.grad(masked_binary_cross_entropy(logits, targets), logits)
    assert torch.equal(gradient == 0, targets.isnan())


def test_a_batch_without_labels_gives_zero_and_a_gradient_of_zeros():
    logits = torch.randn(4, 3, requires_grad=True)
    loss = masked_binary_cross_entropy(logits, torch.full((4, 3), NAN))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(4, 3))


def test_binary_cross_entropy_of_very_large_logits_is_finite():
    loss = masked_binary_cross_entropy(torch.tensor([[1000.0, -1000.0, 1000.0]]), torch.tensor([[1.0, 1.0, NAN]]))
    assert loss.item() == 500.0


# Scores


@pytest.mark.parametrize("label", [0.0, NAN])
def test_units_of_which_none_has_an_f1_score_zero(label):
    assert OBJECTIVES["action_units"].score(torch.full((3, 2), -1.0), torch.full((3, 2), label)) == 0.0


def test_angular_error_is_the_mean_of_all_differences_with_a_minus():
    logits, targets = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    errors = [abs(a - b) for rows in zip(logits.tolist(), targets.tolist()) for a, b in zip(*rows)]
    assert negative_error(logits, targets) == pytest.approx(-sum(errors) / 18, rel=1e-12)


# Objectives


TARGETS = {
    "expression": torch.tensor([0, 1, 2, 1]),
    "head_pose": torch.tensor([[40.0, -10.0, 5.0], [0.0, 0.0, 0.0], [-60.0, 20.0, 1.0], [9.0, -9.0, 3.0]]),
    "regression": torch.tensor([[30.0], [4.0], [71.0], [55.0]]),
    "action_units": torch.tensor([[1.0, 0.0, NAN], [0.0, 1.0, 0.0], [NAN, 0.0, 1.0], [1.0, 1.0, 0.0]]),
}
PERFECT = {
    "expression": 20 * F.one_hot(TARGETS["expression"]).float(),
    "head_pose": TARGETS["head_pose"],
    "regression": TARGETS["regression"],
    "action_units": 40 * TARGETS["action_units"].nan_to_num() - 20,
}


@pytest.mark.parametrize("task", OBJECTIVES)
def test_perfect_logits_have_no_loss_and_the_best_score(task):
    objective, targets = OBJECTIVES[task], TARGETS[task]
    perfect, wrong = PERFECT[task], -PERFECT[task]
    assert objective.loss(perfect, targets).item() == pytest.approx(0, abs=1e-6)
    assert objective.score(perfect, targets) == (0.0 if task in ("head_pose", "regression") else 1.0)
    assert objective.loss(wrong, targets) > 1
    assert objective.score(wrong, targets) < objective.score(perfect, targets)
