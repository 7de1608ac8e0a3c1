import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

from modeling_pcl import PCLForPreTraining
from modeling_pcl.training.optimizers import Muon, make_optimizer, orthogonalise


def make_model() -> nn.Sequential:
    """Wide, square and tall weights, two of them of one shape."""
    torch.manual_seed(0)
    linear = [nn.Linear(20, 4), nn.Linear(4, 4), nn.Linear(4, 9), nn.Linear(9, 4), nn.Linear(4, 9)]
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), *linear).double()


def give_gradients(model: nn.Module, step: int):
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)


def naive_orthogonal(matrix: np.ndarray) -> np.ndarray:
    """Newton-Schulz on the singular values themselves, float64."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.sqrt((values**2).sum())
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ np.diag(values) @ right


def naive_steps(model: nn.Module, rate: float, decay: float, adam_rate: float, steps: int) -> dict[str, np.ndarray]:
    """Muon for weights and Adam for the rest, one parameter after the other."""
    results = {}
    for name, parameter in model.named_parameters():
        value = parameter.detach().numpy().copy()
        momentum, square = np.zeros_like(value), np.zeros_like(value)
        for step in range(1, steps + 1):
            give_gradients(model, step)
            gradient = parameter.grad.numpy()
            if value.ndim > 1:
                momentum = 0.95 * momentum + gradient
                ahead = (gradient + 0.95 * momentum).reshape(len(value), -1)
                scale = math.sqrt(max(1, ahead.shape[0] / ahead.shape[1]))
                value = (1 - rate * decay) * value - rate * scale * naive_orthogonal(ahead).reshape(value.shape)
            else:
                momentum = 0.9 * momentum + 0.1 * gradient
                square = 0.95 * square + 0.05 * gradient**2
                length = np.sqrt(square / (1 - 0.95**step)) + 1e-8
                value = value - adam_rate * momentum / (1 - 0.9**step) / length
        results[name] = value
    return results


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_steps_equal_those_of_a_naive_twin(dtype):
    expected = naive_steps(make_model(), rate=0.02, decay=0.1, adam_rate=3e-3, steps=4)
    model = make_model().to(dtype)
    optimizer = make_optimizer(model, "muon", 0.02, 0.1, 3e-3)
    for step in range(1, 5):
        give_gradients(model, step)
        optimizer.step()
    for name, parameter in model.named_parameters():
        # Fifteen products of rounded matrices a step, in float32 each to 1e-7.
        tolerance = 1e-9 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(parameter.double(), torch.from_numpy(expected[name]), atol=tolerance, rtol=0)


@pytest.mark.parametrize("shape", [(16, 16), (8, 72), (72, 8)])
def test_singular_values_of_an_update_are_close_to_one(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.max() < 1.3
    assert values.min() > (0.6 if shape[0] != shape[1] else 0.1)  # A square of noise has values near 0.


def test_no_gradient_and_gradients_of_zero_leave_weights_where_they_are():
    model = make_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, "muon", 0.02, 0.0)
    optimizer.step()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_every_trained_parameter_is_in_one_group_weights_by_muon_and_the_rest_by_adam(tiny_config):
    model = PCLForPreTraining(tiny_config)
    model.decoder.requires_grad_(False)
    optimizer = make_optimizer(model, "muon", 0.02, 0.0)
    methods = {id(p): group["method"] for group in optimizer.param_groups for p in group["params"]}
    assert len(methods) == sum(len(group["params"]) for group in optimizer.param_groups)
    for name, parameter in model.named_parameters():
        expected = None if not parameter.requires_grad else "muon" if name.endswith("weight") else "adam"
        expected = "adam" if parameter.requires_grad and ".norm" in name else expected
        assert methods.get(id(parameter)) == expected, name


def test_a_schedule_scales_the_rates_of_both_groups_alike():
    model = make_model()
    optimizer = make_optimizer(model, "muon", 0.02, 0.0, 3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for share in (1, 1 / 2, 1 / 3):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02 * share, 3e-3 * share])
        give_gradients(model, 1)
        optimizer.step()
        schedule.step()


def test_the_order_of_weights_in_memory_makes_no_difference():
    models = make_model(), make_model().to(memory_format=torch.channels_last)
    for model in models:
        optimizer = make_optimizer(model, "muon", 0.02, 0.0)
        give_gradients(model, 1)
        optimizer.step()
    assert models[1][0].weight.is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(*(model.parameters() for model in models)):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_adam_and_adamw_are_torchs_own(name, kind):
    model, twin = make_model().float(), make_model().float()
    optimizers = make_optimizer(model, name, 1e-3, 0.1), kind(twin.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    for step in range(3):
        for each, optimizer in zip((model, twin), optimizers):
            give_gradients(each, step)
            optimizer.step()
    for ours, theirs in zip(model.parameters(), twin.parameters()):
        assert torch.equal(ours, theirs)


def test_a_saved_state_goes_on_bit_for_bit():
    whole, options = StateDictOptions(full_state_dict=True, cpu_offload=True), ("muon", 0.02, 0.1)
    model = make_model()
    optimizer = make_optimizer(model, *options)
    for step in range(2):
        give_gradients(model, step)
        optimizer.step()
    resumed = make_model()
    resumed.load_state_dict(model.state_dict())
    again = make_optimizer(resumed, *options)
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    state = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=whole))  # It shares the memory.
    set_optimizer_state_dict(resumed, again, state, options=whole)
    for name, parameter in resumed.named_parameters():
        assert torch.equal(parameter, weights[name]), name
    for each, its_optimizer in ((model, optimizer), (resumed, again)):
        give_gradients(each, 2)
        its_optimizer.step()
    for ours, theirs in zip(model.parameters(), resumed.parameters()):
        assert torch.equal(ours, theirs)


def test_a_closure_is_called_with_gradient():
    model = make_model()
    optimizer = Muon(list(model.parameters()), 0.02)

    def closure():
        loss = model(torch.ones(2, 3, 4, 4, dtype=torch.float64)).square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad


def test_the_convolution_that_draws_takes_steps_of_adam(tiny_config):
    model = PCLForPreTraining(tiny_config)
    optimizer = make_optimizer(model, "muon", 0.02, 0.0, adam_learning_rate=1e-3)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    moved = {name: (parameter - before[name]).abs() for name, parameter in model.named_parameters()}
    torch.testing.assert_close(
        moved.pop(f"decoder.blocks.{len(model.decoder.blocks) - 1}.conv.weight").max().item(), 1e-3
    )
    assert min(change.max().item() for name, change in moved.items() if before[name].dim() > 1) > 2e-3


def test_an_unknown_optimizer_is_refused_by_name():
    with pytest.raises(ValueError, match='`optimizer` must be "adam", "adamw" or "muon", got \'sgd\''):
        make_optimizer(make_model(), "sgd", 0.1, 0.0)
