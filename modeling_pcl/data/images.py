"""Decode an image of a corpus to a square of uint8 pixels."""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from ..images_pcl import MAX_PIXELS, BrokenImageError, open_bytes, to_rgb
from .confinement import OUTSIDE, read_image_file

# A large JPEG is decoded at a scale at which it is at least this many times the requested size, and then resized.
DRAFT_GAP = 3
MAX_ASPECT = 16  # Longer images are cropped to their middle before resizing.


def image_bytes(record: Mapping | None) -> bytes:
    """Return the encoded image of a row, from the row itself or from its file.

    Args:
        record: Image as `datasets.Image(decode=False)` returns it: `{"bytes": ..., "path": ...}`. The path is read if
            there are no bytes, and may be an address on the Hub (`hf://...`).

    Raises:
        ValueError: If there are neither bytes nor a path, or `read_image_file` refuses the path.
        OSError: If the file cannot be read.
    """
    if record is None or (record["bytes"] is None and record["path"] is None):
        raise ValueError("the row holds no image")
    if record["bytes"] is not None:
        return record["bytes"]
    return read_image_file(record["path"])


def decode_image(
    record: Mapping | None,
    size_px: int,
    max_pixels: int = MAX_PIXELS,
    name: str = "image without a name",
    kept_share: float = 1.0,
) -> torch.Tensor:
    """Decode one image, and resize and crop it as `PCLImageProcessor` does.

    The image is converted by `to_rgb`; of an animation only the first frame is decoded. Its shorter side is resized to
    `size_px` (bilinear, antialiased), and the central square is kept.

    Args:
        record: Encoded image, `{"bytes": ..., "path": ...}`, as for `image_bytes`.
        size_px: Side of the square, at least 1.
        max_pixels: Images with more pixels are refused before they are decoded.
        name: Name of the image for errors if it has no path.
        kept_share: Side of the central square as a share of the shorter side, in (0, 1].

    Returns:
        `(3, size_px, size_px)`, uint8, RGB. The pixels are those of the processor, except that large JPEGs, which are
        decoded at a lower scale, may differ by two grey levels, and images more than 16 times as long as wide may be
        shifted by less than a pixel.

    Raises:
        BrokenImageError: If the file is missing, empty, truncated, too large or not an image.
    """
    name = ((record or {}).get("path") or name).removeprefix(OUTSIDE)
    try:
        pixels = _decode(image_bytes(record), round(DRAFT_GAP * size_px / kept_share), max_pixels)
        if kept_share < 1:
            pixels = _crop_middle(pixels, max(1, int(kept_share * min(pixels.shape[1:]))))
        return resize_to_central_square(pixels, size_px)
    except Exception as error:  # Decoders raise errors of any class for broken files, even SyntaxError.
        raise BrokenImageError.from_error(name, error) from error


def _decode(content: bytes, draft_px: int, max_pixels: int) -> torch.Tensor:
    """Decode to `(3, height, width)` uint8; large JPEGs at a lower scale, with sides of at least `draft_px`."""
    # torchvision.io takes half the time for small files, but it is deprecated and cannot decode at a lower scale.
    with open_bytes(content, max_pixels) as image:
        image.draft(None, (draft_px, draft_px))
        pixels = np.array(to_rgb(image))
    return torch.from_numpy(pixels).permute(2, 0, 1)  # (h, w, 3) -> (3, h, w)


def resize_to_central_square(pixels: torch.Tensor, size_px: int) -> torch.Tensor:
    """Resize the shorter side to `size_px` and keep the central square, as `PCLImageProcessor` does.

    The result equals torchvision's `resize` and `center_crop`. This is twice as fast as PIL's resize.

    Args:
        pixels: `(3, height, width)`, uint8.
        size_px: Side of the square.

    Returns:
        `(3, size_px, size_px)`, uint8.
    """
    pixels = _crop_middle(pixels, MAX_ASPECT * min(pixels.shape[1:]))  # 1 x 60,000 px would become gigabytes.
    height, width = pixels.shape[1:]
    short = min(height, width)
    size = (size_px * height // short, size_px * width // short)
    resized = F.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)[0]
    # By numpy: torch would wake its threads for this small copy.
    return torch.from_numpy(np.ascontiguousarray(_crop_middle(resized, size_px).numpy()))


def _crop_middle(pixels: torch.Tensor, longest_px: int) -> torch.Tensor:
    """Crop the last two axes to at most `longest_px` around the middle."""
    for axis, side in enumerate(pixels.shape[1:], 1):
        kept = min(side, longest_px)
        pixels = pixels.narrow(axis, (side - kept) // 2, kept)
    return pixels
