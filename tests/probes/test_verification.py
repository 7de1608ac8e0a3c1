from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from modeling_pcl.probes import verification
from modeling_pcl.probes.verification import pair_cosines, verification_scores


def test_cosines_are_those_of_a_loop(monkeypatch):
    monkeypatch.setattr(verification, "ROWS_AT_ONCE", 3)
    features = torch.randn(6, 5)
    first, second = np.array([0, 1, 5, 2, 2, 4, 3]), np.array([1, 0, 2, 3, 2, 1, 5])
    rows = features.double().numpy()
    expected = [rows[i] @ rows[j] / (np.linalg.norm(rows[i]) * np.linalg.norm(rows[j])) for i, j in zip(first, second)]
    np.testing.assert_allclose(pair_cosines(features, first, second), expected, rtol=1e-12)


def test_bfloat16_rows_are_compared_in_double():
    features = torch.randn(4, 300).bfloat16()
    cosines = pair_cosines(features, np.array([0, 1]), np.array([2, 3]))
    np.testing.assert_allclose(cosines, pair_cosines(features.double(), np.array([0, 1]), np.array([2, 3])))


def random_pairs(seed: int = 0, count: int = 80, folds: int = 4, decimals: int = 1) -> tuple[np.ndarray, ...]:
    """Overlapping similarities with many ties, which of them are of one person, and folds."""
    generator = np.random.default_rng(seed)
    same = generator.random(count) < 0.4
    similarities = np.round(generator.normal(size=count) + 1.5 * same, decimals)
    return similarities, same, generator.permutation(np.arange(count) % folds) + 3


def measure(similarities, same, folds) -> dict[str, float]:
    return verification_scores(np.array(similarities, dtype=float), np.array(same, dtype=bool), np.array(folds))


def right_answers(similarities, same, threshold: float) -> int:
    return sum((similarity >= threshold) == bool(one) for similarity, one in zip(similarities, same))


def naive_threshold(similarities, same) -> float:
    """Every cut between two neighbouring similarities, from the highest down."""
    levels = sorted({float(similarity) for similarity in similarities}, reverse=True)
    cuts = [np.nextafter(levels[0], np.inf), *((high + low) / 2 for high, low in pairwise(levels)), levels[-1]]
    return float(max(cuts, key=lambda cut: right_answers(similarities, same, cut)))


def rates(similarities, same) -> list[tuple[float, float]]:
    """False and true accept rate at every threshold, from the highest down."""
    points = []
    for threshold in [np.inf, *sorted(set(similarities.tolist()), reverse=True)]:
        accepted = similarities >= threshold
        points.append((accepted[~same].mean(), accepted[same].mean()))
    return points


def equal_error_rate(points: list[tuple[float, float]]) -> float:
    for (far, tar), (next_far, next_tar) in pairwise(points):
        before, after = (1 - tar) - far, (1 - next_tar) - next_far
        if before >= 0 >= after:
            return far + before / (before - after) * (next_far - far)
    raise AssertionError("the rates do not cross")


def naive(similarities, same, folds, false_accept_rates) -> dict[str, float]:
    accuracies = []
    for fold in sorted(set(folds.tolist())):
        train, test = folds != fold, folds == fold
        threshold = naive_threshold(similarities[train], same[train])
        accuracies.append(right_answers(similarities[test], same[test], threshold) / test.sum())
    points = rates(similarities, same)
    return {
        "accuracy": np.mean(accuracies),
        "accuracy_standard_error": np.std(accuracies, ddof=1) / len(accuracies) ** 0.5,
        "threshold": naive_threshold(similarities, same),
        "auc": roc_auc_score(same, similarities),
        **{f"tar_at_far_{rate}": max(tar for far, tar in points if far <= rate) for rate in false_accept_rates},
        "equal_error_rate": equal_error_rate(points),
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_all_numbers_equal_those_of_loops(seed, decimals, monkeypatch):
    rates = (0.3, 0.1, 0.01, 0.001)
    monkeypatch.setattr(verification, "FALSE_ACCEPT_RATES", rates)
    data = random_pairs(seed, decimals=decimals)
    assert verification_scores(*data) == pytest.approx(naive(*data, rates), abs=1e-12)


def test_similarities_that_tell_all_pairs_apart_are_perfect():
    same = np.arange(40) % 2
    assert measure(same, same, np.arange(40) // 10) == {
        "accuracy": 1,
        "accuracy_standard_error": 0,
        "threshold": 0.5,
        "auc": 1,
        "tar_at_far_0.01": 1,
        "tar_at_far_0.001": 1,
        "equal_error_rate": 0,
    }


def test_equal_similarities_are_at_chance_and_say_different_always():
    found = measure([0.25] * 8, [0, 1] * 4, [0, 0, 1, 1] * 2)
    assert found["accuracy"] == found["auc"] == found["equal_error_rate"] == 0.5
    assert found["tar_at_far_0.01"] == 0
    assert found["threshold"] == np.nextafter(0.25, 1)


def test_all_are_said_to_be_the_same_where_that_is_most_often_right():
    found = measure([0.5, 0.4, 0.9] * 2, [1, 1, 0] * 2, [0, 0, 0, 1, 1, 1])
    assert found["threshold"] == 0.4
    assert found["accuracy"] == pytest.approx(2 / 3)


def test_the_threshold_of_a_fold_does_not_see_that_fold():
    """Each fold is apart by itself, at a threshold that is wrong for the other."""
    # Above 0.85 nothing of the second fold is said to be the same, above 0.15 everything of the first.
    assert measure([0.9, 0.8, 0.2, 0.1], [1, 0, 1, 0], [1, 1, 2, 2])["accuracy"] == 0.5


@pytest.mark.parametrize("low", [0.3, np.nextafter(0.3, 1)])
def test_neighbouring_floats_are_told_apart(low):
    """Of the two the middle is rounded up for one, down for the other."""
    high = np.nextafter(low, 1)
    found = measure([high, low] * 2, [1, 0] * 2, [0, 0, 1, 1])
    assert (found["threshold"], found["accuracy"]) == (high, 1)


def test_a_true_accept_rate_has_at_most_the_false_accept_rate_and_is_not_interpolated(monkeypatch):
    """100 different pairs: at 0.01 one of them may pass, below none."""
    rates = (0.0, 0.001, 0.0099, 0.01, 0.0199, 1.0)
    monkeypatch.setattr(verification, "FALSE_ACCEPT_RATES", rates)
    same = [0.985, 0.995, 0.5, 2.0]  # two pass without a false accept, three with one
    found = measure([*np.linspace(0, 0.99, 100), *same], [0] * 100 + [1] * 4, np.arange(104) % 2)
    assert [found[f"tar_at_far_{rate:g}"] for rate in rates] == [0.5, 0.5, 0.5, 0.75, 0.75, 1]


def test_points_on_a_straight_piece_of_the_curve_are_thresholds_too(monkeypatch):
    """Every level holds one pair of each kind."""
    monkeypatch.setattr(verification, "FALSE_ACCEPT_RATES", [0.35])
    found = measure(np.repeat(np.arange(10), 2), [0, 1] * 10, np.arange(20) // 10)
    assert found["tar_at_far_0.35"] == 0.3
    assert found["equal_error_rate"] == 0.5


@pytest.mark.parametrize(("same", "folds"), [([1, 0, 1, 0], [1, 2, 1, 2]), ([1, 1, 1, 1], [1, 1, 2, 2])])
def test_a_fold_without_pairs_of_both_kinds_beside_it_is_refused(same, folds):
    with pytest.raises(ValueError, match="beside fold 1, on which its threshold is chosen"):
        measure([0.9, 0.1, 0.8, 0.2], same, folds)


@pytest.mark.parametrize("count", [0, 4])
def test_fewer_than_two_folds_are_refused(count):
    with pytest.raises(ValueError, match=f"two folds at least, got {min(count, 1)}"):
        measure(np.arange(count), np.arange(count) % 2, np.ones(count))
