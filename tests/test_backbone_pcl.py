import math

import pytest
import tiny
import torch
from torch import nn
from transformers import AutoBackbone

from modeling_pcl import PCLBackbone, PCLConfig, PCLForPreTraining, PCLModel
from modeling_pcl.backbone_pcl import PCLAttention, PCLBranch, PCLResidualBlock, PCLTrunk

FULL = PCLConfig()
QUARTER = PCLConfig(hidden_sizes=[16, 32, 32, 64], feature_channels=32, projection_size=128, decoder_size=128)


def naive_attention(attention: PCLAttention, hidden_state: torch.Tensor) -> torch.Tensor:
    """Double attention for one sample, descriptor by descriptor and position by position."""
    channels, height, width = hidden_state.shape
    positions = hidden_state.reshape(channels, -1)

    def pointwise(convolution):
        rows = []
        for out in range(channels):
            row = convolution.bias[out] + torch.zeros(height * width, dtype=torch.float64)
            for channel in range(channels):
                row = row + convolution.weight[out, channel, 0, 0] * positions[channel]
            rows.append(row)
        return rows

    described, gathered, distributed = map(pointwise, (attention.describe, attention.gather, attention.distribute))
    result = torch.empty_like(positions)
    for position in range(height * width):
        shares = torch.tensor([row[position] for row in distributed], dtype=torch.float64).exp()
        shares = shares / shares.sum()
        for channel in range(channels):
            attended = 0.0
            for descriptor in range(channels):
                looks = gathered[descriptor].exp() / gathered[descriptor].exp().sum()
                attended += (described[channel] * looks).sum() * shares[descriptor]
            value = positions[channel, position] + attended
            result[channel, position] = value if value > 0 else 0.1 * value
    return result.reshape(channels, height, width)


@torch.no_grad()
def test_attention_equals_its_definition_in_loops():
    attention = PCLAttention(channels=4, negative_slope=0.1).double()
    hidden_states = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    expected = torch.stack([naive_attention(attention, sample) for sample in hidden_states])
    torch.testing.assert_close(attention(hidden_states), expected)


@torch.no_grad()
def test_attention_is_blind_to_the_bias_of_gather():
    # A softmax over positions does not see what is added to all positions, so this bias has no gradient.
    attention = PCLAttention(channels=4, negative_slope=0.1).double()
    hidden_state = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    before = attention(hidden_state)
    attention.gather.bias += torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(attention(hidden_state), before)


@torch.no_grad()
def test_residual_block_without_weights_is_its_activation():
    block = PCLResidualBlock(channels=4, negative_slope=0.1)
    for parameter in block.parameters():
        parameter.zero_()
    hidden_state = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(block(hidden_state), nn.functional.leaky_relu(hidden_state, 0.1))


def test_published_encoder_has_2469760_parameters():
    modules = PCLTrunk(FULL), PCLBranch(FULL), PCLBranch(FULL)
    assert sum(parameter.numel() for module in modules for parameter in module.parameters()) == 2_469_760


@torch.no_grad()
def test_published_stages_have_the_published_shapes():
    shapes = [tuple(hidden_state.shape) for hidden_state in PCLTrunk(FULL)(torch.rand(1, 3, 64, 64))]
    assert shapes == [(1, 64, 32, 32), (1, 64, 32, 32), (1, 128, 16, 16), (1, 128, 8, 8), (1, 128, 4, 4)]


@pytest.mark.parametrize("config", [FULL, QUARTER], ids=["full", "quarter"])
@torch.no_grad()
def test_any_size_from_32_px_gives_a_sixteenth_of_its_side_rounded_up(config):
    trunk, branch = PCLTrunk(config), PCLBranch(config)
    for height, width in ((32, 32), (47, 47), (64, 64), (100, 100), (33, 80)):
        expected = (1, config.feature_channels, math.ceil(height / 16), math.ceil(width / 16))
        trunk_map = trunk(torch.rand(1, 3, height, width))[-1]
        assert trunk_map.shape == expected
        assert branch(trunk_map).shape == expected


def test_encoder_has_no_batch_norm_and_the_slope_of_the_config(tiny_config):
    tiny_config.negative_slope = 0.25
    modules = [*PCLTrunk(tiny_config).modules(), *PCLBranch(tiny_config).modules()]
    slopes = {module.negative_slope for module in modules if isinstance(module, nn.LeakyReLU)}
    assert slopes == {0.25}
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)
    assert all(module.bias is not None for module in modules if isinstance(module, nn.Conv2d))


@torch.no_grad()
def test_every_channel_count_of_the_images_works(tiny_config):
    tiny_config.num_channels = 1
    assert PCLTrunk(tiny_config)(torch.rand(2, 1, 32, 32))[-1].shape == (2, 8, 2, 2)


@torch.no_grad()
def test_a_backbone_gives_the_feature_maps_that_are_asked_for(tmp_path):
    model = tiny.save(tmp_path, PCLForPreTraining)
    images = tiny.images(model.config, 2)
    maps = model.pcl(images, output_hidden_states=True).hidden_states
    backbone, report = PCLBackbone.from_pretrained(
        tmp_path, out_features=["stem", "stage2", "stage4"], output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    outputs = backbone(images)
    assert list(outputs) == ["feature_maps"]
    for found, expected in zip(outputs.feature_maps, (maps[0], maps[2], maps[4]), strict=True):
        assert torch.equal(found, expected)
    assert backbone.channels == [found.shape[1] for found in outputs.feature_maps]
    by_number = AutoBackbone.from_config(tiny.config(out_indices=[0, 2, 4]))
    assert type(by_number) is PCLBackbone
    assert by_number.out_features == ["stem", "stage2", "stage4"]


def test_auto_backbone_opens_a_repository(hub, tmp_path):
    PCLModel(tiny.config()).push_to_hub("user/encoder")
    backbone = AutoBackbone.from_pretrained("user/encoder", out_features=["stage3"], cache_dir=tmp_path)
    assert type(backbone) is PCLBackbone
    assert backbone(torch.rand(1, 3, 32, 48)).feature_maps[0].shape == (1, 10, 4, 6)
