"""One image of a raw collection: opened with care, checked, and cropped or made smaller if that is wanted."""

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

JPEG_QUALITY = 95  # What is cropped or made smaller is compressed a second time, and should not show it.
CROP = re.compile(r"none|box|centre(:\d*\.?\d+)?")


@dataclass(frozen=True)
class Treatment:
    """What is done to every image. With the defaults, its bytes stay as they are.

    Args:
        crop: `"none"`; `"box"`, a square around the face's box, black where it reaches over the border; `"centre:F"`,
            the central square with a share F of the shorter side, in (0, 1], which is 1 if it is left out.
        size_px: Largest shorter side; larger images are made smaller (bilinear, antialiased), smaller ones are kept.
        max_pixels: Images of more pixels are refused before they are decoded.

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
        return float(self.crop.partition(":")[2] or 1)


@dataclass(frozen=True)
class Prepared:
    """An image that decodes.

    Args:
        content: Its encoded bytes.
        digest: SHA-256 of the bytes in the collection, or of the pixels and their shape where those are in a table.
        notes: What is odd about it, though it can be used.
    """

    content: bytes
    digest: str
    notes: list[str] = field(default_factory=list)


def prepare_image(root: Path, photo: Photo, treatment: Treatment) -> Prepared:
    """Open, check and treat one image.

    Args:
        root: The collection's folder; a link that leads out of it is not followed.
        photo: The image.
        treatment: What to do to it.

    Raises:
        BrokenImageError: If it cannot be used, and why.
    """
    try:
        if isinstance(photo.source, np.ndarray):
            return _prepare_pixels(photo, treatment)
        content = read_image_file(str(check_inside(root, photo.source)))
        with open_bytes(content, treatment.max_pixels) as image:
            notes = _notes(image, photo.source)
            treated = _treat(image, photo.box, treatment)
            encoded = content if treated is None else _encode(treated, image.format)
        return Prepared(encoded, hashlib.sha256(content).hexdigest(), notes)
    except Exception as error:  # PIL's decoders raise whatever they stumble on in broken bytes.
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


def _notes(image: Image.Image, path: Path) -> list[str]:
    notes = []
    by_name = Image.registered_extensions().get(path.suffix.lower())
    if by_name is not None and by_name != image.format and {by_name, image.format} != {"JPEG", "MPO"}:
        notes.append(f"{image.format} under the name of a {by_name}")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        notes.append("animated: the first frame counts")
    if image.getexif().get(0x0112, 1) != 1:
        notes.append("turned by its EXIF orientation")
    if image.mode not in ("L", "RGB"):
        notes.append(f"mode {image.mode}: converted when it is decoded")
    return notes


def _treat(image: Image.Image, box: tuple | None, treatment: Treatment) -> Image.Image | None:
    """Decode the whole image, and treat it; None if there was nothing to do."""
    if treatment.crop == "box" and box is None:
        raise ValueError("no box of the face is known")
    is_large = treatment.size_px is not None and min(image.size) > treatment.size_px
    if is_large and treatment.crop != "box":
        wanted = round(DRAFT_GAP * treatment.size_px / treatment.centre_share)
        image.draft(None, (wanted, wanted))
    decoded = upright_8_bits(image)
    decoded.load()  # Where the bytes are kept, too: only so does a file that was cut short show.
    if treatment.crop == "none" and not is_large:
        return None
    if treatment.crop != "none":
        decoded = _crop(decoded, _square(box) if treatment.crop == "box" else _centre(decoded, treatment.centre_share))
    if treatment.size_px is not None and min(decoded.size) > treatment.size_px:
        scale = treatment.size_px / min(decoded.size)
        size = round(decoded.width * scale), round(decoded.height * scale)
        decoded = decoded.resize(size, Image.Resampling.BILINEAR)
    return decoded


def _square(box: tuple[float, float, float, float]) -> tuple[int, ...]:
    """The square around a box's centre with its longer side."""
    left, top, right, bottom = box
    side = round(max(right - left, bottom - top))
    corner = round((left + right - side) / 2), round((top + bottom - side) / 2)
    return *corner, corner[0] + side, corner[1] + side


def _centre(image: Image.Image, share: float) -> tuple[int, ...]:
    side = max(1, round(share * min(image.size)))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return left, top, left + side, top + side


def _crop(image: Image.Image, box: tuple[int, ...]) -> Image.Image:
    left, top, right, bottom = box
    outside = right <= 0 or bottom <= 0 or left >= image.width or top >= image.height
    if outside or right <= left:
        raise ValueError(f"the face's box {box} has no part in the image of {image.width} x {image.height} px")
    if right - left > 4 * max(image.size):
        raise ValueError(f"the face's box {box} is far larger than the image of {image.width} x {image.height} px")
    return image.crop(box)


def _encode(image: Image.Image, source_format: str | None) -> bytes:
    """JPEG stays JPEG, everything else becomes PNG, which loses nothing more."""
    file = io.BytesIO()
    if source_format in ("JPEG", "MPO"):
        image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")
    else:
        image.save(file, "PNG")
    return file.getvalue()
