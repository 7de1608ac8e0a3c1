"""How a face is cut out of a photo: one specification, for training and for use."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from .images_pcl import MAX_PIXELS

ALIGNMENTS, PADDINGS = ("none", "eyes", "five_points"), ("black", "edge")
# Where eyes, nose and corners of the mouth lie in the square around a face's box, as shares of its side: what
# CenterFace finds in CelebA's aligned portraits, the mean of 1,199 and their mirror images.
TEMPLATE = np.array([[0.3235, 0.3804], [0.6765, 0.3804], [0.5, 0.5822], [0.3546, 0.7445], [0.6454, 0.7445]])
PLACE_STEP_PX, ANGLE_STEP_DEG = 0.125, 0.125
LARGEST_SHARE = 8  # A square many times as large as the photo is a mistake, and would take all memory.


@dataclass(frozen=True)
class FaceCrop:
    """How a face's square is laid in a photo, before it is resized to the model's side.

    The defaults are what verification was best with, of 15 (`hub_cards/results.md`).

    Args:
        align: `"none"`, the square lies as the photo does; `"eyes"`, it is turned until the eyes are level, if it is
            known where they are; `"five_points"`, it is laid so that eyes, nose and mouth come as near as possible to
            fixed places (a similarity, by least squares).
        margin: What is added on every side, as a share of the longer side of the face's box; at least -0.25.
        padding: What stands beyond the photo's border: `"black"`, or `"edge"`, the border's own colours.

    Raises:
        ValueError: If a value is none of these.
    """

    align: str = "eyes"
    margin: float = 0.15
    padding: str = "black"

    def __post_init__(self):
        if self.align not in ALIGNMENTS:
            raise ValueError(f"`align` must be one of {', '.join(ALIGNMENTS)}, got {self.align!r}.")
        if self.padding not in PADDINGS:
            raise ValueError(f"`padding` must be one of {', '.join(PADDINGS)}, got {self.padding!r}.")
        if isinstance(self.margin, bool) or not isinstance(self.margin, int | float) or not -0.25 <= self.margin <= 3:
            raise ValueError(f"`margin` must be a number from -0.25 to 3, got {self.margin!r}.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def square(self, box: np.ndarray | None = None, points: np.ndarray | None = None) -> "FaceSquare":
        """Lay the square of one face.

        Args:
            box: `(4,)`: left, top, right, bottom, in px.
            points: `(5, 2)`: eyes, nose, corners of the mouth, left before right in the image, in px.

        Raises:
            ValueError: If what the alignment needs is not there, or not finite, or spans nothing.
        """
        box, points = _checked(box, 4, "box"), _checked(points, 10, "points")
        if box is None and points is None:
            raise ValueError("A face needs its `box`, its five `points`, or both.")
        if points is None and self.align == "five_points":
            raise ValueError('`align="five_points"` needs the five `points` of a face.')
        if self.align == "five_points" or box is None:
            by_points = _fitted_square(points.reshape(5, 2))
            x, y, side_px, angle = by_points
            angle = angle if self.align == "five_points" else 0.0
        else:
            left, top, right, bottom = box
            x, y, side_px, angle = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top), 0.0
        if self.align == "eyes" and points is not None:
            (left_x, left_y), (right_x, right_y) = points.reshape(5, 2)[:2]
            angle = math.atan2(right_y - left_y, right_x - left_x)
        side_px = max(1, round(side_px * (1 + 2 * self.margin)))
        # In steps, so that a detector's last digits, which differ between machines, do not show in the pixels.
        x, y = (round(float(place) / PLACE_STEP_PX) * PLACE_STEP_PX for place in (x, y))
        return FaceSquare(x, y, side_px, round(math.degrees(angle) / ANGLE_STEP_DEG) * ANGLE_STEP_DEG)


@dataclass(frozen=True)
class FaceSquare:
    """A square in a photo.

    Args:
        x: Of its centre, in px.
        y: Likewise.
        side_px: At least 1.
        angle_deg: By which it is turned clockwise.
    """

    x: float
    y: float
    side_px: int
    angle_deg: float = 0.0

    def cut(self, image: Image.Image, padding: str = "black") -> Image.Image:
        """Cut the square out of an upright RGB photo, `(side_px, side_px)`, at the photo's own scale.

        A square that is not turned is moved to whole pixels, which are copied; of a turned one each pixel is read
        between the four nearest.

        Raises:
            ValueError: If the square has no part in the photo, or is many times as large.
        """
        side, half = self.side_px, self.side_px / 2
        if side > LARGEST_SHARE * max(image.size) or side**2 > MAX_PIXELS:
            raise ValueError(f"a square of {side} px is far larger than the photo of {image.width} x {image.height} px")
        corners = self.corners()
        left, top = np.floor(corners.min(axis=0)).astype(int) - 1
        right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 1
        if right <= 0 or bottom <= 0 or left >= image.width or top >= image.height:
            raise ValueError(f"the face has no part in the photo of {image.width} x {image.height} px")
        x, y = self.x, self.y
        if padding == "edge":
            beyond = [
                (max(0, -top), max(0, bottom - image.height)),
                (max(0, -left), max(0, right - image.width)),
                (0, 0),
            ]
            image = Image.fromarray(np.pad(np.asarray(image), beyond, mode="edge"))
            x, y = x + beyond[1][0], y + beyond[0][0]
        if not self.angle_deg:
            corner = math.floor(x - half + 0.5), math.floor(y - half + 0.5)
            return image.crop((*corner, corner[0] + side, corner[1] + side))
        cosine, sine = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        # From the square's pixel (u, v) to the photo: the centre, and (u - half, v - half) turned by the angle.
        matrix = (cosine, -sine, x - half * (cosine - sine), sine, cosine, y - half * (sine + cosine))
        return image.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)

    def corners(self) -> np.ndarray:
        """Its corners in px of the photo, clockwise from the upper left of the face, `(4, 2)`."""
        cosine, sine = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        offsets = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * self.side_px / 2
        return offsets @ np.array([[cosine, sine], [-sine, cosine]]) + (self.x, self.y)


def describe_crop(crop: FaceCrop) -> str:
    """Say in words how faces are cut out of photos, for a card."""
    laid = {
        "none": "lies as the photo does",
        "eyes": "is turned until the eyes are level",
        "five_points": "is laid so that eyes, nose and mouth come as near as possible to fixed places",
    }[crop.align]
    beyond = "black" if crop.padding == "black" else "the border's own colours"
    return (
        "A face is cut out as a square around its box: as long as the box's longer side, and "
        f"{crop.margin:.0%} of that more on every side. It {laid}; beyond the photo's border stands {beyond}."
    )


def _checked(values: Any, count: int, name: str) -> np.ndarray | None:
    if values is None:
        return None
    values = np.asarray(values, dtype=float).ravel()
    if values.size != count or not np.isfinite(values).all():
        raise ValueError(f"`{name}` must be {count} finite numbers, got {values.tolist()}.")
    if count == 4 and not (values[0] < values[2] and values[1] < values[3]):
        raise ValueError(
            f"`box` must be left, top, right, bottom with left < right and top < bottom, got {values.tolist()}."
        )
    return values


def _fitted_square(points: np.ndarray) -> tuple[float, float, float, float]:
    """Centre, side and angle (radians) of the square whose `TEMPLATE` is nearest to five points, `(5, 2)`.

    Source:
        Umeyama 1991, least-squares estimation of transformation parameters; in the plane, with complex numbers.
    """
    template, seen = TEMPLATE @ (1, 1j), points @ (1, 1j)
    template_offsets, offsets = template - template.mean(), seen - seen.mean()
    turn = (template_offsets.conj() @ offsets) / (template_offsets.conj() @ template_offsets).real
    if abs(turn) < 1e-6:
        raise ValueError(
            f"`points` must be five points of a face, which span a part of the photo, got {points.tolist()}."
        )
    centre = seen.mean() + turn * (0.5 + 0.5j - template.mean())
    return centre.real, centre.imag, abs(turn), float(np.angle(turn))


__all__ = ["FaceCrop", "FaceSquare", "describe_crop"]
