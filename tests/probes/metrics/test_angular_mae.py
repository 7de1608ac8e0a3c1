import numpy as np
import pytest

from modeling_pcl.probes.metrics import load_metric

SEEDS = pytest.mark.parametrize("seed", range(5))


@pytest.fixture(scope="module")
def metric():
    return load_metric("angular_mae")


def angles(seed: int = 0, count: int = 40) -> dict[str, np.ndarray]:
    """Some of them beyond 99 degrees, to both sides."""
    generator = np.random.default_rng(seed)
    references = generator.normal(0, [60, 40, 20], (count, 3))
    return {"predictions": references + generator.normal(0, 10, (count, 3)), "references": references}


def naive(predictions, references, max_angle: float) -> dict[str, float]:
    sums, images = [0.0, 0.0, 0.0], 0
    for prediction, reference in zip(predictions, references):
        if all(-max_angle <= angle <= max_angle for angle in reference):
            images += 1
            for axis in range(3):
                sums[axis] += abs(float(prediction[axis]) - float(reference[axis]))
    means = [total / images for total in sums]
    names = ("yaw_mae", "pitch_mae", "roll_mae")
    return {"mae": sum(means) / 3, **dict(zip(names, means)), "images": images, "dropped": len(references) - images}


@SEEDS
@pytest.mark.parametrize("max_angle", [40, 99, 1000])
def test_errors_equal_those_of_loops(metric, seed, max_angle):
    data = angles(seed)
    results = metric.compute(**data, max_angle=max_angle)
    assert results == pytest.approx(naive(**data, max_angle=max_angle), abs=1e-12)


def test_one_error_in_each_angle_is_shared_by_the_images(metric):
    results = metric.compute(predictions=[[3, 0, 0], [0, -6, 12]], references=[[0, 0, 0], [0, 0, 0]])
    assert results == {"mae": 3.5, "yaw_mae": 1.5, "pitch_mae": 3, "roll_mae": 6, "images": 2, "dropped": 0}


def test_images_with_one_angle_beyond_the_largest_are_dropped_and_counted(metric):
    references = [[99, 0, 0], [0, -99, 0], [99.01, 0, 0], [0, -100, 0], [0, 0, 150]]
    predictions = np.array(references) + 1
    results = metric.compute(predictions=predictions, references=references)
    assert (results["images"], results["dropped"]) == (2, 3)
    assert metric.compute(predictions=predictions, references=references, max_angle=None)["images"] == 5


def test_predictions_beyond_the_largest_angle_count(metric):
    results = metric.compute(predictions=[[150, 0, 0]], references=[[50, 0, 0]])
    assert (results["yaw_mae"], results["dropped"]) == (100, 0)


def test_angles_do_not_wrap(metric):
    results = metric.compute(predictions=[[-179, 0, 0]], references=[[179, 0, 0]], max_angle=None)
    assert results["yaw_mae"] == 358


def test_errors_of_each_image_come_on_request_in_their_order(metric):
    data = {"predictions": [[1, 2, 3], [0, 0, 0], [-4, 0, 9]], "references": [[0, 0, 0], [120, 0, 0], [0, 0, 10]]}
    assert "errors" not in metric.compute(**data)
    results = metric.compute(**data, per_sample=True)
    assert results["errors"] == [[1, 2, 3], None, [4, 0, 1]]
    kept = [row for row in results["errors"] if row is not None]
    assert results["mae"] == pytest.approx(np.mean(kept))


def test_angles_keep_their_double_precision(metric):
    results = metric.compute(predictions=[[90 + 1e-9, 0, 0]], references=[[90, 0, 0]])
    assert results["yaw_mae"] == pytest.approx(1e-9, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": [[1, 2, 3]]}, "Mismatch"),
        ({"references": [[1, 2], [3, 4]]}, "`references` must be yaw, pitch and roll in every row, got 2"),
        (
            {"predictions": [[1, 2, 3, 4], [3, 4, 5, 6]]},
            "`predictions` must be yaw, .* in every row, got 4",
        ),
        ({"references": [[1, 2, 3], [4, 5]]}, "`references` must be yaw, pitch and roll"),
        ({"references": [[1, 2, 3], None]}, "`references` must be yaw, pitch and roll"),
        ({"references": [[1, 2, 3], [4, 5, np.nan]]}, "`references` must be finite"),
        ({"references": [[1, 2, 3], [4, 5, None]]}, "`references` must be finite"),
        ({"predictions": [[1, 2, 3], [4, 5, np.inf]]}, "`predictions` must be finite"),
        ({"predictions": [], "references": []}, "got none"),
        ({"references": [[100, 0, 0], [0, 0, 100]]}, "within `max_angle`=99"),
        ({"max_angle": 0}, "above 0 degrees"),
        ({"max_angle": np.nan}, "above 0 degrees"),
    ],
)
def test_what_cannot_be_measured_is_refused(metric, changes, message):
    data = {"predictions": [[1, 2, 3], [4, 5, 6]], "references": [[1, 2, 3], [4, 5, 6]]}
    with pytest.raises(ValueError, match=message):
        metric.compute(**(data | changes))
    # An error leaves nothing behind that a later call would count.
    assert metric.compute(**data)["images"] == 2
