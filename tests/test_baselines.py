"""The plain ways that benchmarks compare with compute what the package computes."""

import pytest
import tiny
import torch
from benchmarks.baselines import plain_step
from benchmarks.baselines.materialised_loss import materialised_face_loss, materialised_pose_loss
from benchmarks.baselines.reextracted_probe import LabelledImages, train_probe
from datasets import Dataset, Image
from PIL import Image as PILImage

from modeling_pcl import PCLForPreTraining, PCLModel
from modeling_pcl.losses_pcl import info_nce_loss, mixed_negative_loss, pose_logits


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_written_out_face_negatives_give_the_same_loss_and_gradient():
    embeddings, mix, permutation = randn(12, 5), torch.rand(12, 10).double(), torch.randperm(10)
    found = []
    for loss in (materialised_face_loss, mixed_negative_loss):
        leaf = embeddings.clone().requires_grad_()
        value = loss(leaf, mix, permutation, 0.07)
        found.append((value.detach(), *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(*found)


def test_written_out_pose_negatives_give_the_same_loss_and_gradient():
    queries, negatives = randn(6, 5), randn(3, 4, 5)
    mixing = torch.rand(3, 4).double(), torch.randperm(4), 0.07
    found = []
    for loss in (materialised_pose_loss, lambda *inputs: info_nce_loss(pose_logits(*inputs))):
        leaves = [queries.clone().requires_grad_(), negatives.clone().requires_grad_()]
        value = loss(*leaves, *mixing)
        found.append((value.detach(), *torch.autograd.grad(value, leaves)))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("objective", tiny.INPUTS)
def test_a_plain_objective_has_the_models_loss_gradient_and_statistics(tiny_config, objective):
    inputs = tiny.INPUTS[objective](tiny_config, dtype=torch.float64)
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    model, plain = (PCLForPreTraining(tiny_config).double().train() for _ in range(2))
    plain.load_state_dict(model.state_dict())
    loss, expected = model(**inputs).loss, plain_step.OBJECTIVES[objective](plain, **inputs)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=lambda text, name=name: f"{name}: {text}")
    for (name, ours), theirs in zip(model.named_buffers(), plain.buffers()):
        # Without the batch norms' counters: views and negatives of the pose contrast are normalised apart in both.
        torch.testing.assert_close(ours, theirs, msg=lambda text, name=name: f"{name}: {text}")


def test_a_plain_step_makes_one_adam_step_for_each_objective(tiny_config):
    inputs = {name: make(tiny_config) for name, make in tiny.INPUTS.items()}
    model = PCLForPreTraining(tiny_config).train()
    optimizer = plain_step.make_optimizer(model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    losses = plain_step.train_step(model, optimizer, inputs)
    assert list(losses) == list(tiny.INPUTS)
    assert {int(state["step"]) for state in optimizer.state.values()} <= {1, 2, 3}
    assert optimizer.state[model.pcl.trunk.stages[0].conv1.weight]["step"] == 3
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters()))


def test_a_plain_probe_learns_what_colours_show(tiny_config):
    colours = [(200, 20, 20), (20, 20, 200)]
    images = [PILImage.new("RGB", (40, 36), colours[row % 2]) for row in range(20)]
    corpus = Dataset.from_dict({"image": images}).cast_column("image", Image(decode=False))
    labelled = LabelledImages(corpus, [row % 2 for row in range(20)], 32)
    model = PCLModel(tiny_config).eval()
    layer = train_probe(model, labelled, epochs=30, workers=0)
    pixel_values = torch.stack([labelled[row][0] for row in range(20)])
    predicted = layer(model(pixel_values).pooler_output).argmax(dim=1)
    assert predicted.tolist() == labelled.labels
