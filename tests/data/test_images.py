import io
import pickle

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from modeling_pcl import PCLImageProcessor
from modeling_pcl.data import images
from modeling_pcl.data.images import decode_image
from modeling_pcl.images_pcl import BrokenImageError


def encode(image: Image.Image, kind: str = "PNG", **options) -> dict:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return {"bytes": file.getvalue(), "path": None}


def draw_photo(width: int, height: int) -> Image.Image:
    """Draw an image with smooth shapes, edges and noise, from a fixed seed."""
    generator = np.random.default_rng(0)
    shapes = Image.fromarray(generator.integers(0, 256, (9, 7, 3), dtype=np.uint8)).resize((width, height))
    shapes.paste((255, 250, 240), (width // 4, height // 4, width // 2, height // 2))
    grain = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return Image.blend(shapes, grain, 0.1)


def process(image: Image.Image, size_px: int) -> torch.Tensor:
    return 255 * PCLImageProcessor.for_image_size(size_px)(image, return_tensors="pt")["pixel_values"][0]


@pytest.mark.parametrize(
    ("width", "height"), [(100, 100), (89, 109), (217, 333), (333, 217), (20, 37), (48, 500), (1, 9)]
)
@pytest.mark.parametrize("size_px", [48, 65])
def test_the_crop_is_that_of_the_image_processor(width, height, size_px):
    image = draw_photo(width, height)
    # Both round to whole grey levels after resizing, and may round to different sides.
    assert (decode_image(encode(image), size_px) - process(image, size_px)).abs().max() <= 1.01


@pytest.mark.parametrize(("width", "height"), [(100, 100), (89, 109), (217, 333), (20, 37)])
def test_pixels_are_those_of_the_image_processor_exactly(width, height):
    image = draw_photo(width, height)
    assert torch.equal(decode_image(encode(image), 48), process(image, 48).round().byte())


@pytest.mark.parametrize(("width", "height", "kept"), [(100, 100, 90), (217, 333, 195), (333, 217, 195)])
def test_a_share_is_cut_from_the_centre_before_resizing(width, height, kept):
    image = draw_photo(width, height)
    left, top = (width - kept) // 2, (height - kept) // 2
    expected = process(image.crop((left, top, left + kept, top + kept)), 48).round().byte()
    assert torch.equal(decode_image(encode(image), 48, kept_share=0.9), expected)


@pytest.mark.parametrize("turned", [False, True])
def test_of_a_very_long_image_only_the_middle_is_resized(turned, monkeypatch):
    pixels = np.zeros((2, 30_000, 3), np.uint8)
    pixels[:, 14_990:15_010] = 200
    record = encode(Image.fromarray(pixels.swapaxes(0, 1) if turned else pixels))
    sizes = []

    interpolate = images.F.interpolate

    def noted(pixels, size, **options):
        sizes.append(size)
        return interpolate(pixels, size=size, **options)

    monkeypatch.setattr(images.F, "interpolate", noted)
    assert (decode_image(record, 48) == 200).all()
    assert max(sizes[0]) == 16 * 48


@pytest.mark.parametrize(("width", "height"), [(640, 800), (1100, 700)])
def test_a_large_jpeg_decoded_at_a_lower_scale_looks_as_if_decoded_in_full(width, height):
    record = encode(draw_photo(width, height), "JPEG", quality=95)
    in_full = Image.open(io.BytesIO(record["bytes"]))
    in_full.load()
    assert (decode_image(record, 64) - process(in_full, 64)).abs().max() <= 2.01


def test_the_result_is_contiguous_uint8_with_three_channels_first():
    pixels = decode_image(encode(Image.new("RGB", (20, 10), (1, 2, 3))), 8)
    assert pixels.shape == (3, 8, 8)
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    assert pixels[:, 4, 4].tolist() == [1, 2, 3]


def test_a_cmyk_jpeg_keeps_its_colours():
    red = Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK")
    pixel = decode_image(encode(red, "JPEG", quality=100), 16)[:, 8, 8].int()
    assert (pixel - torch.tensor([255, 0, 0])).abs().max() <= 3


def broken_records() -> dict[str, dict]:
    whole = encode(draw_photo(60, 60), "JPEG")["bytes"]
    png = encode(draw_photo(60, 60))["bytes"]
    return {
        "the file is empty": {"bytes": b"", "path": "face.jpg"},
        "no image format": {"bytes": b"not an image at all", "path": "face.jpg"},
        "truncated": {"bytes": whole[: len(whole) // 2], "path": "face.jpg"},
        "file is truncated": {"bytes": png[: len(png) // 2], "path": "face.jpg"},
        "No such file": {"bytes": None, "path": "nowhere/face.jpg"},
        "more than `max_pixels`": encode(Image.new("L", (400, 300))) | {"path": "face.jpg"},
        "floating-point": encode(Image.new("F", (9, 9)), "TIFF") | {"path": "face.jpg"},
    }


@pytest.mark.parametrize(("reason", "record"), broken_records().items())
def test_a_broken_image_is_named_with_its_reason(reason, record):
    with pytest.raises(BrokenImageError, match=reason) as first:
        decode_image(record, 8, max_pixels=100_000)
    assert first.value.name == record["path"]
    with pytest.raises(BrokenImageError) as second:
        decode_image(record, 8, max_pixels=100_000)
    assert first.value.reason == second.value.reason


@pytest.mark.parametrize("record", [None, {"bytes": None, "path": None}])
def test_a_row_without_an_image_is_named_by_its_place(record):
    with pytest.raises(BrokenImageError, match="row 17: the row holds no image"):
        decode_image(record, 8, name="row 17")


def test_a_broken_image_error_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(BrokenImageError("face.jpg", "the file is empty")))
    assert (error.name, error.reason) == ("face.jpg", "the file is empty")


def test_a_path_may_be_a_file_or_an_address(tmp_path):
    image = draw_photo(20, 20)
    image.save(tmp_path / "face.png")
    with fsspec.open("memory://faces/face.png", "wb") as file:
        file.write(encode(image)["bytes"])
    expected = decode_image(encode(image), 16)
    for path in (str(tmp_path / "face.png"), "memory://faces/face.png"):
        assert torch.equal(decode_image({"bytes": None, "path": path}, 16), expected)
