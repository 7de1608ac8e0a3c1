import numpy as np
import pytest
import torch

from modeling_pcl.probes.verification import Pairs, all_pairs, balanced_accuracy, best_threshold, verify


def test_every_pair_is_scored_once_with_its_cosine():
    features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    pairs = all_pairs(features, ["a", "a", "b"])
    assert pairs.cosines.tolist() == [1.0, 0.0, 0.0]
    assert pairs.same.tolist() == [True, False, False]


def test_auc_equals_the_share_of_correctly_ordered_pairs():
    generator = np.random.default_rng(0)
    same = generator.random(60) < 0.3
    cosines = np.round(generator.normal(size=60) + same, 1)  # Rounded, so that there are ties.
    above = [(s > d) + 0.5 * (s == d) for s in cosines[same] for d in cosines[~same]]
    assert verify(Pairs(cosines, same), 0.0)["auc"] == pytest.approx(np.mean(above))


def test_the_threshold_has_the_best_balanced_accuracy_of_all():
    generator = np.random.default_rng(1)
    same = generator.random(80) < 0.2
    pairs = Pairs(generator.normal(size=80) + 2 * same, same)
    best = max(balanced_accuracy(pairs, cosine) for cosine in pairs.cosines)
    assert balanced_accuracy(pairs, best_threshold(pairs)) == best


def test_accuracy_does_not_reward_saying_different_always():
    pairs = Pairs(np.zeros(10), np.arange(10) < 1)
    assert balanced_accuracy(pairs, threshold=1.0) == 0.5


@pytest.mark.parametrize("subjects", [["a", "a", "a"], ["a", "b", "c"]])
def test_pairs_of_one_kind_are_refused(subjects):
    with pytest.raises(ValueError, match="two subjects"):
        all_pairs(torch.rand(3, 2), subjects)


def test_a_subject_for_each_image_is_required():
    with pytest.raises(ValueError, match="must name 3 images, got 2"):
        all_pairs(torch.rand(3, 2), ["a", "b"])
