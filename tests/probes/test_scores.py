import math

import numpy as np
import pytest
import torch

from modeling_pcl.probes.scores import (
    angular_errors,
    classification_scores,
    f1_per_unit,
    mean_f1,
    regression_scores,
)

SEEDS = pytest.mark.parametrize("seed", range(3))


@SEEDS
def test_accuracies_equal_those_of_loops(seed):
    generator = np.random.default_rng(seed)
    references = generator.choice(5, 80, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    predictions = np.where(generator.random(80) < 0.5, generator.integers(0, 7, 80), references)
    recalls, scores = [], []
    for number in range(7):
        hits = sum(p == r == number for p, r in zip(predictions, references))
        labelled, guessed = (predictions == number).sum(), (references == number).sum()
        if guessed:
            recalls.append(hits / guessed)
        if guessed + labelled:
            scores.append(2 * hits / (guessed + labelled))
    found = classification_scores(predictions, references)
    expected = {"accuracy": np.mean(predictions == references), "mean_class_accuracy": np.mean(recalls)}
    assert found == pytest.approx(expected | {"macro_f1": np.mean(scores)}, abs=1e-12)


def test_the_commonest_class_always_is_at_chance_for_the_class_mean():
    """Nine of ten images are of class 0: its F1 is 18 / 19, that of the other class 0."""
    found = classification_scores(np.zeros(10), np.array([0] * 9 + [1]))
    assert found == pytest.approx({"accuracy": 0.9, "mean_class_accuracy": 0.5, "macro_f1": 9 / 19})


def test_one_error_in_each_angle_is_shared_by_the_images_and_angles_do_not_wrap():
    found = angular_errors(np.array([[3.0, 0, 0], [0, -6, 12]]), np.zeros((2, 3)))
    assert found == {"mae": 3.5, "yaw_mae": 1.5, "pitch_mae": 3, "roll_mae": 6, "images": 2, "dropped": 0}
    assert angular_errors(np.array([[-179.0, 0, 0]]), np.array([[179.0, 0, 0]]))["yaw_mae"] == 358


def test_errors_of_numbers_have_a_sign_and_r2_needs_references_that_differ():
    found = regression_scores(np.array([1.0, 4.0]), np.array([2.0, 6.0]))
    assert found == {"mae": 1.5, "bias": -1.5, "r2": pytest.approx(1 - 5 / 8), "images": 2}
    assert regression_scores(np.array([1.0, 4.0]), np.array([2.0, 2.0]))["r2"] is None


@SEEDS
def test_f1_equals_that_of_loops_over_labelled_images(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(60, 4, generator=generator)
    targets = (torch.rand(60, 4, generator=generator) < torch.tensor([0.1, 0.3, 0.5, 0.8])).float()
    targets[torch.rand(60, 4, generator=generator) < 0.3] = math.nan
    expected = []
    for unit in range(4):
        right = false = missed = 0
        for logit, label in zip(logits[:, unit].tolist(), targets[:, unit].tolist()):
            right += label == 1 and logit >= 0
            false += label == 0 and logit >= 0
            missed += label == 1 and logit < 0
        expected.append(2 * right / (2 * right + false + missed))
    assert f1_per_unit(logits, targets) == pytest.approx(expected, abs=1e-12)
    assert mean_f1(f1_per_unit(logits, targets)) == pytest.approx(np.mean(expected), abs=1e-12)


def test_a_unit_that_is_nowhere_active_has_no_score_and_is_not_in_the_mean():
    """Of four units one is scored, one is never active, one is a false alarm, and one has no labels."""
    nan = math.nan
    logits = torch.tensor([[1.0, -1, -1, 1], [1, -1, 1, 1]])
    by_unit = f1_per_unit(logits, torch.tensor([[1, 0, 0, nan], [0, 0, 0, nan]]))
    assert by_unit == [pytest.approx(2 / 3), None, 0.0, None]
    assert mean_f1(by_unit) == pytest.approx(1 / 3)
    assert mean_f1([None]) is None


def test_a_probability_of_a_half_says_active():
    assert f1_per_unit(torch.zeros(1, 1), torch.ones(1, 1)) == [1.0]
