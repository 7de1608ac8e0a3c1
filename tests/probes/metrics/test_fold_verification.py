from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from modeling_pcl.probes.metrics import load_metric

SEEDS = pytest.mark.parametrize("seed", range(5))


@pytest.fixture(scope="module")
def metric():
    return load_metric("fold_verification")


def pairs(seed: int = 0, count: int = 80, folds: int = 4, decimals: int = 1) -> dict[str, np.ndarray]:
    """Overlapping similarities with many ties."""
    generator = np.random.default_rng(seed)
    same = (generator.random(count) < 0.4).astype(int)
    return {
        "predictions": np.round(generator.normal(size=count) + 1.5 * same, decimals),
        "references": same,
        "folds": generator.permutation(np.arange(count) % folds) + 3,
    }


def right_answers(similarities, same, threshold: float) -> int:
    return sum((similarity >= threshold) == bool(one) for similarity, one in zip(similarities, same))


def best_threshold(similarities, same) -> float:
    """Every cut between two neighbouring similarities, from the highest down."""
    levels = sorted({float(similarity) for similarity in similarities}, reverse=True)
    cuts = [np.nextafter(levels[0], np.inf), *((high + low) / 2 for high, low in pairwise(levels)), levels[-1]]
    best = cuts[0]
    for cut in cuts:
        if right_answers(similarities, same, cut) > right_answers(similarities, same, best):
            best = cut
    return float(best)


def rates(similarities, same) -> list[tuple[float, float]]:
    """False and true accept rate at every threshold, from the highest down."""
    positives, negatives = similarities[same == 1], similarities[same == 0]
    points = []
    for threshold in [np.inf, *sorted(set(similarities.tolist()), reverse=True)]:
        accepted = [sum(float(one) >= threshold for one in part) / len(part) for part in (negatives, positives)]
        points.append((accepted[0], accepted[1]))
    return points


def equal_error_rate(points: list[tuple[float, float]]) -> float:
    for (far, tar), (next_far, next_tar) in pairwise(points):
        before, after = (1 - tar) - far, (1 - next_tar) - next_far
        if before >= 0 >= after:
            share = before / (before - after)
            return far + share * (next_far - far)
    raise AssertionError("the rates do not cross")


def naive(predictions, references, folds, false_accept_rates=(0.01, 0.001)) -> dict[str, float]:
    accuracies = []
    for fold in sorted(set(folds.tolist())):
        train = [row for row in range(len(folds)) if folds[row] != fold]
        test = [row for row in range(len(folds)) if folds[row] == fold]
        threshold = best_threshold(predictions[train], references[train])
        accuracies.append(right_answers(predictions[test], references[test], threshold) / len(test))
    mean = sum(accuracies) / len(accuracies)
    variance = sum((accuracy - mean) ** 2 for accuracy in accuracies) / (len(accuracies) - 1)
    points = rates(predictions, references)
    return {
        "accuracy": mean,
        "accuracy_standard_error": (variance / len(accuracies)) ** 0.5,
        "threshold": best_threshold(predictions, references),
        "auc": roc_auc_score(references, predictions),
        **{f"tar_at_far_{rate}": max(tar for far, tar in points if far <= rate) for rate in false_accept_rates},
        "equal_error_rate": equal_error_rate(points),
    }


@SEEDS
@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_all_numbers_equal_those_of_loops(metric, seed, decimals):
    data = pairs(seed, decimals=decimals)
    rates = (0.3, 0.1, 0.01, 0.001)
    results = metric.compute(**data, false_accept_rates=rates)
    assert results == pytest.approx(naive(**data, false_accept_rates=rates), abs=1e-12)


def test_the_rates_are_those_of_the_field_unless_others_are_named(metric):
    assert list(metric.compute(**pairs())) == [
        "accuracy",
        "accuracy_standard_error",
        "threshold",
        "auc",
        "tar_at_far_0.01",
        "tar_at_far_0.001",
        "equal_error_rate",
    ]


def test_similarities_that_tell_all_pairs_apart_are_perfect(metric):
    same = np.arange(40) % 2
    results = metric.compute(predictions=same.astype(float), references=same, folds=np.arange(40) // 10)
    assert results == {
        "accuracy": 1,
        "accuracy_standard_error": 0,
        "threshold": 0.5,
        "auc": 1,
        "tar_at_far_0.01": 1,
        "tar_at_far_0.001": 1,
        "equal_error_rate": 0,
    }


def test_equal_similarities_are_at_chance_and_say_different_always(metric):
    results = metric.compute(predictions=[0.25] * 8, references=[0, 1] * 4, folds=[0, 0, 1, 1] * 2)
    assert results["accuracy"] == results["auc"] == results["equal_error_rate"] == 0.5
    assert results["tar_at_far_0.01"] == 0
    assert results["threshold"] == np.nextafter(0.25, 1)


def test_all_are_said_to_be_the_same_where_that_is_most_often_right(metric):
    results = metric.compute(predictions=[0.5, 0.4, 0.9] * 2, references=[1, 1, 0] * 2, folds=[0, 0, 0, 1, 1, 1])
    assert results["threshold"] == 0.4
    assert results["accuracy"] == pytest.approx(2 / 3)


def test_the_threshold_of_a_fold_does_not_see_that_fold(metric):
    """Each fold is apart by itself, at a threshold that is wrong for the other."""
    results = metric.compute(
        predictions=[0.9, 0.8, 0.2, 0.1], references=[1, 0, 1, 0], folds=[1, 1, 2, 2], false_accept_rates=[]
    )
    # Above 0.85 nothing of the second fold is said to be the same, above 0.15 everything of the first.
    assert results["accuracy"] == 0.5


@pytest.mark.parametrize("low", [0.3, np.nextafter(0.3, 1)])
def test_neighbouring_floats_are_told_apart(metric, low):
    """Of the two the middle is rounded up for one, down for the other."""
    high = np.nextafter(low, 1)
    results = metric.compute(predictions=[high, low] * 2, references=[1, 0] * 2, folds=[0, 0, 1, 1])
    assert results["threshold"] == high
    assert results["accuracy"] == 1


def test_a_true_accept_rate_has_at_most_the_false_accept_rate_and_is_not_interpolated(metric):
    """100 different pairs: at 0.01 one of them may pass, below none."""
    different = np.linspace(0, 0.99, 100)
    same = [0.985, 0.995, 0.5, 2.0]  # two pass without a false accept, three with one
    results = metric.compute(
        predictions=[*different, *same],
        references=[0] * 100 + [1] * 4,
        folds=np.arange(104) % 2,
        false_accept_rates=(0.0, 0.001, 0.0099, 0.01, 0.0199, 1.0),
    )
    assert [results[f"tar_at_far_{rate}"] for rate in ("0", "0.001", "0.0099", "0.01", "0.0199", "1")] == [
        0.5,
        0.5,
        0.5,
        0.75,
        0.75,
        1,
    ]


def test_points_on_a_straight_piece_of_the_curve_are_thresholds_too(metric):
    """Every level holds one pair of each kind."""
    levels = np.repeat(np.arange(10.0), 2)
    results = metric.compute(
        predictions=levels, references=[0, 1] * 10, folds=np.arange(20) // 10, false_accept_rates=[0.35]
    )
    assert results["tar_at_far_0.35"] == 0.3
    assert results["equal_error_rate"] == 0.5


def test_similarities_keep_their_double_precision(metric):
    """In float32 all of these are 1."""
    predictions = [1 + 2e-10, 1 + 1e-10] * 4
    assert metric.compute(predictions=predictions, references=[1, 0] * 4, folds=[0, 0, 1, 1] * 2)["accuracy"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": [1, 1, 1, 1]}, "at least two folds"),
        ({"folds": [1, 1, 1, 2.5]}, "whole numbers"),
        ({"folds": [1, 1, 1, None]}, "whole numbers"),
        ({"folds": [1, 2, 1, 2]}, "beside fold 1"),
        ({"folds": [1, 1, 2]}, "Mismatch"),
        ({"references": [1, 0, 1]}, "Mismatch"),
        ({"references": [1, 1, 1, 1]}, "both kinds, got only 1"),
        ({"references": [0, 0, 0, 0]}, "both kinds, got only 0"),
        ({"references": [1, 0, 0.5, 0]}, "`references` must be 1"),
        ({"references": [1, 0, None, 0]}, "`references` must be 1"),
        ({"predictions": [0.1, 0.2, np.nan, 0.3]}, "finite"),
        ({"predictions": [0.1, 0.2, np.inf, 0.3]}, "finite"),
        ({"predictions": [], "references": [], "folds": []}, "got none"),
        ({"false_accept_rates": [1.5]}, r"in \[0, 1\], got 1.5"),
    ],
)
def test_what_cannot_be_measured_is_refused(metric, changes, message):
    data = {"predictions": [0.9, 0.1, 0.8, 0.2], "references": [1, 0, 1, 0], "folds": [1, 1, 2, 2]}
    assert metric.compute(**data)["accuracy"] == 1
    with pytest.raises(ValueError, match=message):
        metric.compute(**(data | changes))
    # An error leaves nothing behind that a later call would count.
    assert metric.compute(**data)["accuracy"] == 1


def test_folds_have_to_be_given(metric):
    with pytest.raises(ValueError, match="missing: \\['folds'\\]"):
        metric.compute(predictions=[0.9, 0.1], references=[1, 0])
