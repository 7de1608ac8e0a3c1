import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from modeling_pcl import PCLConfig, PCLImageProcessor, PCLModel

GREY_LEVEL = 1 / 255


def photo(width: int = 109, height: int = 89, mode: str = "RGB") -> Image.Image:
    """Smooth colours with fine noise, so that a shifted crop and another resampling are both seen."""
    random = np.random.RandomState(0)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    colours = np.stack([rows, columns, (rows + columns) / 2], axis=2)
    noise = random.rand(height, width, 3)
    return Image.fromarray((255 * (0.7 * colours + 0.3 * noise)).astype(np.uint8)).convert(mode)


def expected_pixels(image: Image.Image, size_px: int = 64) -> torch.Tensor:
    """The docstring in PIL: shorter side to `size_px`, bilinear and antialiased, centre square, scaled to [0, 1]."""
    width, height = image.size
    sides = [int(size_px * side / min(width, height)) for side in (width, height)]
    resized = image.resize(sides, Image.Resampling.BILINEAR)
    left, top = (resized.width - size_px) // 2, (resized.height - size_px) // 2
    square = resized.crop((left, top, left + size_px, top + size_px))
    return torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1) / 255


def pixels(image, processor: PCLImageProcessor | None = None, **options) -> torch.Tensor:
    return (processor or PCLImageProcessor())(image, return_tensors="pt", **options)["pixel_values"]


def assert_within_a_grey_level(found: torch.Tensor, expected: torch.Tensor):
    # torchvision and PIL both round to 8 bits after each of the two passes of a resize, not always to the same side.
    torch.testing.assert_close(found, expected, rtol=0, atol=1.01 * GREY_LEVEL)


@pytest.mark.parametrize(("width", "height"), [(109, 89), (89, 109), (64, 64), (40, 50), (300, 70), (640, 480)])
def test_crop_is_the_centre_square_of_the_shorter_side(width, height):
    image = photo(width, height)
    found = pixels(image)
    assert found.shape == (1, 3, 64, 64)
    assert found.dtype == torch.float32
    assert_within_a_grey_level(found[0], expected_pixels(image))


@pytest.mark.parametrize("size_px", [32, 47, 100])
def test_every_image_size_has_its_processor(size_px):
    found = pixels(photo(), PCLImageProcessor.for_image_size(size_px))
    assert found.shape == (1, 3, size_px, size_px)
    assert_within_a_grey_level(found[0], expected_pixels(photo(), size_px))


def test_values_are_scaled_to_0_to_1_and_nothing_is_taken_off():
    for grey in (0, 51, 255):
        found = pixels(Image.new("RGB", (80, 80), (grey, grey, grey)))
        torch.testing.assert_close(found, torch.full((1, 3, 64, 64), grey / 255))


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "CMYK", "RGBA"])
def test_every_mode_becomes_rgb(mode):
    image = photo(mode=mode)
    assert_within_a_grey_level(pixels(image)[0], expected_pixels(image.convert("RGB")))


def test_a_grey_photo_has_three_equal_channels():
    red, green, blue = pixels(photo(mode="L"))[0]
    assert torch.equal(red, green)
    assert torch.equal(red, blue)


def test_what_is_transparent_becomes_white():
    image = photo(64, 64, mode="RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert torch.equal(pixels(image), torch.ones(1, 3, 64, 64))


def test_arrays_and_tensors_give_what_the_photo_gives():
    image = photo()
    array = np.asarray(image).copy()
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    expected = pixels(image)
    for given in (array, array.transpose(2, 0, 1), tensor, [array], tensor[None]):
        assert torch.equal(pixels(given), expected)


def test_an_array_in_0_to_1_is_left_there_without_rescaling():
    image = photo(64, 64)
    tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(pixels(tensor, do_rescale=False), pixels(image))


def test_a_batch_of_mixed_sizes_and_modes_gives_what_each_gives_alone():
    images = [photo(109, 89), photo(70, 300), photo(64, 64, mode="L"), photo(109, 89).rotate(90), photo(30, 40, "P")]
    expected = torch.cat([pixels(image) for image in images])
    assert torch.equal(pixels(images), expected)


def test_numpy_is_returned_on_request():
    found = PCLImageProcessor()(photo(), return_tensors="np")["pixel_values"]
    assert isinstance(found, np.ndarray)
    assert found.shape == (1, 3, 64, 64)


@pytest.mark.parametrize("loader", [PCLImageProcessor, AutoImageProcessor])
def test_a_saved_processor_comes_back_equal_and_without_a_warning(loader, tmp_path, transformers_log):
    processor = PCLImageProcessor.for_image_size(48)
    processor.save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert type(loaded) is PCLImageProcessor
    assert loaded.to_dict() == processor.to_dict() | {"auto_map": loaded.to_dict().get("auto_map")}
    assert torch.equal(pixels(photo(), loaded), pixels(photo(), processor))
    assert not transformers_log.records


def test_output_is_what_the_encoder_takes():
    config = PCLConfig(image_size=47, hidden_sizes=[4, 4, 4, 4], feature_channels=4)
    found = PCLImageProcessor.for_image_size(config.image_size)(photo(), return_tensors="pt")
    assert PCLModel(config)(**found).face_features.shape == (1, config.feature_size)
