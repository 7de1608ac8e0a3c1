import itertools

import pytest
import tiny
import torch
from torch import nn

from modeling_pcl import PCLConfig
from modeling_pcl.decoder_pcl import PCLDecoder


def test_published_decoder_has_the_published_widths_and_doubles_from_1_to_64_px():
    decoder = PCLDecoder(PCLConfig())
    assert decoder.fc.in_features == 2048
    widths = [decoder.fc.out_features, *(block.conv.out_channels for block in decoder.blocks)]
    assert widths == [512, 256, 256, 256, 256, 128, 3]
    assert [norm.num_features for norm in decoder.norms] == widths[1:-1]
    assert [block.upsample.size for block in decoder.blocks] == [(side, side) for side in (2, 4, 8, 16, 32, 64)]


@pytest.mark.parametrize("image_size", [32, 33, 47, 64, 65, 100])
@torch.no_grad()
def test_images_have_the_size_of_the_config(image_size):
    config = tiny.config(image_size=image_size)
    decoder = PCLDecoder(config)
    sides = [1, *(block.upsample.size[0] for block in decoder.blocks)]
    assert all(before < after <= 2 * before for before, after in itertools.pairwise(sides))
    assert decoder(torch.randn(2, config.feature_size)).shape == (2, 3, image_size, image_size)


@torch.no_grad()
def test_decoder_equals_its_description_layer_by_layer(tiny_config):
    decoder = PCLDecoder(tiny_config).double().eval()
    for norm in decoder.norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    features = torch.randn(3, tiny_config.feature_size, dtype=torch.float64)
    hidden_state = (features @ decoder.fc.weight.T + decoder.fc.bias).clamp_min(0).reshape(3, -1, 1, 1)
    for index, block in enumerate(decoder.blocks):
        enlarged = nn.functional.interpolate(hidden_state, scale_factor=2, mode="bilinear")
        hidden_state = nn.functional.conv2d(enlarged, block.conv.weight, block.conv.bias, padding=1)
        if index < len(decoder.norms):
            norm = decoder.norms[index]
            scale = (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None, None]
            hidden_state = ((hidden_state - norm.running_mean[:, None, None]) * scale).clamp_min(0)
    torch.testing.assert_close(decoder(features), hidden_state.tanh())


@torch.no_grad()
def test_values_stay_between_minus_1_and_1(tiny_config):
    decoder = PCLDecoder(tiny_config)
    decoder.blocks[-1].conv.weight *= 1000
    values = decoder(torch.randn(4, tiny_config.feature_size))
    assert values.abs().max() <= 1
    assert values.min() < -0.9
    assert values.max() > 0.9
