"""Open and check an image of a raw collection, and crop and resize it if requested."""

import hashlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ...images_pcl import MAX_PIXELS, BrokenImageError, open_bytes, upright_8_bits
from ..confinement import read_image_file
from ..images import DRAFT_GAP
from .layouts.base import Photo, check_inside

JPEG_QUALITY = 95  # Cropped or resized images are compressed a second time, which should not be visible.
CROP = re.compile(r"none|box|centre(:\d*\.?\d+)?")


@dataclass(frozen=True)
class Treatment:
    """How images are cropped and resized. With the defaults, their bytes are not changed.

    Args:
        crop: `"none"`; `"box"`, a square around the box of the face, black beyond the border of the image; or
            `"centre:F"`, the central square with a share F of the shorter side, in (0, 1]; F is 1 if it is omitted.
        size_px: Largest shorter side. Larger images are resized (bilinear, antialiased), smaller ones are not. None
            resizes no image.
        max_pixels: Images with more pixels are refused before they are decoded.

    Raises:
        ValueError: If a value is out of its range.
    """

    crop: str = "none"
    size_px: int | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self):
        if not CROP.fullmatch(self.crop) or not 0 < self.centre_share <= 1:
            raise ValueError(f"`crop` must be none, box or centre:F with a share F in (0, 1], got {self.crop}.")
        for name, value in {"size": self.size_px, "max_pixels": self.max_pixels}.items():
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")

    @property
    def centre_share(self) -> float:
        """F of the crop `"centre:F"`; 1 for other crops."""
        return float(self.crop.partition(":")[2] or 1)


@dataclass(frozen=True)
class Prepared:
    """An image that was checked, cropped and resized.

    Args:
        content: Encoded image.
        digest: SHA-256 of the file in the collection, or of the pixels and their shape if they come from a table.
        notes: Oddities of the image, which can be used in spite of them.
    """

    content: bytes
    digest: str
    notes: list[str] = field(default_factory=list)


def prepare_image(root: Path, photo: Photo, treatment: Treatment) -> Prepared:
    """Open, check, crop and resize one image.

    Args:
        root: Folder of the collection. Links that lead out of it are refused.
        photo: Image before it is opened.
        treatment: How images are cropped and resized.

    Raises:
        BrokenImageError: If the image cannot be used.
    """
    try:
        if isinstance(photo.source, np.ndarray):
            return _prepare_pixels(photo, treatment)
        content = read_image_file(str(check_inside(root, photo.source)))
        with open_bytes(content, treatment.max_pixels) as image:
            notes = _find_oddities(image, photo.source)
            treated = _treat(image, photo.box, treatment)
            encoded = content if treated is None else _encode(treated, image.format)
        return Prepared(encoded, hashlib.sha256(content).hexdigest(), notes)
    except Exception as error:  # Decoders of PIL raise errors of any class for broken files.
        raise BrokenImageError.from_error(photo.name, error) from error


def _prepare_pixels(photo: Photo, treatment: Treatment) -> Prepared:
    pixels = np.ascontiguousarray(photo.source)
    height, width = pixels.shape[:2]
    if width * height > treatment.max_pixels:
        raise ValueError(f"{width} x {height} px are more than `max_pixels` = {treatment.max_pixels}")
    image = Image.fromarray(pixels)
    treated = _treat(image, photo.box, treatment)
    digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    return Prepared(_encode(treated or image, "PNG"), digest)


def _find_oddities(image: Image.Image, path: Path) -> list[str]:
    """List oddities of an image for the report."""
    notes = []
    suffix_format = Image.registered_extensions().get(path.suffix.lower())
    if suffix_format is not None and suffix_format != image.format and {suffix_format, image.format} != {"JPEG", "MPO"}:
        notes.append(f"{image.format} under the name of a {suffix_format}")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        notes.append("animated: the first frame counts")
    if image.getexif().get(0x0112, 1) != 1:
        notes.append("turned by its EXIF orientation")
    if image.mode not in ("L", "RGB"):
        notes.append(f"mode {image.mode}: converted when it is decoded")
    return notes


def _treat(image: Image.Image, box: tuple | None, treatment: Treatment) -> Image.Image | None:
    """Decode, crop and resize an image; None if it needs neither a crop nor resizing."""
    if treatment.crop == "box" and box is None:
        raise ValueError("no box of the face is known")
    is_large = treatment.size_px is not None and min(image.size) > treatment.size_px
    if is_large and treatment.crop != "box":
        draft_px = round(DRAFT_GAP * treatment.size_px / treatment.centre_share)
        image.draft(None, (draft_px, draft_px))
    decoded = upright_8_bits(image)
    decoded.load()  # Decoding finds truncated files, even if the original bytes are kept.
    if treatment.crop == "none" and not is_large:
        return None
    if treatment.crop != "none":
        is_box = treatment.crop == "box"
        decoded = _crop(decoded, _get_square(box) if is_box else _get_central_box(decoded, treatment.centre_share))
    if treatment.size_px is not None and min(decoded.size) > treatment.size_px:
        scale = treatment.size_px / min(decoded.size)
        size = round(decoded.width * scale), round(decoded.height * scale)
        decoded = decoded.resize(size, Image.Resampling.BILINEAR)
    return decoded


def _get_square(box: tuple[float, float, float, float]) -> tuple[int, ...]:
    """Return the square with the centre and the longer side of a box, in whole px."""
    left, top, right, bottom = box
    side = round(max(right - left, bottom - top))
    corner = round((left + right - side) / 2), round((top + bottom - side) / 2)
    return *corner, corner[0] + side, corner[1] + side


def _get_central_box(image: Image.Image, share: float) -> tuple[int, ...]:
    """Return the central square whose side is a share of the shorter side."""
    side = max(1, round(share * min(image.size)))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return left, top, left + side, top + side


def _crop(image: Image.Image, box: tuple[int, ...]) -> Image.Image:
    """Crop a box, black beyond the border. Boxes outside of the image, empty or far too large are refused."""
    left, top, right, bottom = box
    outside = right <= 0 or bottom <= 0 or left >= image.width or top >= image.height
    if outside or right <= left:
        raise ValueError(f"the face's box {box} lies outside of the image of {image.width} x {image.height} px")
    if right - left > 4 * max(image.size):
        raise ValueError(f"the face's box {box} is far larger than the image of {image.width} x {image.height} px")
    return image.crop(box)


def _encode(image: Image.Image, source_format: str | None) -> bytes:
    """Encode JPEG images as JPEG again, and all others as PNG, which is lossless."""
    file = io.BytesIO()
    if source_format in ("JPEG", "MPO"):
        image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")
    else:
        image.save(file, "PNG")
    return file.getvalue()
