import itertools

import pytest
import tiny
import torch
from torch import nn

from modeling_pcl import PCLConfig
from modeling_pcl.decoder_pcl import PCLDecoder, PCLDecoderBlock


def test_published_decoder_has_the_published_widths_and_doubles_from_1_to_64_px():
    decoder = PCLDecoder(PCLConfig())
    assert decoder.fc.in_features == 2048
    widths = [decoder.fc.out_features, *(block.conv.out_channels for block in decoder.blocks)]
    assert widths == [512, 256, 256, 256, 256, 128, 3]
    assert [norm.num_features for norm in decoder.norms] == widths[1:-1]
    assert [block.size_px for block in decoder.blocks] == [2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("image_size", [32, 33, 47, 64, 65, 100])
@torch.no_grad()
def test_images_have_the_size_of_the_config(image_size):
    config = tiny.config(image_size=image_size)
    decoder = PCLDecoder(config)
    sides = [1, *(block.size_px for block in decoder.blocks)]
    assert all(before < after <= 2 * before for before, after in itertools.pairwise(sides))
    assert decoder(torch.randn(2, config.feature_size)).shape == (2, 3, image_size, image_size)


@pytest.mark.parametrize("drawn", [8, 32, 48])
@torch.no_grad()
def test_images_have_a_side_of_their_own_where_it_is_asked_for(drawn):
    config = tiny.config(image_size=32, decoder_image_size=drawn)
    decoder = PCLDecoder(config)
    assert decoder(torch.randn(2, config.feature_size)).shape == (2, 3, drawn, drawn)


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


@pytest.mark.parametrize(("height", "width", "size_px"), [(1, 1, 2), (4, 4, 8), (4, 4, 7), (7, 5, 13), (3, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_block_and_its_gradient_are_those_of_upsampling_and_then_convolving(height, width, size_px, dtype):
    block = PCLDecoderBlock(6, 5, size_px).double()
    hidden_state = torch.randn(2, 6, height, width, dtype=torch.float64, requires_grad=True)
    enlarged = nn.functional.interpolate(hidden_state, size=(size_px, size_px), mode="bilinear")
    expected = nn.functional.conv2d(enlarged, block.conv.weight, block.conv.bias, padding=1)
    leaves = [hidden_state, block.conv.weight, block.conv.bias]
    gradient = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, leaves, gradient)
    typed = hidden_state.detach().to(dtype).requires_grad_()
    found = block.to(dtype)(typed)
    assert found.dtype == dtype
    found_gradients = torch.autograd.grad(found, [typed, block.conv.weight, block.conv.bias], gradient.to(dtype))
    for ours, theirs in zip((found, *found_gradients), (expected, *expected_gradients)):
        # Sums of up to 500 products of size 1, each rounded a few times on the way.
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < 8 * torch.finfo(dtype).eps


def test_a_block_keeps_channels_last_in_memory(tiny_config):
    hidden_state = torch.randn(2, 6, 4, 4).contiguous(memory_format=torch.channels_last)
    assert PCLDecoderBlock(6, 5, 8)(hidden_state).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("method", ["forward", "_decode"])  # on a CPU, and on all else
def test_groups_decoded_in_one_pass_are_normalised_and_tracked_one_after_the_other(tiny_config, method):
    together, apart = (PCLDecoder(tiny_config).double() for _ in range(2))
    together.load_state_dict(apart.state_dict())
    features = torch.randn(12, tiny_config.feature_size, dtype=torch.float64)
    images = getattr(together, method)(features, groups=4)
    expected = torch.cat([apart(part) for part in features.chunk(4)])
    torch.testing.assert_close(images, expected)
    for ours, theirs in zip(together.buffers(), apart.buffers()):
        torch.testing.assert_close(ours, theirs)
    images.square().sum().backward()
    expected.square().sum().backward()
    for ours, theirs in zip(together.parameters(), apart.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert not torch.allclose(apart(features), expected)  # One batch is something else.


@torch.no_grad()
def test_values_stay_between_minus_1_and_1(tiny_config):
    decoder = PCLDecoder(tiny_config)
    decoder.blocks[-1].conv.weight *= 1000
    values = decoder(torch.randn(4, tiny_config.feature_size))
    assert values.abs().max() <= 1
    assert values.min() < -0.9
    assert values.max() > 0.9
