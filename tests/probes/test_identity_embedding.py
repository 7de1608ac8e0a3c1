import logging
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from modeling_pcl.probes import identity_embedding
from modeling_pcl.probes.identity_embedding import (
    COMPONENTS,
    SHRINKAGES,
    WITHOUT_CHOICE,
    scale_axes_by_identity,
    train_identity_embedding,
)


def faces(people: range, images_each: int = 10) -> tuple[torch.Tensor, list[str]]:
    """Features that encode the person in 4 directions of small spread, among 16 unrelated directions."""
    generator = torch.Generator().manual_seed(people.start)
    who = torch.arange(len(people)).repeat_interleave(images_each)
    identity = torch.randn(len(people), 4, generator=generator)[who] + 0.1 * torch.randn(
        len(who), 4, generator=generator
    )
    rows = torch.cat([0.3 * identity, torch.randn(len(who), 16, generator=generator)], dim=1)
    mix = torch.linalg.qr(torch.randn(20, 20, generator=torch.Generator().manual_seed(99))).Q
    return 7 + 3 * rows @ mix, [f"p{people[place]}" for place in who]


def auc(features: torch.Tensor, subjects: list[str]) -> float:
    rows, names = F.normalize(features, dim=1), np.array(subjects)
    first, second = np.triu_indices(len(names), k=1)
    return float(roc_auc_score(names[first] == names[second], (rows @ rows.T).numpy()[first, second]))


def test_axes_are_scaled_by_the_ratio_of_the_variances():
    """By hand: the first feature differs between people only, with a variance of 4; the second within, with 1."""
    features = np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])
    people = np.array([0, 0, 1, 1])
    # Variances are 4 and 0 between people, 0 and 1 within; half of each becomes their mean: 3 and 1, 1/4 and 3/4.
    axes = scale_axes_by_identity(features, people, 0.5)
    np.testing.assert_allclose(np.abs(axes[:, ::-1]), np.diag([math.sqrt(3) / 0.25, 1 / 0.75]), atol=1e-12)


def test_unseen_people_are_told_apart_better_than_by_the_raw_features():
    features, subjects = faces(range(60))
    others, other_subjects = faces(range(100, 120))
    embedding = train_identity_embedding(features, subjects, None)
    assert auc(others - others.mean(dim=0), other_subjects) < 0.7
    assert auc(embedding.compute_logits(others), other_subjects) > 0.95


def test_without_shrinkage_the_axes_are_those_of_discriminant_analysis():
    features, subjects = faces(range(30))
    numbers = np.unique(subjects, return_inverse=True)[1]
    axes = scale_axes_by_identity(features.double().numpy(), numbers, 0.0)
    projected = features.double().numpy() @ axes
    means = np.stack([projected[numbers == person].mean(axis=0) for person in range(30)])
    within = np.cov((projected - means[numbers]).T, bias=True)
    between = np.cov(means.T, bias=True)
    # Each axis has the variance between people as its variance within a person, and they are uncorrelated.
    np.testing.assert_allclose(between.diagonal(), within.diagonal() ** 2, rtol=1e-6)
    np.testing.assert_allclose(within - np.diag(within.diagonal()), 0, atol=1e-6 * within.max())


def test_the_best_candidate_is_kept():
    embeddings, count = [], len(COMPONENTS) * len(SHRINKAGES)

    def held_out_score(weight, bias):
        embeddings.append((weight, bias))
        return 0.5 if len(embeddings) == 4 else 0.1

    features, subjects = faces(range(5))
    embedding = train_identity_embedding(features, subjects, held_out_score)
    assert len(embeddings) == count
    assert embedding.selection.describe() == {"components": COMPONENTS[0], "shrinkage": SHRINKAGES[3], "score": 0.5}
    assert torch.equal(embedding.weight, embeddings[3][0])
    assert torch.equal(embedding.bias, embeddings[3][1])
    assert not torch.equal(embeddings[3][0], embeddings[4][0])


def test_without_a_score_the_default_is_used():
    features, subjects = faces(range(5))
    embedding = train_identity_embedding(features, subjects, None)
    assert embedding.selection.describe() == {**WITHOUT_CHOICE, "score": None}
    assert embedding.weight.shape == (20, 20)  # There are no more components than features.
    assert embedding.bias.shape == (20,)


def test_only_the_axes_that_tell_people_apart_best_are_kept(monkeypatch):
    features, subjects = faces(range(60))
    others, other_subjects = faces(range(100, 120))
    whole = train_identity_embedding(features, subjects, None)
    monkeypatch.setattr(identity_embedding, "MOST_DIMENSIONS", 4)
    embedding = train_identity_embedding(features, subjects, None)
    assert (whole.weight.shape[0], embedding.weight.shape[0]) == (20, 4)
    assert torch.equal(embedding.weight, whole.weight[-4:])
    assert auc(embedding.compute_logits(others), other_subjects) > 0.95


def test_standardisation_is_folded_in():
    """Features of another mean and scale are equal after standardisation, so the cosines are equal, too."""
    features, subjects = faces(range(5))
    scale, shift = torch.linspace(0.1, 10, 20), torch.linspace(-5, 5, 20)
    plain = train_identity_embedding(features, subjects, None)
    moved = train_identity_embedding(scale * features + shift, subjects, None)
    assert plain.weight.dtype == plain.bias.dtype == torch.float32
    one, other = (
        F.normalize(embedding.compute_logits(values), dim=1)
        for embedding, values in ((plain, features), (moved, scale * features + shift))
    )
    torch.testing.assert_close(one @ one.T, other @ other.T, atol=1e-4, rtol=0)


def test_people_with_a_single_image_are_left_out_and_counted(caplog):
    features, subjects = faces(range(5))
    lonely = torch.full((2, 20), 1000.0)
    with caplog.at_level(logging.WARNING):
        embedding = train_identity_embedding(torch.cat([lonely, features]), ["lonely", "alone", *subjects], None)
    assert "2 of 7 people have a single image and are left out" in caplog.text
    assert torch.equal(embedding.weight, train_identity_embedding(features, subjects, None).weight)


def test_batches_of_any_number_of_images_give_the_components_of_all(monkeypatch):
    features, subjects = faces(range(30))
    whole = train_identity_embedding(features, subjects, None)
    monkeypatch.setattr("modeling_pcl.probes.identity_embedding.ROWS_AT_ONCE", 64)
    parts = train_identity_embedding(features, subjects, None)
    one, other = (F.normalize(embedding.compute_logits(features), dim=1) for embedding in (whole, parts))
    torch.testing.assert_close(one @ one.T, other @ other.T, atol=1e-3, rtol=0)


@pytest.mark.parametrize("images_each", [2, 10])
def test_bfloat16_features_a_constant_one_and_few_images_train(images_each):
    features, subjects = faces(range(2), images_each)
    features[:, 3] = 1
    embedding = train_identity_embedding(features.bfloat16(), subjects, None)
    assert embedding.compute_logits(features.bfloat16()).isfinite().all()


def test_fewer_images_than_features_keep_no_direction_in_which_they_do_not_differ():
    """A component without variance would be scaled up until it outweighs all others in images of other people."""
    features, subjects = faces(range(6), images_each=2)
    embedding = train_identity_embedding(features, subjects, None)
    assert embedding.weight.shape == (11, 20)
    others, _ = faces(range(100, 130))
    sizes = embedding.compute_logits(others).norm(dim=1)
    assert sizes.max() < 20 * embedding.compute_logits(features).norm(dim=1).median()
    copies = torch.cat([features, features])  # Twice each image: as many directions, and more rows.
    assert train_identity_embedding(copies, 2 * subjects, None).weight.shape == (11, 20)


@pytest.mark.parametrize("rows", [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]])
def test_features_that_do_not_differ_are_refused(rows):
    features = torch.randn(2, 5)[rows]
    with pytest.raises(ValueError, match="give another `--train`"):
        train_identity_embedding(features, ["a", "a", "b", "b"], None)


def test_two_people_with_two_images_are_required():
    with pytest.raises(ValueError, match="at least 2 people with at least 2 images each, got 1 of 2"):
        train_identity_embedding(torch.rand(3, 2), list("aab"), None)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="the features of `--train` are not finite"):
        train_identity_embedding(torch.rand(4, 2), ["a", "a", "b", "b"], lambda weight, bias: math.nan)
