"""The specification by which faces are cut out of photos, shared by training and inference."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from .images_pcl import MAX_PIXELS

ALIGNMENTS, PADDINGS = ("none", "eyes", "five_points"), ("black", "edge")
# Positions of eyes, nose and corners of the mouth in the square around a face's box, as fractions of its side: the mean
# of what CenterFace finds in 1,199 aligned portraits of CelebA and their mirror images.
TEMPLATE = np.array([[0.3235, 0.3804], [0.6765, 0.3804], [0.5, 0.5822], [0.3546, 0.7445], [0.6454, 0.7445]])
# Centres and angles are rounded to these steps: the last digits of a detector differ between machines and must not
# change the pixels.
PLACE_STEP_PX, ANGLE_STEP_DEG = 0.125, 0.125
LARGEST_SHARE = 8  # A square many times larger than the photo is a mistake in the box and could fill the memory.


@dataclass(frozen=True)
class FaceCrop:
    """How the square of a face is placed in a photo, before it is resized to the model's image size.

    Args:
        align: `"none"`: the square is parallel to the photo's sides; `"eyes"`: it is rotated until the eyes are level,
            if their positions are known; `"five_points"`: it is placed so that eyes, nose and mouth are as close as
            possible to fixed positions (a similarity transform, fitted by least squares).
        margin: Width added on every side, as a fraction of the longer side of the face's box, in [-0.25, 3].
        padding: Fill beyond the photo's border: `"black"`, or `"edge"`, which repeats the pixels of the border.

    Raises:
        ValueError: If a value is not one of these.
    """

    # Of 15 combinations, level eyes and a margin of 0.15 were best for verification: an AUC of 0.750 with the face
    # feature (`hub_cards/results.md`). Head pose and smiles are read best without a margin.
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
        """Place the square of one face.

        Args:
            box: `(4,)`: left, top, right, bottom, in px; None if only the points are known.
            points: `(5, 2)`: eyes, nose, corners of the mouth, each pair from left to right in the image, in px; None
                if only the box is known.

        Raises:
            ValueError: If the alignment needs an argument that is None, or a value is not finite, or the box or the
                points have no extent.
        """
        box, points = _check_numbers(box, 4, "box"), _check_numbers(points, 10, "points")
        if box is None and points is None:
            raise ValueError("A face needs its `box`, its five `points`, or both.")
        if points is None and self.align == "five_points":
            raise ValueError('`align="five_points"` needs the five `points` of a face.')
        if self.align == "five_points" or box is None:
            x, y, side_px, angle = _fit_square(points.reshape(5, 2))
            angle = angle if self.align == "five_points" else 0.0
        else:
            left, top, right, bottom = box
            x, y, side_px, angle = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top), 0.0
        if self.align == "eyes" and points is not None:
            (left_x, left_y), (right_x, right_y) = points.reshape(5, 2)[:2]
            angle = math.atan2(right_y - left_y, right_x - left_x)
        side_px = max(1, round(side_px * (1 + 2 * self.margin)))
        x, y = (round(float(coordinate) / PLACE_STEP_PX) * PLACE_STEP_PX for coordinate in (x, y))
        return FaceSquare(x, y, side_px, round(math.degrees(angle) / ANGLE_STEP_DEG) * ANGLE_STEP_DEG)


@dataclass(frozen=True)
class FaceSquare:
    """A square in a photo.

    Args:
        x: Horizontal position of the centre, in px.
        y: Vertical position of the centre, in px.
        side_px: Side of the square, at least 1.
        angle_deg: Clockwise rotation of the square.
    """

    x: float
    y: float
    side_px: int
    angle_deg: float = 0.0

    def cut(self, image: Image.Image, padding: str = "black") -> Image.Image:
        """Cut the square out of an upright RGB photo, at the scale of the photo.

        Args:
            image: Upright RGB photo.
            padding: As for `FaceCrop`.

        Returns:
            RGB image of `side_px` x `side_px` px. A square that is not rotated is moved to whole pixels, which are
            copied; a rotated one is sampled bilinearly.

        Raises:
            ValueError: If the square lies outside the photo, or is many times larger than the photo.
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
            pad_widths = [
                (max(0, -top), max(0, bottom - image.height)),
                (max(0, -left), max(0, right - image.width)),
                (0, 0),
            ]
            image = Image.fromarray(np.pad(np.asarray(image), pad_widths, mode="edge"))
            x, y = x + pad_widths[1][0], y + pad_widths[0][0]
        if not self.angle_deg:
            corner = math.floor(x - half + 0.5), math.floor(y - half + 0.5)
            return image.crop((*corner, corner[0] + side, corner[1] + side))
        cosine, sine = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        # Maps pixel (u, v) of the square to the photo: the centre plus (u - half, v - half), rotated by the angle.
        matrix = (cosine, -sine, x - half * (cosine - sine), sine, cosine, y - half * (sine + cosine))
        return image.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)

    def corners(self) -> np.ndarray:
        """Compute the corners in px of the photo, clockwise from the upper left of the face, `(4, 2)`."""
        cosine, sine = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        offsets = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * self.side_px / 2
        return offsets @ np.array([[cosine, sine], [-sine, cosine]]) + (self.x, self.y)


def describe_crop(crop: FaceCrop) -> str:
    """Describe in words how faces are cut out of photos, for a model card."""
    placement = {
        "none": "is parallel to the sides of the photo",
        "eyes": "is rotated until the eyes are level",
        "five_points": "is placed so that eyes, nose and mouth are as close as possible to fixed positions",
    }[crop.align]
    padding = "black" if crop.padding == "black" else "filled with the colours of the border"
    return (
        "A face is cut out as a square around its box. Its side is the longer side of the box plus a margin of "
        f"{crop.margin:.0%} on every side. The square {placement}; the area beyond the photo's border is {padding}."
    )


def _check_numbers(values: Any, count: int, name: str) -> np.ndarray | None:
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


def _fit_square(points: np.ndarray) -> tuple[float, float, float, float]:
    """Fit the square whose `TEMPLATE` positions are closest to five points, `(5, 2)`.

    Returns:
        Centre x and y and side in px, and angle in radians.

    Source:
        Umeyama 1991, least-squares estimation of transformation parameters; in the plane, with complex numbers.
    """
    # A similarity of the plane is z -> a * z + b with complex a and b; the least-squares a is a quotient of dot
    # products.
    template, positions = TEMPLATE @ (1, 1j), points @ (1, 1j)
    template_offsets, offsets = template - template.mean(), positions - positions.mean()
    factor = (template_offsets.conj() @ offsets) / (template_offsets.conj() @ template_offsets).real
    if abs(factor) < 1e-6:
        raise ValueError(
            f"`points` must be five points of a face, which span a part of the photo, got {points.tolist()}."
        )
    centre = positions.mean() + factor * (0.5 + 0.5j - template.mean())
    return centre.real, centre.imag, abs(factor), float(np.angle(factor))


__all__ = ["FaceCrop", "FaceSquare", "describe_crop"]
