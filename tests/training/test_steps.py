import math

import pytest
import torch
from accelerate import Accelerator

from modeling_pcl import PCLConfig, PCLForPreTraining
from modeling_pcl.configuration_pcl import OBJECTIVES
from modeling_pcl.training.state import RunState
from modeling_pcl.training.steps import Stepper, compute_dynamic_weights, give_zero_gradients, select_trained_parameters


def tiny_model(**config) -> PCLForPreTraining:
    torch.manual_seed(0)
    sizes = {"image_size": 32, "hidden_sizes": [4, 4, 4, 8], "feature_channels": 4, "projection_size": 8}
    return PCLForPreTraining(PCLConfig(**sizes, decoder_size=16, **config)).train()


def inputs_of(objective: str, index: int | None = None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(17 + (index or 0))
    images = torch.rand(8, 3, 32, 32, generator=generator)
    return {
        "disentangling": {"pixel_values": images},
        "face_contrast": {"face_views": images},
        "pose_contrast": {"pose_views": images[:4], "pose_negative_views": images.view(2, 4, 3, 32, 32)},
    }[objective]


def make_stepper(model, groups, **options) -> Stepper:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=1e-3)
    accelerator = Accelerator(cpu=True)
    return Stepper(accelerator, *accelerator.prepare(model, optimizer), groups, **options)


ONES = dict.fromkeys(OBJECTIVES, 1.0)
ALTERNATING = [(name,) for name in OBJECTIVES]


def test_alternating_steps_equal_adam_written_out():
    model, twin = tiny_model(), tiny_model()
    give_zero_gradients(model)
    make_stepper(model, ALTERNATING).step(inputs_of, ONES)

    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3, weight_decay=1e-3)
    for parameter in twin.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for objective in OBJECTIVES:
        for parameter in twin.parameters():
            parameter.grad.zero_()
        twin(**inputs_of(objective))[f"{objective}_loss"].backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), twin.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("keeps", [True, False])
def test_decay_acts_on_what_an_objective_does_not_reach_only_by_gradients_of_zero(keeps):
    model = tiny_model()
    before = model.decoder.fc.weight.detach().clone()
    if keeps:
        give_zero_gradients(model)
    make_stepper(model, [("face_contrast",)], keep_zero_gradients=keeps).step(inputs_of, ONES)
    assert torch.equal(model.decoder.fc.weight, before) == (not keeps)


def test_joint_step_follows_the_gradient_of_the_weighted_sum():
    model, twin = tiny_model(), tiny_model()
    weights = {"disentangling": 1.0, "face_contrast": 0.5, "pose_contrast": 2.0}
    make_stepper(model, [OBJECTIVES]).step(inputs_of, weights)
    inputs = {name: value for objective in OBJECTIVES for name, value in inputs_of(objective).items()}
    outputs = twin(**inputs)
    sum(weights[name] * outputs[f"{name}_loss"] for name in OBJECTIVES).backward()
    for ours, theirs in zip(model.parameters(), twin.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_accumulated_micro_batches_give_the_mean_gradient_and_the_mean_terms():
    model, twin = tiny_model(), tiny_model()
    terms = make_stepper(model, [("disentangling",)]).step(inputs_of, ONES, micro_batches=2)
    losses = []
    for index in range(2):
        loss = twin(**inputs_of("disentangling", index)).disentangling_loss
        (loss / 2).backward()
        losses.append(loss.item())
    assert terms["disentangling_loss"].item() == pytest.approx(sum(losses) / 2, rel=1e-6)
    torch.testing.assert_close(model.pcl.trunk.stages[0].conv1.weight.grad, twin.pcl.trunk.stages[0].conv1.weight.grad)


@pytest.mark.parametrize("groups", [ALTERNATING, [OBJECTIVES]], ids=["alternating", "joint"])
def test_the_face_contrast_of_micro_batches_is_that_of_one_large_batch(groups):
    model, twin = tiny_model().double(), tiny_model().double()
    model.images_at_once = 4
    asked = []

    def make_inputs(objective: str, index: int | None) -> dict[str, torch.Tensor]:
        asked.append((objective, index))
        if index is not None:
            return {name: images.double() for name, images in inputs_of(objective, index).items()}
        return {"face_views": torch.cat([make_inputs(objective, each)["face_views"] for each in range(3)])}

    optimizer = torch.optim.SGD(model.parameters(), lr=0)  # so that all gradients are at the same weights
    accelerator = Accelerator(cpu=True)
    stepper = Stepper(accelerator, *accelerator.prepare(model, optimizer), groups)
    gradients = dict.fromkeys(dict(model.named_parameters()), 0.0)

    def add_gradients(*_):
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                gradients[name] = gradients[name] + parameter.grad.clone()

    optimizer.register_step_pre_hook(add_gradients)
    terms = stepper.step(make_inputs, ONES, micro_batches=3)
    assert sorted(index for objective, index in asked if objective == "pose_contrast") == [0, 1, 2]
    assert ("face_contrast", None) in asked

    views = make_inputs("face_contrast", None)["face_views"]
    whole = twin(face_views=views).face_contrast_loss
    assert terms["face_contrast_loss"].item() == pytest.approx(whole.item(), rel=1e-5)
    losses = [
        twin(**inputs_of(name, i))[f"{name}_loss"] / 3 for name in (OBJECTIVES[0], OBJECTIVES[2]) for i in range(3)
    ]
    (whole + sum(losses)).backward()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-6, atol=1e-9)


def test_clipping_bounds_the_norm_of_each_step():
    model = tiny_model()
    make_stepper(model, [("face_contrast",)], keep_zero_gradients=False, max_grad_norm=1e-3).step(inputs_of, ONES)
    gradients = [parameter.grad.norm() for parameter in model.parameters() if parameter.grad is not None]
    assert torch.stack(gradients).norm().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("objectives", "frozen"),
    [
        (["face_contrast"], {"decoder", "pose_projection", "pose_branch"}),
        (["pose_contrast"], {"decoder", "face_projection", "face_branch"}),
        (["disentangling"], {"face_projection", "pose_projection"}),
        (list(OBJECTIVES), set()),
    ],
)
def test_parts_that_no_objective_reaches_are_not_trained(objectives, frozen):
    model = tiny_model()
    select_trained_parameters(model, objectives)
    names = {name.removeprefix("pcl.").split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert names == frozen


def test_turns_are_trained_with_the_face_contrast_by_the_pose_branch():
    model = tiny_model(turn_weight=1.0)
    select_trained_parameters(model, ["face_contrast"])
    trained = {name.removeprefix("pcl.").split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"trunk", "face_branch", "pose_branch", "face_projection", "turn_head"}
    select_trained_parameters(model, ["disentangling"])
    assert not model.turn_head.linear.weight.requires_grad


def test_an_encoder_that_is_frozen_is_not_trained():
    model = tiny_model()
    select_trained_parameters(model, ["disentangling"], is_encoder_frozen=True)
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"decoder"}


@pytest.mark.parametrize("history", [[], [[5.0, 4.0]], [[0.0, 1.0], [0.0, 1.0]]])
def test_weights_are_one_until_two_epochs_have_ended_and_where_a_loss_was_zero(history):
    assert compute_dynamic_weights(history) == {"face_contrast": 1.0, "pose_contrast": 1.0}


def test_weights_follow_the_closed_form_of_the_last_two_epochs_and_favour_the_slower_loss():
    state, accelerator = RunState(), Accelerator(cpu=True)
    for losses in ([9.0, 9.0], [9.0, 9.0], [3.0, 5.0], [5.0, 3.0], [4.0, 1.0], [4.0, 3.0]):  # Two to an epoch.
        terms = dict(zip(("face_contrast_loss", "pose_contrast_loss"), map(torch.tensor, losses)))
        state.add(terms, steps_per_epoch=2, accelerator=accelerator)
    assert state.loss_history == [[4.0, 4.0], [4.0, 2.0]]
    face, pose = math.exp(1.0 / 2), math.exp(0.5 / 2)
    weights = compute_dynamic_weights(state.loss_history)
    assert weights["face_contrast"] == pytest.approx(2 * face / (face + pose))
    assert weights["pose_contrast"] == pytest.approx(2 * pose / (face + pose))
    assert weights["face_contrast"] > weights["pose_contrast"]
