import numpy as np
import pytest

from modeling_pcl.probes.metrics import load_metric

SEEDS = pytest.mark.parametrize("seed", range(5))
NAMES = ["AU1", "AU2", "AU4", "AU6"]


@pytest.fixture(scope="module")
def metric():
    return load_metric("action_unit_f1")


def frames(seed: int = 0, count: int = 60) -> dict[str, np.ndarray]:
    """Units of different frequency, with missing labels of both kinds."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((count, 4)) < [0.1, 0.3, 0.5, 0.8]).astype(float)
    probabilities = np.clip(0.5 * labels + 0.6 * generator.random((count, 4)), 0, 1)
    labels[generator.random((count, 4)) < 0.2] = -1
    labels[generator.random((count, 4)) < 0.1] = np.nan
    return {"predictions": probabilities, "references": labels}


def naive(predictions, references, threshold: float = 0.5) -> tuple[list[float | None], list[int]]:
    scores, counts = [], []
    for unit in range(predictions.shape[1]):
        right = false = missed = labelled = 0
        for probability, label in zip(predictions[:, unit], references[:, unit]):
            if label not in (0, 1):
                continue
            labelled += 1
            right += label == 1 and probability >= threshold
            false += label == 0 and probability >= threshold
            missed += label == 1 and probability < threshold
        exists = right + false + missed > 0
        scores.append(2 * right / (2 * right + false + missed) if exists else None)
        counts.append(labelled)
    return scores, counts


@SEEDS
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_scores_and_counts_equal_those_of_loops(metric, seed, threshold):
    data = frames(seed)
    scores, counts = naive(**data, threshold=threshold)
    results = metric.compute(**data, names=NAMES, threshold=threshold)
    assert results["f1_per_unit"] == pytest.approx(dict(zip(NAMES, scores)), abs=1e-12)
    assert results["f1"] == pytest.approx(np.mean(scores), abs=1e-12)
    assert results["labelled_frames"] == dict(zip(NAMES, counts))
    assert results["frames"] == sum(any(label in (0, 1) for label in row) for row in data["references"])


def test_a_unit_that_is_nowhere_active_has_no_score_and_is_not_in_the_mean(metric):
    results = metric.compute(
        predictions=[[1, 0, 0, 1], [1, 0, 1, 1]],
        references=[[1, 0, 0, -1], [0, 0, 0, -1]],
        names=["scored", "never", "false alarm", "unlabelled"],
    )
    assert results["f1_per_unit"] == {
        "scored": pytest.approx(2 / 3),
        "never": None,
        "false alarm": 0.0,
        "unlabelled": None,
    }
    assert results["f1"] == pytest.approx(1 / 3)
    assert results["labelled_frames"] == {"scored": 2, "never": 2, "false alarm": 2, "unlabelled": 0}


def test_without_any_active_frame_there_is_no_mean(metric):
    results = metric.compute(predictions=[[0.1, 0.2]], references=[[0, 0]])
    assert results == {
        "f1": None,
        "f1_per_unit": {"unit_0": None, "unit_1": None},
        "labelled_frames": {"unit_0": 1, "unit_1": 1},
        "frames": 1,
    }


@pytest.mark.parametrize("missing", [-1, np.nan, None])
def test_predictions_of_missing_labels_do_not_matter(metric, missing):
    labels = [[1, missing], [0, 1], [missing, missing]]
    results = [
        metric.compute(predictions=[[1, guess], [1, 1], [guess, guess]], references=labels)
        for guess in (0.0, 1.0, np.nan, -3.0)
    ]
    assert results == [results[0]] * 4
    assert results[0]["frames"] == 2
    assert results[0]["labelled_frames"] == {"unit_0": 2, "unit_1": 1}


def test_a_probability_at_the_threshold_is_active(metric):
    assert metric.compute(predictions=[[0.5]], references=[[1]])["f1"] == 1
    assert metric.compute(predictions=[[0.7]], references=[[1]], threshold=0.7)["f1"] == 1
    assert metric.compute(predictions=[[0.7]], references=[[1]], threshold=0.71)["f1"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": [[1, 0]]}, "Mismatch"),
        ({"references": [[1], [0]]}, "the same units, got 2 and 1"),
        ({"references": [[1, 0], [1]]}, "`references` must have a number for each unit"),
        ({"references": [[1, 0], None]}, "`references` must have a number for each unit"),
        ({"predictions": [[1, 0], [1]]}, "`predictions` must have a number for each unit"),
        ({"references": [[1, 0], [0.5, 1]]}, "`references` must be 0 or 1"),
        ({"references": [[1, 0], [-2, 1]]}, "`references` must be 0 or 1"),
        ({"references": [[-1, np.nan], [None, -1]]}, "only missing ones"),
        ({"predictions": [[1, 0], [2.5, 1]]}, "sigmoid of logits"),
        ({"predictions": [[1, 0], [-0.5, 1]]}, "sigmoid of logits"),
        ({"predictions": [[1, 0], [np.nan, 1]]}, "sigmoid of logits"),
        ({"predictions": [], "references": []}, "got none"),
        ({"predictions": [[], []], "references": [[], []]}, "at least one unit"),
        ({"names": ["AU1"]}, "2 different names"),
        ({"names": ["AU1", "AU1"]}, "2 different names"),
        ({"names": "AU"}, "2 different names"),
        ({"threshold": 0}, "`threshold` must be"),
        ({"threshold": 50}, "`threshold` must be"),
    ],
)
def test_what_cannot_be_scored_is_refused(metric, changes, message):
    data = {"predictions": [[1, 0], [0, 1]], "references": [[1, 0], [0, 1]]}
    with pytest.raises(ValueError, match=message):
        metric.compute(**(data | changes))
    # An error leaves nothing behind that a later call would count.
    assert metric.compute(**data)["frames"] == 2
