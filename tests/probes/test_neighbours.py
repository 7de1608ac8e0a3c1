from collections import Counter

import numpy as np
import pytest
import torch

from modeling_pcl.probes.neighbours import nearest_neighbours


def naive_vote(train: torch.Tensor, labels: list, image: torch.Tensor, k: int):
    cosines = [float(torch.dot(image, row) / image.norm() / row.norm()) for row in train.double()]
    nearest = [labels[place] for place in sorted(range(len(labels)), key=lambda place: -cosines[place])[:k]]
    votes = Counter(nearest)
    return min(votes, key=lambda label: (-votes[label], label))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_a_vote_equals_one_in_loops(dtype, k):
    train, test = torch.randn(40, 6).to(dtype), torch.randn(15, 6).to(dtype)
    labels = torch.randint(0, 4, (40,)).tolist()
    predicted = nearest_neighbours(train, labels, test, k)
    assert predicted.tolist() == [naive_vote(train, labels, image, k) for image in test.double()]


def test_the_length_of_a_feature_does_not_count():
    train = torch.tensor([[100.0, 0.0], [0.0, 0.1]])
    assert nearest_neighbours(train, [0, 1], torch.tensor([[0.3, 0.5]]), 1).tolist() == [1]


def test_labels_may_be_a_tensor():
    assert nearest_neighbours(torch.eye(3), torch.tensor([7, 8, 9]), 2 * torch.eye(3), 1).tolist() == [7, 8, 9]


@pytest.mark.parametrize("k", [5, 0])
def test_a_k_that_the_training_images_do_not_allow_is_refused(k):
    with pytest.raises(ValueError, match="`k` must be from 1 to the number of training images, 4"):
        nearest_neighbours(torch.rand(4, 2), [0, 1, 0, 1], torch.rand(1, 2), k)


@pytest.mark.parametrize("name", ["train", "test"])
def test_features_that_are_not_finite_are_refused(name):
    features = {"train": torch.rand(4, 2), "test": torch.rand(4, 2)}
    features[name][1, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        nearest_neighbours(features["train"], [0, 1, 0, 1], features["test"], 1)
