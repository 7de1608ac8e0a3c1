"""Opening of images: from a file, bytes, a PIL image or an array to upright 8-bit pixels.

Training, probes, embedding, the image processor, pipelines, endpoints and the demo all open images with these
functions, so that a model sees the same pixels in use as in training and evaluation.
"""

import base64
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import httpx
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64_000_000  # Below PIL's own limit, at which it only warns.
Image.init()
# All formats of PIL except those that are not pictures (BUFR, GRIB, HDF5, MPEG, WMF) or start Ghostscript (EPS).
FORMATS = tuple(kind for kind in Image.ID if kind not in ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))
URL_ALPHABET = str.maketrans("-_", "+/")  # From the URL-safe base64 alphabet to the standard one.
GREY_LEVELS_16_BIT = 65535 / 255  # 16-bit grey levels per 8-bit grey level.


class BrokenImageError(ValueError):
    """Raised for an image that cannot be used.

    Args:
        name: Path of the image, or its position in a corpus or batch.
        reason: What is wrong with the image.
    """

    def __init__(self, name: str, reason: str = ""):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"

    @classmethod
    def from_error(cls, name: str, error: Exception) -> "BrokenImageError":
        """Build the error from the exception that a decoder raised."""
        if isinstance(error, BrokenImageError):
            return error
        if isinstance(error, UnidentifiedImageError):
            return cls(name, "no image format that PIL knows")
        return cls(name, str(error) or type(error).__name__)


def open_image(source: Any, timeout: float | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image from any supported source.

    Args:
        source: A path (`str` or `Path`), a URL, base64 text (also as a data URI), the bytes of a file, or a PIL image.
        timeout: Seconds to wait for a URL; None waits without limit.
        max_pixels: Files with more pixels raise an error before they are decoded.

    Returns:
        Upright RGB image, see `to_rgb`.

    Raises:
        BrokenImageError: If the image is missing, empty, truncated, too large or not an image.
        TypeError: If `source` has another type.
    """
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or "image"
    elif isinstance(source, bytes | bytearray):
        name = "image in bytes"
    elif isinstance(source, str | Path):
        name = str(source) if len(str(source)) <= 200 else f"{str(source)[:60]}..."
    else:
        raise TypeError(
            f"An image must be a path, URL, base64 text, bytes or a PIL image, got {type(source).__name__}."
        )
    try:
        if isinstance(source, Image.Image):
            return to_rgb(source)
        content = bytes(source) if isinstance(source, bytes | bytearray) else _read_source(source, timeout)
        with open_bytes(content, max_pixels) as image:
            return to_rgb(image)
    except Exception as error:  # For broken bytes, decoders raise exceptions of any class, even SyntaxError.
        raise BrokenImageError.from_error(name, error) from error


def open_bytes(content: bytes, max_pixels: float = MAX_PIXELS) -> Image.Image:
    """Open the bytes of an image file without decoding its pixels.

    Raises:
        ValueError: If `content` is empty, or the image has more than `max_pixels` pixels.
        PIL.UnidentifiedImageError: If `content` is not an image.
    """
    if not content:
        raise ValueError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `max_pixels` is checked below.
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > max_pixels:
        raise ValueError(f"{image.width} x {image.height} px are more than `max_pixels` = {max_pixels}")
    return image


def decode_base64(text: str) -> bytes:
    """Decode base64 text in any common form: with line breaks, the URL-safe alphabet, no padding, or as a data URI.

    Raises:
        ValueError: If `text` is not base64.
    """
    text = text.strip()
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise ValueError("a data URI must be in base64")
    characters = "".join(text.split()).translate(URL_ALPHABET).rstrip("=")
    return base64.b64decode(characters + "=" * (-len(characters) % 4), validate=True)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to upright 8-bit RGB, which is what the models read. See `upright_8_bits`."""
    return upright_8_bits(image).convert("RGB")


def upright_8_bits(image: Image.Image) -> Image.Image:
    """Rotate an image according to its EXIF orientation, scale 16 bits to 8, and put transparent pixels on white.

    Returns:
        Image in mode RGB, or L if it is grey.

    Raises:
        ValueError: If the range of the pixel values is not known: floating-point pixels, or integers beyond 16 bits.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no stated range")
    if image.mode.startswith("I"):  # PIL's own conversion clips at 255.
        image = _scale_16_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def to_grey_levels(pixels: np.ndarray | torch.Tensor, keep_floats: bool = False) -> torch.Tensor:
    """Convert the values of an array to grey levels in [0, 255].

    Args:
        pixels: Array of any shape. Unsigned integers of 8 or 16 bits are scaled from their full range, booleans mean
            black and white, other integers are levels from 0 to 255. Floating-point values are levels from 0 to 255 if
            one of them is above 1, and otherwise intensities from 0 to 1.
        keep_floats: Whether to return floating-point values unchanged, whatever their range.

    Returns:
        uint8 tensor of the same shape; float32 for floating-point values with `keep_floats`.

    Raises:
        TypeError: If the values are not numbers.
        ValueError: If the array is empty, or a value is out of range or not finite.
    """
    if isinstance(pixels, np.ndarray):
        if pixels.dtype.kind not in "biuf":
            raise TypeError(f"an array of {pixels.dtype} holds no pixels")
        # torch only reads the native byte order, which the array of a TIFF file need not have.
        pixels = torch.from_numpy(pixels.astype(pixels.dtype.newbyteorder("="), order="C"))
    if not pixels.numel():
        raise ValueError("it has no pixels")
    if pixels.dtype == torch.uint8:
        return pixels
    if pixels.dtype == torch.bool:
        return pixels.to(torch.uint8) * 255
    if pixels.dtype == torch.uint16:
        return (pixels.float() / GREY_LEVELS_16_BIT).round().to(torch.uint8)
    values = pixels.float()
    if pixels.is_floating_point() and keep_floats:
        return values
    least, most = values.min().item(), values.max().item()
    if not 0 <= least <= most <= 255:  # Also true for NaN.
        kind = str(pixels.dtype).removeprefix("torch.")
        raise ValueError(
            f"values of {kind} must be levels from 0 to 255 or shares from 0 to 1, but are from {least:g} to {most:g}; "
            "those of 16 bits must be uint16"
        )
    if pixels.is_floating_point() and most <= 1:
        values = values * 255
    return values.round().to(torch.uint8)


def _scale_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise ValueError(f"integer pixels from {values.min()} to {values.max()} are beyond 16 bits")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        values[values == transparent] = 65535
    return Image.fromarray((values / GREY_LEVELS_16_BIT).round().astype(np.uint8))


def _read_source(source: str | Path, timeout: float | None) -> bytes:
    text = str(source)
    if isinstance(source, str) and text.startswith(("http://", "https://")):
        return httpx.get(text, timeout=timeout, follow_redirects=True).raise_for_status().content
    if isinstance(source, str) and text[:5].lower() == "data:":
        return decode_base64(text)
    # A text this long is not a path, and some systems raise an error when they look it up.
    if len(text) < 4096 and Path(text).is_file():
        return Path(text).read_bytes()
    try:
        if isinstance(source, Path):
            raise ValueError("a path is not base64 text")
        return decode_base64(text)
    except ValueError:
        kind = "a folder" if len(text) < 4096 and Path(text).is_dir() else "no file, and no URL or base64 text"
        raise ValueError(f"it is {kind}") from None


__all__ = ["BrokenImageError", "open_image"]
