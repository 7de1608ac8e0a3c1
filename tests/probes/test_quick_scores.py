import io

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from PIL import Image

from modeling_pcl import PCLModel
from modeling_pcl.features_pcl import READABLE_FEATURES
from modeling_pcl.probes.quick_scores import (
    ScoreCorpora,
    compute_quick_scores,
    measure_linear_accuracy,
    measure_verification_auc,
    predict_by_ridge,
    read_score_data,
    sample_pairs,
)


def png(level: int, side: int = 40) -> dict:
    file = io.BytesIO()
    Image.new("L", (side, side), level).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture
def corpora(tmp_path) -> ScoreCorpora:
    """Corpora whose labels are all determined by the grey level of the image."""
    levels = np.arange(60) * 4
    columns = {
        "expressions_train": {"label": levels // 128},
        "expressions_validation": {"label": levels // 128},
        "identities": {"identity": levels // 16},
        "head_pose": {"yaw": levels / 4.0, "pitch": -levels / 8.0, "roll": levels / 2.0, "smile": levels // 128},
        "portraits": {"age": levels / 3.0, "gender": levels // 128},
    }
    for name, labels in columns.items():
        rows = {"image": [png(level) for level in levels.tolist()]}
        Dataset.from_dict(rows | {key: value.tolist() for key, value in labels.items()}).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    return ScoreCorpora(**{name: str(tmp_path / f"{name}.parquet") for name in columns})


def test_every_feature_has_every_score_and_labels_that_are_in_the_images_are_read(corpora):
    torch.manual_seed(0)
    model, data = PCLModel(tiny.config()).eval(), read_score_data(corpora, 32)
    scores = dict(compute_quick_scores(model, data))
    assert list(scores) == list(READABLE_FEATURES)
    assert dict(compute_quick_scores(model, data, ["face"])) == {"face": scores["face"]}
    for of_feature in scores.values():
        assert len(of_feature) == 12
        assert of_feature["mirror_movement"] > 0
        assert of_feature["yaw_r2"] > 0.9
        assert of_feature["smile_accuracy"] >= 0.75
        assert of_feature["age_mae"] < 10


def test_head_poses_are_cropped_and_shuffled_and_other_corpora_are_not(corpora):
    data = read_score_data(corpora, 32)
    assert data.images["head_pose"].shape == data.images["portraits"].shape == (60, 3, 32, 32)
    levels = data.images["head_pose"][:, 0, 16, 16].tolist()
    assert levels != sorted(levels)
    assert [level / 4 for level in levels] == data.labels["head_pose"]["yaw"].tolist()
    assert data.images["portraits"][:, 0, 0, 0].tolist() == list(range(0, 240, 4))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("portraits", "", "`--portraits` must be given"),
        ("head_pose", "portraits", "`--head_pose` needs a column `yaw`"),
        ("identities", "portraits", "`--identities` needs a column `identity`"),
    ],
)
def test_a_corpus_without_its_labels_is_refused_by_name(corpora, name, value, message):
    setattr(corpora, name, getattr(corpora, value) if value else "")
    with pytest.raises(ValueError, match=message):
        read_score_data(corpora, 32)


def test_separable_classes_are_told_apart_and_shuffled_labels_are_not():
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(3, (4000,), generator=generator)  # At a rate of 1e-3 a few hundred steps are needed.
    rows = torch.randn(4000, 8, generator=generator) * 0.1 + torch.nn.functional.one_hot(classes, 8)
    assert measure_linear_accuracy(rows[:3000], classes[:3000].numpy(), rows[3000:], classes[3000:].numpy()) == 1
    shuffled = classes[torch.randperm(4000, generator=generator)].numpy()
    assert measure_linear_accuracy(rows[:3000], shuffled[:3000], rows[3000:], shuffled[3000:]) < 0.5


def test_ridge_reads_what_is_linear_and_leaves_noise_at_the_mean():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 6, generator=generator)
    targets = torch.stack([rows @ torch.arange(6.0) + 3, torch.randn(500, generator=generator)], dim=1)
    predictions = predict_by_ridge(rows[:400], targets[:400], rows[400:])
    # Both targets share a penalty, which is at least 10 for 400 images.
    torch.testing.assert_close(predictions[:, 0], targets[400:, 0], atol=1.5, rtol=0)
    assert predictions[:, 1].abs().mean() < 0.3


@pytest.mark.parametrize("dim", [12, 400])
def test_ridge_is_the_same_through_either_gram_matrix(dim):
    generator = torch.Generator().manual_seed(0)
    rows, targets = torch.randn(120, dim, generator=generator), torch.randn(120, 2, generator=generator)
    predictions = predict_by_ridge(rows[:90], targets[:90], rows[90:])
    x = (rows - rows[:90].mean(dim=0)).double() / (rows[:90].std(dim=0) + 1e-5)
    y = (targets[:90] - targets[:90].mean(dim=0)).double()

    def fit(count: int, penalty: float) -> torch.Tensor:
        one = torch.eye(dim, dtype=torch.double)
        return torch.linalg.solve(x[:count].T @ x[:count] + penalty * one, x[:count].T @ y[:count])

    penalty = min((10.0**k for k in range(1, 6)), key=lambda p: (x[75:90] @ fit(75, p) - y[75:]).abs().mean())
    expected = x[90:] @ fit(90, penalty) + targets[:90].mean(dim=0)
    torch.testing.assert_close(predictions, expected.float(), atol=1e-4, rtol=1e-4)


def test_pairs_are_as_many_of_one_person_as_of_two():
    people = np.array([7, 8, 7, 9, 8, 7])
    first, second, same = sample_pairs(people)
    assert same.tolist() == [True] * 4 + [False] * 4  # 7 has three pairs, 8 one
    assert ((people[first] == people[second]) == same).all()
    assert (first != second).all()


def test_people_who_point_their_own_way_are_verified():
    people = np.repeat(np.arange(10), 4)
    rows = torch.eye(10)[people] + 0.01 * torch.randn(40, 10, generator=torch.Generator().manual_seed(0))
    assert measure_verification_auc(rows, people) == 1


@pytest.mark.parametrize("people", [[1, 1, 1], [1, 2, 3]])
def test_people_that_make_no_pairs_are_refused(people):
    with pytest.raises(ValueError, match="several people, one of them with two images"):
        sample_pairs(np.array(people))
