"""What an image is: from a file, bytes, a PIL image or an array to upright pixels of 8 bits.

Every door opens images here - training, probes, embedding, the processor, pipelines, endpoints, the demo - so that a
model sees in use what it saw when it was measured.
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

MAX_PIXELS = 64_000_000
Image.init()
# All that PIL knows, but for what is no picture, or starts another program (Ghostscript).
FORMATS = tuple(kind for kind in Image.ID if kind not in ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))
URL_ALPHABET = str.maketrans("-_", "+/")
GREY_LEVELS_16_BIT = 65535 / 255  # Of 16 bits in one of 8.


class BrokenImageError(ValueError):
    """An image that cannot be used.

    Args:
        name: Its path, or where it stands in a corpus or batch.
        reason: What is wrong with it.
    """

    def __init__(self, name: str, reason: str = ""):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"

    @classmethod
    def from_error(cls, name: str, error: Exception) -> "BrokenImageError":
        """What a decoder stumbled on, in words."""
        if isinstance(error, BrokenImageError):
            return error
        if isinstance(error, UnidentifiedImageError):
            return cls(name, "no image format that PIL knows")
        return cls(name, str(error) or type(error).__name__)


def open_image(source: Any, timeout: float | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open whatever stands for one image.

    Args:
        source: A path (`str` or `Path`), a URL, base64 text (a data URI too), the bytes of a file, or a PIL image.
        timeout: Seconds to wait for a URL.
        max_pixels: Files of more pixels than this are refused before they are decoded.

    Returns:
        The image as `to_rgb` makes it.

    Raises:
        BrokenImageError: If it is missing, empty, cut short, too large or no image.
        TypeError: If it is nothing of these.
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
        content = bytes(source) if isinstance(source, bytes | bytearray) else _read(source, timeout)
        with open_bytes(content, max_pixels) as image:
            return to_rgb(image)
    except Exception as error:  # Decoders raise whatever they stumble on in broken bytes, SyntaxError included.
        raise BrokenImageError.from_error(name, error) from error


def open_bytes(content: bytes, max_pixels: float = MAX_PIXELS) -> Image.Image:
    """Open the bytes of an image file, whose pixels are not decoded yet.

    Raises:
        ValueError: If they are empty, or the image has more than `max_pixels`.
        PIL.UnidentifiedImageError: If they are no image.
    """
    if not content:
        raise ValueError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # The limit here is lower, and refuses.
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > max_pixels:
        raise ValueError(f"{image.width} x {image.height} px are more than `max_pixels` = {max_pixels}")
    return image


def decode_base64(text: str) -> bytes:
    """The bytes of base64 text, as encoders write it: in lines, with the URL's alphabet, padded or not, or a data URI.

    Raises:
        ValueError: If it is none.
    """
    text = text.strip()
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise ValueError("a data URI must be in base64")
    characters = "".join(text.split()).translate(URL_ALPHABET).rstrip("=")
    return base64.b64decode(characters + "=" * (-len(characters) % 4), validate=True)


def to_rgb(image: Image.Image) -> Image.Image:
    """An image as the models read it: `upright_8_bits` in RGB."""
    return upright_8_bits(image).convert("RGB")


def upright_8_bits(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says, scale 16 bits to 8, and lay what is transparent on white.

    Returns:
        In mode RGB, or L where it is grey.

    Raises:
        ValueError: If it has pixels without a stated range: floating-point, or integers beyond 16 bits.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no stated range")
    if image.mode.startswith("I"):  # PIL itself would clip them.
        image = _from_16_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def levels(pixels: np.ndarray | torch.Tensor, are_kept: bool = False) -> torch.Tensor:
    """Make grey levels in [0, 255] of an array's values.

    Args:
        pixels: Of any shape. Unsigned integers of 8 or 16 bits stand for their whole range, booleans for black and
            white, other integers for levels from 0 to 255, and floating-point values for levels from 0 to 255, or where
            none is above 1 for shares from 0 to 1.
        are_kept: Whether floating-point values stay what they are, whatever that is.

    Returns:
        Of the same shape: uint8, but float32 of values that are kept.

    Raises:
        TypeError: If the values are no numbers.
        ValueError: If there are none, or they are outside these ranges or not finite.
    """
    if isinstance(pixels, np.ndarray):
        if pixels.dtype.kind not in "biuf":
            raise TypeError(f"an array of {pixels.dtype} holds no pixels")
        # In the machine's own order of bytes, which a TIFF's need not be.
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
    if pixels.is_floating_point() and are_kept:
        return values
    least, most = values.min().item(), values.max().item()
    if not 0 <= least <= most <= 255:  # NaN is not either.
        kind = str(pixels.dtype).removeprefix("torch.")
        raise ValueError(
            f"values of {kind} must be levels from 0 to 255 or shares from 0 to 1, but are from {least:g} to {most:g}; "
            "those of 16 bits must be uint16"
        )
    if pixels.is_floating_point() and most <= 1:
        values = values * 255
    return values.round().to(torch.uint8)


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise ValueError(f"integer pixels from {values.min()} to {values.max()} are beyond 16 bits")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        values[values == transparent] = 65535
    return Image.fromarray((values / GREY_LEVELS_16_BIT).round().astype(np.uint8))


def _read(source: str | Path, timeout: float | None) -> bytes:
    text = str(source)
    if isinstance(source, str) and text.startswith(("http://", "https://")):
        return httpx.get(text, timeout=timeout, follow_redirects=True).raise_for_status().content
    if isinstance(source, str) and text[:5].lower() == "data:":
        return decode_base64(text)
    # A long text is no path, and some systems refuse even to look.
    if len(text) < 4096 and Path(text).is_file():
        return Path(text).read_bytes()
    try:
        if isinstance(source, Path):
            raise ValueError("a path is no base64 text")
        return decode_base64(text)
    except ValueError:
        what = "a folder" if len(text) < 4096 and Path(text).is_dir() else "no file, and no URL or base64 text"
        raise ValueError(f"it is {what}") from None


__all__ = ["BrokenImageError", "open_image"]
