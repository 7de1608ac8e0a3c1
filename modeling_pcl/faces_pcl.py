"""Faces of photos: found or given, and cut out by one specification."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .crop_pcl import FaceCrop, FaceSquare
from .detection_pcl import FaceDetector, Faces

BOX_COLOUR, POINT_COLOUR, SQUARE_COLOUR = (44, 160, 44), (214, 39, 40), (31, 119, 180)
LINES_ACROSS = 250  # Of their width, beside each other in a photo.
ON_NO_FACE = ("error", "whole", "skip")
# What an error says where no face is found.
WAYS_OUT = 'give its `boxes`, or `on_no_face="whole"` to take the photo as a face crop, or "skip" to leave it out'


class NoFaceError(ValueError):
    """A photo in which no face is found."""


@dataclass(frozen=True)
class CutFace:
    """A face that was cut out of a photo.

    Args:
        image: RGB, square but for a photo that is taken whole.
        photo: Number of the photo, from 0.
        box: `(4,)` float32: left, top, right, bottom, in px of the photo; of a photo that is taken whole, all of it.
        points: `(5, 2)` float32: eyes, nose, corners of the mouth; NaN where they are not known.
        score: The detector's, in [0, 1]; 1 where box or points were given, 0 of a photo that is taken whole.
        square: What was cut; None of a photo that is taken whole.
    """

    image: Image.Image
    photo: int
    box: np.ndarray
    points: np.ndarray
    score: float
    square: FaceSquare | None

    @classmethod
    def whole(cls, image: Image.Image, photo: int = 0) -> "CutFace":
        """A photo that is taken as a face crop."""
        box = np.array([0, 0, *image.size], np.float32)
        return cls(image, photo, box, np.full((5, 2), np.nan, np.float32), 0.0, None)


@lru_cache(maxsize=4)
def shared_detector(**options) -> FaceDetector:
    """One `FaceDetector` for all who ask for the same options in a process."""
    return FaceDetector(**options)


def cut_faces(
    photos: Sequence[Image.Image],
    crop: FaceCrop,
    detector: FaceDetector | None = None,
    boxes: Sequence | None = None,
    points: Sequence | None = None,
    on_no_face: str = "error",
    most_faces: int | None = None,
) -> list[CutFace]:
    """Cut the faces out of photos.

    Args:
        photos: Upright RGB photos.
        crop: How the square is laid.
        detector: Finds the faces; None where `boxes` or `points` say where they are.
        boxes: For each photo the boxes of its faces, `(faces, 4)`, or of one, `(4,)`.
        points: For each photo the five points of its faces, `(faces, 5, 2)`, or of one, `(5, 2)`.
        on_no_face: What becomes of a photo without a face: `"error"`, `"whole"`, the photo is taken as a face crop, or
            `"skip"`, it is left out.
        most_faces: Of each photo at most so many of the largest faces; None keeps all.

    Returns:
        Faces in the photos' order, of each photo the largest first.

    Raises:
        NoFaceError: If a photo has no face, and that is an error.
        ValueError: If boxes and points are not as many as the photos, or a face has no part in its photo.
    """
    if on_no_face not in ON_NO_FACE:
        raise ValueError(f"`on_no_face` must be one of {', '.join(ON_NO_FACE)}, got {on_no_face!r}.")
    for name, given in {"boxes": boxes, "points": points}.items():
        if given is not None and len(given) != len(photos):
            raise ValueError(f"`{name}` must hold an entry for each of {len(photos)} photos, got {len(given)}.")
    cut = []
    if detector is not None:
        found = [[*zip(faces.boxes, faces.points, faces.scores)] for faces in detector(photos)]
    else:
        found = [_given(boxes and boxes[number], points and points[number]) for number in range(len(photos))]
    for number, (photo, faces) in enumerate(zip(photos, found)):
        if not faces and on_no_face == "error":
            raise NoFaceError(f"No face is found in photo {number} of {photo.width} x {photo.height} px: {WAYS_OUT}.")
        if not faces and on_no_face == "whole":
            cut.append(CutFace.whole(photo, number))
        cut += [_cut(photo, number, crop, *face) for face in faces[:most_faces]]
    return cut


def cut_found_faces(photo: Image.Image, faces: Faces, crop: FaceCrop) -> list[CutFace]:
    """Cut out of one photo the faces that a detector has found in it."""
    return [_cut(photo, 0, crop, *face) for face in zip(faces.boxes, faces.points, faces.scores)]


def _cut(photo: Image.Image, number: int, crop: FaceCrop, box, points, score: float) -> CutFace:
    square = crop.square(box, points)
    if box is None:
        box = np.array([square.x, square.y] * 2) + np.array([-1, -1, 1, 1]) * square.side_px / 2
    points = np.full((5, 2), np.nan) if points is None else np.reshape(points, (5, 2))
    image = square.cut(photo, crop.padding)
    return CutFace(image, number, np.asarray(box, np.float32), points.astype(np.float32), float(score), square)


def draw_faces(photo: Image.Image, faces: Faces, squares: Sequence[FaceSquare] = ()) -> Image.Image:
    """Draw what was found in a photo: boxes green, points red, and the squares that are cut out blue, a small line on
    their upper side. Returns an RGB picture of the same size."""
    drawn = photo.convert("RGB")
    pen, width = ImageDraw.Draw(drawn), max(1, round(max(photo.size) / LINES_ACROSS))
    for square in squares:
        corners = [tuple(corner) for corner in square.corners().tolist()]
        pen.line([*corners, corners[0]], fill=SQUARE_COLOUR, width=width)
        top = square.corners()[:2].mean(axis=0)
        towards = top + (np.array([square.x, square.y]) - top) * 0.15
        pen.line([*top.tolist(), *towards.tolist()], fill=SQUARE_COLOUR, width=width)
    for box, points in zip(faces.boxes.tolist(), faces.points.tolist()):
        pen.rectangle(box, outline=BOX_COLOUR, width=width)
        for x, y in points:
            pen.circle((x, y), 1.5 * width, fill=POINT_COLOUR)
    return drawn


def _given(boxes: Any, points: Any) -> list[tuple]:
    """Boxes, points and the score 1 of one photo's faces, one of the two None where it is not given."""
    boxes = None if boxes is None else np.asarray(boxes, dtype=float).reshape(-1, 4)
    points = None if points is None else np.asarray(points, dtype=float).reshape(-1, 5, 2)
    if boxes is not None and points is not None and len(boxes) != len(points):
        raise ValueError(f"A photo has {len(boxes)} `boxes` and {len(points)} `points`; each face has one of either.")
    count = len(points) if boxes is None else len(boxes)
    return [
        (None if boxes is None else boxes[face], None if points is None else points[face], 1.0) for face in range(count)
    ]


__all__ = ["CutFace", "Faces", "NoFaceError", "cut_faces", "draw_faces"]
