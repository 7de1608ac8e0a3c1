import logging
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from modeling_pcl.probes.identity_embedding import SCALE, normalised_softmax_loss, train_identity_embedding

QUIET = {"dim": 4, "epochs": 2, "learning_rates": (1e-2,)}


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


def test_the_loss_equals_a_naive_twin():
    embeddings, centres, identities = torch.randn(5, 3), torch.randn(4, 3), torch.tensor([0, 3, 1, 1, 2])
    losses = []
    for row, identity in zip(embeddings.double(), identities):
        cosines = [float(row @ centre / row.norm() / centre.norm()) for centre in centres.double()]
        shares = [math.exp(SCALE * cosine) for cosine in cosines]
        losses.append(-math.log(shares[identity] / sum(shares)))
    loss = normalised_softmax_loss(embeddings, centres, identities)
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)


def test_unseen_people_are_told_apart_better_than_by_the_raw_features():
    features, subjects = faces(range(60))
    others, other_subjects = faces(range(100, 120))
    embedding = train_identity_embedding(features, subjects, None, dim=16, epochs=100, learning_rates=(1e-1,))
    assert auc(others - others.mean(dim=0), other_subjects) < 0.7
    assert auc(embedding.compute_logits(others), other_subjects) > 0.9


def test_the_best_epoch_and_learning_rate_of_all_are_kept():
    epochs_seen, scores = [], iter([0.1, 0.3, 0.2, 0.2, 0.5, 0.4])

    def held_out_score(weight, bias):
        epochs_seen.append((weight.clone(), bias.clone()))
        return next(scores)

    features, subjects = faces(range(5))
    embedding = train_identity_embedding(
        features, subjects, held_out_score, dim=4, epochs=3, learning_rates=(1e-3, 1e-1)
    )
    assert embedding.selection.describe() == {"learning_rate": 1e-1, "epoch": 2, "score": 0.5}
    assert torch.equal(embedding.weight, epochs_seen[4][0])
    assert torch.equal(embedding.bias, epochs_seen[4][1])
    assert not torch.equal(epochs_seen[4][0], epochs_seen[5][0])


def test_without_a_score_the_last_epoch_of_the_first_learning_rate_is_kept():
    epochs_seen = []

    def worse_and_worse(weight, bias):
        epochs_seen.append(weight.clone())
        return -len(epochs_seen)

    features, subjects = faces(range(5))
    options = {"dim": 4, "epochs": 3, "learning_rates": (1e-3, 1e-1)}
    embedding = train_identity_embedding(features, subjects, None, **options)
    assert embedding.selection.describe() == {"learning_rate": 1e-3, "epoch": 3, "score": None}
    train_identity_embedding(features, subjects, worse_and_worse, **options)
    assert torch.equal(embedding.weight, epochs_seen[2])


def test_one_seed_gives_one_embedding_and_another_another():
    features, subjects = faces(range(5))
    first, again, other = (train_identity_embedding(features, subjects, None, **QUIET, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert first.weight.shape == (4, 20)
    assert first.bias.shape == (4,)


def test_standardisation_is_folded_in():
    """Features of another mean and scale are equal after standardisation, so the embeddings are equal, too."""
    features, subjects = faces(range(5))
    scale, shift = torch.linspace(0.1, 10, 20), torch.linspace(-5, 5, 20)
    plain = train_identity_embedding(features, subjects, None, **QUIET)
    moved = train_identity_embedding(scale * features + shift, subjects, None, **QUIET)
    assert plain.weight.dtype == plain.bias.dtype == torch.float32
    # Adam divides by the size of the gradient, so that rounding matters where it is small.
    torch.testing.assert_close(
        moved.compute_logits(scale * features + shift), plain.compute_logits(features), atol=1e-3, rtol=0
    )


def test_people_with_a_single_image_are_left_out_and_counted(caplog):
    features, subjects = faces(range(5))
    lonely = torch.full((2, 20), 1000.0)
    with caplog.at_level(logging.WARNING):
        embedding = train_identity_embedding(
            torch.cat([lonely, features]), ["lonely", "alone", *subjects], None, **QUIET
        )
    assert "2 of 7 people have a single image and are left out" in caplog.text
    assert torch.equal(embedding.weight, train_identity_embedding(features, subjects, None, **QUIET).weight)


def test_bfloat16_features_and_a_constant_one_train():
    features, subjects = faces(range(5))
    features[:, 3] = 1
    embedding = train_identity_embedding(features.bfloat16(), subjects, None, **QUIET)
    assert embedding.compute_logits(features.bfloat16()).isfinite().all()


def test_two_people_with_two_images_are_required():
    with pytest.raises(ValueError, match="at least 2 people with at least 2 images each, got 1 of 2"):
        train_identity_embedding(torch.rand(3, 2), list("aab"), None)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="lower `learning_rates`"):
        train_identity_embedding(torch.rand(4, 2), ["a", "a", "b", "b"], lambda weight, bias: math.nan, **QUIET)
