import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn import functional as F

from modeling_pcl.probes.disentanglement import RIDGE_PENALTIES, leakage, mirror_movement, read_pose

READINGS = {
    "pose": {"trunk": 0.9, "face": 0.2, "pose": 0.8},
    "identity": {"trunk": 0.7, "face": 0.8, "pose": 0.56},
    "expression": {"trunk": 0.6, "face": 0.5, "pose": 0.4},
}


def heads(images: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Angles, features that hold them linearly, and features of something else."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(3 + 20, dim, generator=torch.Generator().manual_seed(99))
    angles = torch.randn(images, 3, generator=generator) * torch.tensor([30.0, 15.0, 8.0])
    others = torch.randn(images, 20, generator=generator)
    standard = angles / torch.tensor([30.0, 15.0, 8.0])
    return angles, 4 + torch.cat([standard, others], dim=1) @ mix, torch.randn(images, dim, generator=generator)


@pytest.mark.parametrize("dim", [50, 400])
def test_pose_is_read_from_the_branch_that_holds_it_and_not_from_the_other(dim):
    train_angles, train_pose, train_face = heads(150, dim, seed=1)
    test_angles, test_pose, test_face = heads(100, dim, seed=2)
    read = read_pose(train_pose, train_angles, test_pose, test_angles)
    assert min(read["r2"].values()) > 0.99
    assert read["mae"]["yaw"] < 3
    missed = read_pose(train_face, train_angles, test_face, test_angles)
    assert max(missed["r2"].values()) < 0.1
    assert missed["mae"]["yaw"] > 15


@pytest.mark.parametrize("dim", [10, 60])
def test_penalties_are_those_of_leave_one_out_in_a_loop(dim):
    angles, features, noise = heads(30, dim, seed=1)
    features = features + 3 * noise
    rows = features.double().numpy()
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    read = read_pose(features, angles, features, angles)
    for column, angle in enumerate(("yaw", "pitch", "roll")):
        truth = angles[:, column].double().numpy()
        errors = []
        for penalty in RIDGE_PENALTIES:
            kept = [np.delete(np.arange(30), place) for place in range(30)]
            said = [Ridge(penalty).fit(rows[k], truth[k]).predict(rows[[i]])[0] for i, k in enumerate(kept)]
            errors.append(((np.array(said) - truth) ** 2).mean())
        assert read["penalty"][angle] == RIDGE_PENALTIES[np.argmin(errors)]


def test_errors_are_in_degrees_and_by_angle():
    angles, features, noise = heads(200, 40, seed=1)
    features = features + 2 * noise
    read = read_pose(features[:150], angles[:150], features[150:], angles[150:])
    rows = ((features - features[:150].mean(0)) / features[:150].std(0, correction=0)).double().numpy()
    for column, angle in enumerate(("yaw", "pitch", "roll")):
        model = Ridge(read["penalty"][angle]).fit(rows[:150], angles[:150, column].double().numpy())
        errors = angles[150:, column].double().numpy() - model.predict(rows[150:])
        spread = angles[150:, column].double().var(correction=0).item()
        assert read["mae"][angle] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
        assert read["r2"][angle] == pytest.approx(1 - (errors**2).mean() / spread, rel=1e-4)
    for measure in ("mae", "r2"):
        assert read[measure]["mean"] == pytest.approx(np.mean([read[measure][a] for a in ("yaw", "pitch", "roll")]))


def test_an_angle_that_is_constant_in_the_test_set_has_no_r2():
    angles, features, _ = heads(100, 30, seed=1)
    test_angles = angles.clone()
    test_angles[:, 2] = 0
    read = read_pose(features, angles, features, test_angles)
    assert read["r2"]["roll"] is None
    assert read["r2"]["mean"] == pytest.approx((read["r2"]["yaw"] + read["r2"]["pitch"]) / 2)
    assert read["mae"]["roll"] > 1
    assert read_pose(features, angles, features[:1], angles[:1])["r2"]["mean"] is None


def test_bfloat16_features_are_read():
    angles, features, _ = heads(100, 30, seed=1)
    assert read_pose(features.bfloat16(), angles, features.bfloat16(), angles)["r2"]["mean"] > 0.95


def test_angles_must_be_three_for_each_image_and_all_numbers_finite():
    angles, features, _ = heads(10, 5, seed=1)
    with pytest.raises(ValueError, match=r"`train_angles` must be \(10, 3\), got \(10, 2\)"):
        read_pose(features, angles[:, :2], features, angles)
    with pytest.raises(ValueError, match=r"`test_angles` must be \(10, 3\), got \(9, 3\)"):
        read_pose(features, angles, features, angles[:9])
    with pytest.raises(ValueError, match="`test` and `test_angles` must be finite"):
        read_pose(features, angles, features * np.nan, angles)
    with pytest.raises(ValueError, match="`train` and `train_angles` must be finite"):
        read_pose(features, angles * np.nan, features, angles)


def test_leakage_is_the_share_above_chance_of_the_branch_where_it_belongs():
    leaks = leakage(READINGS, chance=0.3)
    assert leaks["pose_in_face"]["value"] == pytest.approx(0.2 / 0.8)
    assert leaks["identity_in_pose"]["value"] == pytest.approx(0.06 / 0.3)
    assert leaks["expression_in_pose"]["value"] == pytest.approx(0.1 / 0.2)


def test_a_reading_below_chance_leaks_nothing():
    leaks = leakage({"pose": {"face": -0.4, "pose": 0.8}, "identity": {"face": 0.8, "pose": 0.45}}, chance=0.3)
    assert {name: leak["value"] for name, leak in leaks.items()} == {"pose_in_face": 0, "identity_in_pose": 0}


@pytest.mark.parametrize("own", [0.5, 0.4])
def test_a_branch_at_chance_gives_no_value_but_a_reason(own):
    (leak,) = leakage({"identity": {"face": own, "pose": 0.7}}, chance=0.3).values()
    assert leak["value"] is None
    assert "identity from face is not above chance" in leak["reason"]


def test_a_reading_of_none_gives_no_value_but_a_reason():
    for reading in ({"face": None, "pose": 0.5}, {"face": 0.5, "pose": None}):
        assert leakage({"pose": reading}, chance=0.3) == {
            "pose_in_face": {"value": None, "reason": "pose could not be read"}
        }


def test_mirror_movement_equals_loops_over_all_pairs():
    features = 1 + torch.randn(300, 6)  # More than one block of rows.
    mirrored = features + 0.5 * torch.randn(300, 6)
    rows, mirrored_rows = F.normalize(features.double(), dim=1), F.normalize(mirrored.double(), dim=1)
    own = [1 - float(rows[i] @ mirrored_rows[i]) for i in range(300)]
    distances = (1 - rows @ rows.T).tolist()
    others = [distances[i][j] for i in range(300) for j in range(300) if i != j]
    assert mirror_movement(features, mirrored) == pytest.approx(np.mean(own) / np.mean(others), rel=1e-9)


def test_images_close_to_one_another_are_compared_without_cancellation():
    features = torch.full((20, 5), 100.0) + 1e-2 * torch.randn(20, 5)
    assert mirror_movement(features, features.roll(1, dims=0)) == pytest.approx(1, abs=0.5)


def test_mirrored_features_must_fit_and_differ_between_images():
    with pytest.raises(ValueError, match="must have one shape"):
        mirror_movement(torch.rand(4, 3), torch.rand(5, 3))
    with pytest.raises(ValueError, match="at least 2 rows"):
        mirror_movement(torch.rand(1, 3), torch.rand(1, 3))
    with pytest.raises(ValueError, match="must differ between images"):
        mirror_movement(torch.ones(4, 3), torch.rand(4, 3))
    with pytest.raises(ValueError, match="must be finite"):
        mirror_movement(torch.rand(4, 3) * np.nan, torch.rand(4, 3))
