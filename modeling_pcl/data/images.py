"""One image of a corpus: its bytes to a square of uint8 pixels."""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from ..images_pcl import MAX_PIXELS, BrokenImageError, open_bytes, to_rgb
from .confinement import OUTSIDE, read_image_file

# A large JPEG is decoded at no less than this many times the wanted size; the rest is resized, as for any other file.
DRAFT_GAP = 3
LONGEST = 16  # Of an image longer than so many times its width only the middle is resized.


def image_bytes(record: Mapping | None) -> bytes:
    """The encoded image of a row.

    Args:
        record: What `datasets.Image(decode=False)` gives: `{"bytes": ..., "path": ...}`, where the path counts if there
            are no bytes and may be an address on the Hub (`hf://...`).

    Raises:
        ValueError: If there are neither bytes nor a path, or the path is not opened (`read_image_file`).
        OSError: If the path cannot be read.
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
    """Decode one image with the crop of `PCLImageProcessor`.

    Of an animation the first frame is taken, and made what `to_rgb` makes of an image. The shorter side is resized to
    `size_px` (bilinear, antialiased) and the central square kept.

    Args:
        record: `{"bytes": ..., "path": ...}`, as `image_bytes` reads it.
        size_px: Side of the square, at least 1.
        max_pixels: Images of more pixels than this are refused before they are decoded.
        name: What to call the image in errors if it has no path.
        kept_share: Share of the shorter side that the square keeps around the centre, in (0, 1].

    Returns:
        `(3, size_px, size_px)`, uint8, RGB: the processor's pixels. Large JPEGs, decoded at a lower scale, may differ
        by two grey levels, and images more than 16 times as long as wide by a part of a pixel's width.

    Raises:
        BrokenImageError: If the file is missing, empty, cut short, too large or no image.
    """
    name = ((record or {}).get("path") or name).removeprefix(OUTSIDE)
    try:
        pixels = _decode(image_bytes(record), round(DRAFT_GAP * size_px / kept_share), max_pixels)
        if kept_share < 1:
            pixels = _middle(pixels, max(1, int(kept_share * min(pixels.shape[1:]))))
        return central_square(pixels, size_px)
    except Exception as error:  # Decoders raise whatever they stumble on in broken bytes, SyntaxError included.
        raise BrokenImageError.from_error(name, error) from error


def _decode(content: bytes, draft_px: int, max_pixels: int) -> torch.Tensor:
    """All pixels, `(3, height, width)` uint8, of a large JPEG at a lower scale, no less than `draft_px` a side."""
    # Not torchvision.io, which takes half the time for small files: it is deprecated, and has no lower scales.
    with open_bytes(content, max_pixels) as image:
        image.draft(None, (draft_px, draft_px))
        pixels = np.array(to_rgb(image))
    return torch.from_numpy(pixels).permute(2, 0, 1)  # (h, w, 3) -> (3, h, w)


def central_square(pixels: torch.Tensor, size_px: int) -> torch.Tensor:
    """The crop of `PCLImageProcessor`, `(3, size_px, size_px)` of `(3, height, width)` uint8.

    As torchvision's `resize` and a crop of the centre; twice as fast as PIL's resize.
    """
    pixels = _middle(pixels, LONGEST * min(pixels.shape[1:]))  # 1 x 60,000 px would become gigabytes.
    height, width = pixels.shape[1:]
    short = min(height, width)
    size = (size_px * height // short, size_px * width // short)
    resized = F.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)[0]
    # By numpy, since torch would wake its threads for so little.
    return torch.from_numpy(np.ascontiguousarray(_middle(resized, size_px).numpy()))


def _middle(pixels: torch.Tensor, longest_px: int) -> torch.Tensor:
    """What is in the middle of the last two axes, at most so long."""
    for axis, side in enumerate(pixels.shape[1:], 1):
        kept = min(side, longest_px)
        pixels = pixels.narrow(axis, (side - kept) // 2, kept)
    return pixels
