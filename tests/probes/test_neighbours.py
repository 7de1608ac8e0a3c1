from collections import Counter

import numpy as np
import pytest
import torch

from modeling_pcl.probes.neighbours import nearest_neighbours


def naive_vote(train: torch.Tensor, labels: list, image: torch.Tensor, k: int):
    cosines = [float(torch.dot(image, row) / image.norm() / row.norm()) for row in train.double()]
    nearest = [labels[place] for place in sorted(range(len(labels)), key=lambda place: -cosines[place])[:k]]
    votes = Counter(nearest)
    return max(nearest, key=lambda label: (votes[label], -nearest.index(label)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_k_equals_a_vote_in_loops(dtype):
    train, test = torch.randn(40, 6).to(dtype), torch.randn(15, 6).to(dtype)
    labels = torch.randint(0, 4, (40,)).tolist()
    predicted = nearest_neighbours(train, labels, test, ks=(1, 4, 9))
    for k in (1, 4, 9):
        assert predicted[k].tolist() == [naive_vote(train, labels, image, k) for image in test.double()]


def test_the_length_of_a_feature_does_not_count():
    train = torch.tensor([[100.0, 0.0], [0.0, 0.1]])
    assert nearest_neighbours(train, [0, 1], torch.tensor([[0.3, 0.5]]), ks=(1,))[1].tolist() == [1]


def test_a_tie_goes_to_the_class_of_the_nearest_image():
    train = torch.tensor([[1.0, 0.1], [1.0, 0.2], [1.0, 0.3], [1.0, 0.4], [1.0, 0.5]])
    predicted = nearest_neighbours(train, ["z", "b", "c", "c", "b"], torch.tensor([[1.0, 0.0]]), ks=(4, 5))
    assert predicted[4].tolist() == ["c"]
    assert predicted[5].tolist() == ["b"]


def test_labels_may_be_a_tensor():
    predicted = nearest_neighbours(torch.eye(3), torch.tensor([7, 8, 9]), 2 * torch.eye(3), ks=(1,))
    assert predicted[1].tolist() == [7, 8, 9]


@pytest.mark.parametrize("ks", [(1, 5), (0,), ()])
def test_a_k_that_the_training_images_do_not_allow_is_refused(ks):
    with pytest.raises(ValueError, match="`ks` must be from 1 to the number of training images, 4"):
        nearest_neighbours(torch.rand(4, 2), [0, 1, 0, 1], torch.rand(1, 2), ks)


@pytest.mark.parametrize("name", ["train", "test"])
def test_features_that_are_not_finite_are_refused(name):
    features = {"train": torch.rand(4, 2), "test": torch.rand(4, 2)}
    features[name][1, 1] = np.nan
    with pytest.raises(ValueError, match=f"`{name}` must be finite"):
        nearest_neighbours(features["train"], [0, 1, 0, 1], features["test"], ks=(1,))


def test_a_label_for_each_training_image_is_required():
    with pytest.raises(ValueError, match="must be 4 classes, got the shape"):
        nearest_neighbours(torch.rand(4, 2), [0, 1], torch.rand(1, 2), ks=(1,))
