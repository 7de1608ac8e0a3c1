"""This package against numbers of the published computation, at full width."""

import golden
import pytest
import torch

from modeling_pcl import PCLConfig, PCLForPreTraining
from modeling_pcl.hub.conversion import REFERENCE_MODULES

EXPECTED = golden.golden_values()
INPUTS = {f"contrastive/{name}" for name in ("z", "lam", "perm")} | {
    f"pose/{name}" for name in ("query", "negatives", "lam", "perm")
}
GRADIENTS = {name for name in EXPECTED if "grad" in name}
VALUES = EXPECTED.keys() - INPUTS - GRADIENTS
BLIND = golden.BLIND


@pytest.fixture(scope="module")
def computed() -> dict[str, torch.Tensor]:
    return golden.computed_values()


def test_every_golden_value_is_compared(computed):
    assert computed.keys() == EXPECTED.keys() - INPUTS


def test_every_parameter_that_disentangling_reaches_is_compared():
    names = {name for name, _ in PCLForPreTraining(PCLConfig()).named_parameters() if "projection" not in name}
    ours = {reference: module for reference, module in REFERENCE_MODULES.items() if "_fc" not in reference}
    compared = [name.removeprefix("grad_norm/").rpartition(".") for name in GRADIENTS if name.startswith("grad_norm")]
    assert {f"{ours[module]}.{tensor}" for module, _, tensor in compared} == names


@pytest.mark.parametrize("name", sorted(VALUES))
def test_features_reconstructions_logits_and_losses_are_the_published_ones(name, computed):
    assert computed[name].shape == EXPECTED[name].shape
    # float32 and another order of summation through twenty layers: 1e-6 was seen.
    assert golden.relative_error(computed[name], EXPECTED[name]) < 1e-5


@pytest.mark.parametrize("name", sorted(GRADIENTS - BLIND))
def test_gradients_are_the_published_ones(name, computed):
    assert computed[name].shape == EXPECTED[name].shape
    # An L1 loss and rectifiers pass on signs, and a rounding near 0 turns one over: 2e-4 was seen.
    assert golden.relative_error(computed[name], EXPECTED[name]) < 1e-3


@pytest.mark.parametrize("name", sorted(BLIND))
def test_gradients_that_are_rounding_there_are_rounding_here(name, computed):
    # Sums of float32 that cancel out leave 1e-7 of their parts, whose size the weight's gradient gives.
    rounding = 1e-6 * EXPECTED[name.replace("bias", "weight")]
    assert EXPECTED[name] < rounding
    assert computed[name] < rounding


def test_no_other_gradient_is_as_small_as_rounding():
    assert {name for name in GRADIENTS if EXPECTED[name].abs().max() < 1e-6} == BLIND
