import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn import functional as F

from modeling_pcl.probes.disentanglement import (
    RIDGE_PENALTIES,
    compute_leakage,
    measure_mirror_movement,
    measure_pose_readings,
)

CHANCE = {"pose": 0.0, "identity": 0.5, "expression": 0.3}


def results(**changes: dict) -> dict[str, dict]:
    """Scores of readings from the branches, with some of them changed."""
    scores = {
        "face": {"pose R²": 0.2, "identity AUC": 0.8, "expression accuracy": 0.5},
        "pose": {"pose R²": 0.8, "identity AUC": 0.56, "expression accuracy": 0.4},
    }
    return {branch: measures | changes.get(branch, {}) for branch, measures in scores.items()}


def pose_data(images: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Angles, features that depend on them linearly, and unrelated features."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(3 + 20, dim, generator=torch.Generator().manual_seed(99))
    angles = torch.randn(images, 3, generator=generator) * torch.tensor([30.0, 15.0, 8.0])
    others = torch.randn(images, 20, generator=generator)
    standard = angles / torch.tensor([30.0, 15.0, 8.0])
    return angles, 4 + torch.cat([standard, others], dim=1) @ mix, torch.randn(images, dim, generator=generator)


@pytest.mark.parametrize("dim", [50, 400])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pose_is_read_from_the_branch_that_holds_it_and_not_from_the_other(dim, dtype):
    train_angles, train_pose, train_face = pose_data(150, dim, seed=1)
    test_angles, test_pose, test_face = pose_data(100, dim, seed=2)
    scores = measure_pose_readings((train_pose.to(dtype), train_angles), (test_pose.to(dtype), test_angles))
    assert min(scores[f"{angle} R²"] for angle in ("yaw", "pitch", "roll")) > 0.98
    assert scores["pose MAE"] < 3
    unrelated_scores = measure_pose_readings((train_face, train_angles), (test_face, test_angles))
    assert max(value for name, value in unrelated_scores.items() if name != "pose MAE") < 0.1
    assert unrelated_scores["pose MAE"] > 10


def test_errors_are_in_degrees_and_each_angle_has_the_penalty_of_leave_one_out():
    angles, features, noise = pose_data(80, 20, seed=1)
    train, test = slice(0, 30), slice(30, 80)
    features = features + 3 * noise
    scores = measure_pose_readings((features[train], angles[train]), (features[test], angles[test]))
    rows = ((features - features[train].mean(0)) / features[train].std(0, correction=0)).double().numpy()
    errors, r2 = [], []
    for column, angle in enumerate(("yaw", "pitch", "roll")):
        truth, losses = angles[:, column].double().numpy(), []
        for penalty in RIDGE_PENALTIES:
            kept = [np.delete(np.arange(30), place) for place in range(30)]
            predictions = [Ridge(penalty).fit(rows[k], truth[k]).predict(rows[[i]])[0] for i, k in enumerate(kept)]
            losses.append(((np.array(predictions) - truth[train]) ** 2).mean())
        best = Ridge(RIDGE_PENALTIES[np.argmin(losses)]).fit(rows[train], truth[train])
        wrong = best.predict(rows[test]) - truth[test]
        errors.append(np.abs(wrong).mean())
        r2.append(1 - (wrong**2).mean() / truth[test].var())
        assert scores[f"{angle} R²"] == pytest.approx(r2[-1], rel=1e-4)
    assert (scores["pose R²"], scores["pose MAE"]) == pytest.approx((np.mean(r2), np.mean(errors)), rel=1e-4)


def test_an_angle_that_is_constant_in_the_test_set_has_no_r2():
    angles, features, _ = pose_data(100, 30, seed=1)
    test_angles = angles.clone()
    test_angles[:, 2] = 0
    scores = measure_pose_readings((features, angles), (features, test_angles))
    assert scores["roll R²"] is None
    assert scores["pose R²"] == pytest.approx((scores["yaw R²"] + scores["pitch R²"]) / 2)
    assert measure_pose_readings((features, angles), (features[:1], angles[:1]))["pose R²"] is None


def test_leakage_is_the_share_above_chance_of_the_branch_where_it_belongs():
    leaks = {name: leak["value"] for name, leak in compute_leakage(results(), CHANCE).items()}
    assert leaks == pytest.approx(
        {"pose_in_face": 0.2 / 0.8, "identity_in_pose": 0.06 / 0.3, "expression_in_pose": 0.1 / 0.2}
    )


def test_a_reading_below_chance_leaks_nothing():
    leaks = compute_leakage(results(face={"pose R²": -0.4}, pose={"identity AUC": 0.45}), CHANCE)
    assert (leaks["pose_in_face"]["value"], leaks["identity_in_pose"]["value"]) == (0, 0)


@pytest.mark.parametrize("own", [0.5, 0.4])
def test_a_branch_at_chance_gives_no_value_but_a_reason(own):
    leak = compute_leakage(results(face={"identity AUC": own}), CHANCE)["identity_in_pose"]
    assert leak["value"] is None
    assert "identity from face is not above chance" in leak["reason"]


@pytest.mark.parametrize("branch", ["face", "pose"])
def test_a_reading_of_none_gives_no_value_but_a_reason(branch):
    leak = compute_leakage(results(**{branch: {"pose R²": None}}), CHANCE)["pose_in_face"]
    assert leak == {"value": None, "reason": "pose could not be read"}


def test_mirror_movement_equals_loops_over_all_pairs():
    features = 1 + torch.randn(300, 6)
    mirrored = features + 0.5 * torch.randn(300, 6)
    rows, mirrored_rows = F.normalize(features.double(), dim=1), F.normalize(mirrored.double(), dim=1)
    to_mirrors = [1 - float(rows[i] @ mirrored_rows[i]) for i in range(300)]
    distances = (1 - rows @ rows.T).tolist()
    to_others = [distances[i][j] for i in range(300) for j in range(300) if i != j]
    assert measure_mirror_movement(features, mirrored) == pytest.approx(
        np.mean(to_mirrors) / np.mean(to_others), rel=1e-9
    )


def test_images_close_to_one_another_are_compared_without_cancellation():
    features = torch.full((20, 5), 100.0) + 1e-2 * torch.randn(20, 5)
    assert measure_mirror_movement(features, features.roll(1, dims=0)) == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("features", [torch.rand(1, 3), torch.ones(4, 3), torch.rand(4, 3) * np.nan])
def test_features_must_be_finite_and_differ_between_images(features):
    with pytest.raises(ValueError, match="finite, of at least 2 images, and differ between images"):
        measure_mirror_movement(features, features)
