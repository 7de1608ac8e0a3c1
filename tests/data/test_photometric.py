import colorsys
import itertools
import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as torchvision_ops

from modeling_pcl.data.photometric import (
    ADJUSTMENTS,
    PhotometricParameters,
    PhotometricSettings,
    adjust_hue,
    apply_photometric,
    crop_and_resize,
    draw_photometric,
    gaussian_blur,
)

ORDER = tuple(ADJUSTMENTS)
# Both sides compute in float32, in another order of operations.
TOLERANCE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images(generator):
    images = torch.rand(6, 3, 14, 17, generator=generator)
    images[0] = images[0, :1]  # grey: no hue
    images[1, :, ::2] = 0.0
    images[1, :, 1::2] = 1.0
    images[2] = images[2].round()  # pure colours: two channels tie for the greatest
    return images


def naive_photometric(image: np.ndarray, parameters: PhotometricParameters, index: int) -> np.ndarray:
    """Process one image pixel by pixel, `(3, height, width)` float64."""
    image = image.copy()
    _, height, width = image.shape
    for name, strengths in parameters.adjustments.items():
        factor = strengths[index].item()
        mean = np.mean([compute_luma(image[:, y, x]) for y in range(height) for x in range(width)])
        for y in range(height):
            for x in range(width):
                image[:, y, x] = naive_adjustment(name, image[:, y, x], factor, mean)
    if parameters.grey:
        image[:] = 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    if parameters.blur_sigma_px is not None:
        image = naive_blur(image, parameters.blur_sigma_px[index].item())
    if parameters.gradient:
        image = naive_gradient(image)
    return image


def compute_luma(pixel):
    return 0.2989 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def naive_adjustment(name, pixel, factor, mean):
    if name == "hue":
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((hue + factor) % 1, saturation, value)
    anchor = {"brightness": 0.0, "contrast": mean, "saturation": compute_luma(pixel)}[name]
    return np.clip(factor * pixel + (1 - factor) * anchor, 0, 1)


def naive_blur(image, sigma):
    weights = np.array([math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-3, 4)])
    weights /= weights.sum()
    padded = np.pad(image, ((0, 0), (3, 3), (3, 3)), mode="reflect")
    blurred = np.zeros_like(image)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            blurred[:, y, x] = np.einsum("cyx,y,x->c", padded[:, y : y + 7, x : x + 7], weights, weights)
    return blurred


def naive_gradient(image):
    grey = np.pad((65.738 * image[0] + 129.057 * image[1] + 25.064 * image[2]) / 256, 1)
    result = np.zeros_like(image)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            across = grey[y + 1, x + 2] - grey[y + 1, x]
            down = grey[y + 2, x + 1] - grey[y, x + 1]
            result[:, y, x] = min(1.0, math.sqrt(across**2 + down**2 + 1e-6))
    return result


def draw_groups(count: int, chunk: int = 32, seed: int = 0):
    generators = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    return list(draw_photometric(PhotometricSettings(), count, chunk, *generators))


@pytest.mark.parametrize(("grey", "blurred", "gradient"), list(itertools.product([False, True], repeat=3)))
def test_the_list_equals_its_naive_twin(images, generator, grey, blurred, gradient):
    strengths = dict(zip(("hue", "contrast", "brightness", "saturation"), torch.rand(4, 6, generator=generator) + 0.5))
    strengths["hue"] = (strengths["hue"] - 1) * 0.4
    sigma = torch.rand(6, generator=generator) + 0.2 if blurred else None
    parameters = PhotometricParameters(strengths, grey, sigma, gradient)
    result = apply_photometric(images, parameters)
    for index, image in enumerate(images.double().numpy()):
        expected = torch.from_numpy(naive_photometric(image, parameters, index)).float()
        # The square root of the gradient's length has slope up to 500 near 0, on differences rounded to 1e-7.
        torch.testing.assert_close(result[index], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ORDER)
def test_each_adjustment_equals_torchvision_with_every_samples_own_factor(images, generator, name):
    factors = torch.rand(6, generator=generator) * 1.6 + 0.2
    if name == "hue":
        factors = (factors - 1) / 4  # in [-0.2, 0.2]
    reference = getattr(torchvision_ops, f"adjust_{name}")
    expected = torch.stack([reference(image, factor) for image, factor in zip(images, factors.tolist())])
    torch.testing.assert_close(ADJUSTMENTS[name](images, factors), expected, **TOLERANCE)


@pytest.mark.parametrize("shift", [-1 / 3, -0.2, 0.0, 0.1, 1 / 3])
def test_hue_holds_over_the_whole_stated_range(generator, shift):
    images = torch.rand(2, 3, 40, 40, generator=generator)
    expected = torchvision_ops.adjust_hue(images, shift)
    torch.testing.assert_close(adjust_hue(images, torch.full((2,), shift)), expected, **TOLERANCE)


def test_blur_has_a_sigma_for_each_sample(images):
    sigma = torch.tensor([0.5, 1.0, 1.5, 2.0, 0.3, 0.9])
    result = gaussian_blur(images, sigma)
    for index in range(6):
        expected = torchvision_ops.gaussian_blur(images[index], kernel_size=7, sigma=sigma[index].item())
        torch.testing.assert_close(result[index], expected, **TOLERANCE)


def test_the_gradient_of_a_flat_image_is_small_inside_and_sees_the_zeros_around_it():
    magnitude = apply_photometric(torch.ones(1, 3, 5, 5), PhotometricParameters({}, gradient=True))
    torch.testing.assert_close(magnitude[..., 1:-1, 1:-1], torch.full((1, 3, 3, 3), 1e-3))
    grey = 219.859 / 256
    torch.testing.assert_close(magnitude[..., 0, 2], torch.full((1, 3), math.hypot(grey, 1e-3)))
    assert (magnitude[..., 0, 0] == 1).all()  # the corner's length is 1.21, clamped


def test_parameters_that_do_nothing_change_nothing(images):
    ones = torch.ones(6)
    nothing = {"brightness": ones, "contrast": ones, "saturation": ones, "hue": torch.zeros(6)}
    torch.testing.assert_close(apply_photometric(images, PhotometricParameters(nothing)), images, **TOLERANCE)
    assert torch.equal(apply_photometric(images, PhotometricParameters({})), images)


def test_the_list_changes_neither_its_input_nor_leaves_the_unit_interval(images, generator):
    images = images.repeat(20, 1, 1, 1)
    before = images.clone()
    for rows, parameters in draw_groups(120):
        sources = images[rows]
        result = apply_photometric(sources, parameters)
        assert result.shape == sources.shape
        assert result.min() >= 0
        assert result.max() <= 1
        assert torch.equal(sources, before[rows])


def test_every_sample_is_in_one_group_of_at_most_the_chunk_and_groups_differ_in_their_orders():
    groups = draw_groups(500, chunk=16)
    assert torch.equal(torch.cat([rows for rows, _ in groups]).sort().values, torch.arange(500))
    assert max(len(rows) for rows, _ in groups) == 16
    orders = {tuple(parameters.adjustments) for _, parameters in groups} - {()}
    assert len(orders) > 5
    assert all(sorted(order) == sorted(ADJUSTMENTS) for order in orders)


def test_draws_are_a_function_of_the_generators():
    once, again, other = draw_groups(50), draw_groups(50), draw_groups(50, seed=1)
    assert [rows.tolist() for rows, _ in once] == [rows.tolist() for rows, _ in again]
    assert [rows.tolist() for rows, _ in once] != [rows.tolist() for rows, _ in other]
    for (_, left), (_, right) in zip(once, again):
        assert list(left.adjustments) == list(right.adjustments)
        assert all(torch.equal(left.adjustments[name], right.adjustments[name]) for name in left.adjustments)


def test_parameters_follow_the_published_distributions():
    count = 20_000
    groups = draw_groups(count, chunk=1000)

    def assert_share(is_drawn, probability):
        share = sum(len(rows) for rows, parameters in groups if is_drawn(parameters)) / count
        # Four standard deviations of a share; the seed is fixed.
        assert abs(share - probability) < 4 * math.sqrt(probability * (1 - probability) / count)

    assert_share(lambda drawn: drawn.adjustments, 0.8)
    assert_share(lambda drawn: drawn.grey, 0.2)
    assert_share(lambda drawn: drawn.blur_sigma_px is not None, 0.8)
    assert_share(lambda drawn: drawn.gradient, 0.6)
    assert_share(lambda drawn: drawn.gradient and drawn.grey and drawn.adjustments, 0.6 * 0.2 * 0.8)  # independent
    ranges = {"brightness": (0.2, 1.8), "contrast": (0.2, 1.8), "saturation": (0.2, 1.8), "hue": (-0.2, 0.2)}
    drawn = {
        name: torch.cat([parameters.adjustments[name] for _, parameters in groups if parameters.adjustments])
        for name in ranges
    }
    drawn["blur"] = torch.cat([part.blur_sigma_px for _, part in groups if part.blur_sigma_px is not None])
    for name, (low, high) in {**ranges, "blur": (0.1, 2.0)}.items():
        shares = (drawn[name] - low) / (high - low)
        assert shares.min() >= -1e-6, name
        assert shares.max() <= 1 + 1e-6, name
        for tenth in torch.arange(1, 10) / 10:
            # Four standard deviations of an empirical distribution function over 16,000 draws, at most 0.004 each.
            assert abs((shares < tenth).float().mean() - tenth) < 0.016, name


def test_strengths_and_probabilities_follow_the_settings():
    settings = PhotometricSettings(
        jitter_probability=1.0,
        jitter_strength=0.3,
        hue_strength=0.0,
        grey_probability=0.0,
        blur_probability=1.0,
        blur_sigma_max_px=0.8,
        gradient_probability=0.0,
    )
    groups = list(draw_photometric(settings, 2000, 100, torch.Generator().manual_seed(0), np.random.default_rng(0)))
    for _, parameters in groups:
        assert set(parameters.adjustments) == {"brightness", "contrast", "saturation"}
        assert not parameters.grey
        assert not parameters.gradient
    factors = torch.cat([torch.cat(list(parameters.adjustments.values())) for _, parameters in groups])
    sigmas = torch.cat([parameters.blur_sigma_px for _, parameters in groups])
    for values, low, high in ((factors, 0.7, 1.3), (sigmas, 0.1, 0.8)):
        assert values.min() >= low
        assert values.max() <= high
        assert values.max() - values.min() > 0.99 * (high - low)


@pytest.mark.parametrize(("side_px", "size_px"), [(50, 32), (128, 64), (200, 100), (20, 32)])
def test_crops_of_whole_pixels_equal_torchvision(generator, side_px, size_px):
    images = torch.randint(256, (4, 3, side_px, side_px), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[0, 0, 1, 1], [0.1, 0.3, 0.4, 0.4], [0.5, 0.2, 0.5, 0.8], [0.2, 0.6, 0.7, 0.3]])
    boxes = (boxes * side_px).round()
    mirrored = torch.tensor([False, True, False, True])
    result = crop_and_resize(images, boxes, size_px, mirrored)
    for index, (top, left, height, width) in enumerate(boxes.int().tolist()):
        expected = torchvision_ops.resized_crop(
            images[index] / 255, top, left, height, width, [size_px, size_px], antialias=True
        )
        expected = expected.flip(2) if mirrored[index] else expected
        torch.testing.assert_close(result[index], expected, **TOLERANCE)


def test_crops_between_pixels_keep_constants_and_move_continuously(generator):
    flat = torch.full((1, 3, 50, 50), 200, dtype=torch.uint8)
    noise = torch.randint(256, (1, 3, 50, 50), dtype=torch.uint8, generator=generator)
    no = torch.tensor([False])
    for start in torch.linspace(0, 20, 41):
        box = torch.stack([start, 20 - start, torch.tensor(29.3), torch.tensor(20.7)])[None]
        torch.testing.assert_close(crop_and_resize(flat, box, 32, no), torch.full((1, 3, 32, 32), 200 / 255))
        step = (crop_and_resize(noise, box + 1e-3, 32, no) - crop_and_resize(noise, box, 32, no)).abs().max()
        assert step < 0.01  # a thousandth of a pixel; a border that jumps by a pixel gives tenths


def test_every_sample_is_cropped_from_its_own_box(generator):
    images = torch.randint(256, (1, 3, 40, 40), dtype=torch.uint8, generator=generator).expand(3, -1, -1, -1)
    boxes = torch.tensor([[1.5, 2.5, 20.0, 18.0], [9.1, 0.0, 30.9, 40.0], [0.0, 20.2, 16.0, 16.0]])
    mirrored = torch.tensor([True, False, False])
    together = crop_and_resize(images, boxes, 16, mirrored)
    for index in range(3):
        one = slice(index, index + 1)
        torch.testing.assert_close(together[one], crop_and_resize(images[one], boxes[one], 16, mirrored[one]))
