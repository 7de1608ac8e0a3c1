import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from modeling_pcl import PCLImageProcessor


def smooth_image(width: int, height: int, mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 4), dtype=np.uint8), "RGBA")
    return coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def reference(image: Image.Image, size: int) -> np.ndarray:
    """Shorter side to `size`, then the central square, by PIL."""
    scale = size / min(image.size)
    resized = image.convert("RGB").resize(
        (int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR
    )
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    cropped = resized.crop((left, top, left + size, top + size))
    return np.asarray(cropped, dtype=np.float32).transpose(2, 0, 1) / 255


@pytest.mark.parametrize("shape", [(64, 64), (89, 109), (200, 100), (40, 48), (33, 257)])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_the_shorter_side_is_resized_and_the_central_square_kept(shape, mode):
    image = smooth_image(*shape, mode=mode)
    pixel_values = PCLImageProcessor()(image, return_tensors="pt")["pixel_values"]
    assert pixel_values.shape == (1, 3, 64, 64)
    # torchvision rounds to whole grey levels once for each axis, PIL otherwise.
    assert np.abs(pixel_values[0].numpy() - reference(image, 64)).max() <= 2.5 / 255


def test_values_are_in_0_1_without_mean_or_standard_deviation():
    white = PCLImageProcessor()(Image.new("RGB", (64, 64), "white"), return_tensors="pt")["pixel_values"]
    black = PCLImageProcessor()(Image.new("RGB", (64, 64), "black"), return_tensors="pt")["pixel_values"]
    assert torch.equal(white, torch.ones(1, 3, 64, 64))
    assert torch.equal(black, torch.zeros(1, 3, 64, 64))


def test_arrays_and_tensors_give_what_the_image_gives():
    image = smooth_image(80, 80)
    expected = PCLImageProcessor()(image, return_tensors="pt")["pixel_values"]
    array = np.array(image)
    for same in (array, torch.from_numpy(array).permute(2, 0, 1)):
        assert torch.equal(PCLImageProcessor()(same, return_tensors="pt")["pixel_values"], expected)


def test_a_batch_may_hold_images_of_several_sizes_and_modes():
    images = [smooth_image(64, 80), smooth_image(100, 70, "L"), smooth_image(90, 90, "RGBA")]
    batch = PCLImageProcessor()(images, return_tensors="pt")["pixel_values"]
    assert batch.shape == (3, 3, 64, 64)
    for image, row in zip(images, batch):
        assert torch.equal(PCLImageProcessor()(image, return_tensors="pt")["pixel_values"][0], row)


def test_a_processor_for_another_size_is_saved_and_opened_again(tmp_path):
    PCLImageProcessor.for_image_size(100).save_pretrained(tmp_path)
    image = smooth_image(150, 120)
    processor = PCLImageProcessor.from_pretrained(tmp_path)
    assert processor(image, return_tensors="pt")["pixel_values"].shape == (1, 3, 100, 100)
    again = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(again) is PCLImageProcessor
