"""Cutting faces out of photos, from detected or given boxes and points."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .crop_pcl import FaceCrop, FaceSquare
from .detection_pcl import FaceDetector, Faces

BOX_COLOUR, POINT_COLOUR, SQUARE_COLOUR = (44, 160, 44), (214, 39, 40), (31, 119, 180)
LINES_ACROSS = 250  # Drawn lines are as wide as the photo's longer side divided by this.
ON_NO_FACE = ("error", "whole", "skip")
# Advice at the end of the error message for a photo without a face.
WAYS_OUT = 'give its `boxes`, or `on_no_face="whole"` to take the photo as a face crop, or "skip" to leave it out'


class NoFaceError(ValueError):
    """Raised for a photo in which no face was found."""


@dataclass(frozen=True)
class CutFace:
    """A face that was cut out of a photo, or a whole photo that is used as a face crop.

    Args:
        image: RGB image, square unless it is a whole photo.
        photo: Index of the photo, from 0.
        box: `(4,)` float32: left, top, right, bottom, in px of the photo; the borders of a whole photo.
        points: `(5, 2)` float32: eyes, nose, corners of the mouth, in px of the photo; NaN if they are not known.
        score: Score of the detector, in [0, 1]; 1 if box or points were given, 0 for a whole photo.
        square: The square that was cut out; None for a whole photo.
    """

    image: Image.Image
    photo: int
    box: np.ndarray
    points: np.ndarray
    score: float
    square: FaceSquare | None

    @classmethod
    def from_whole_photo(cls, image: Image.Image, photo: int = 0) -> "CutFace":
        """Use a whole photo as a face crop."""
        box = np.array([0, 0, *image.size], np.float32)
        return cls(image, photo, box, np.full((5, 2), np.nan, np.float32), 0.0, None)


@lru_cache(maxsize=4)
def shared_detector(**options) -> FaceDetector:
    """Return a `FaceDetector` that all callers in this process with the same options share."""
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
        crop: How the square of a face is placed.
        detector: Finds the faces; None if `boxes` or `points` give their positions.
        boxes: For each photo the boxes of its faces, `(faces, 4)`, or of its only face, `(4,)`.
        points: For each photo the five points of its faces, `(faces, 5, 2)`, or of its only face, `(5, 2)`.
        on_no_face: What to do with a photo without a face: `"error"` raises, `"whole"` uses the photo as a face crop,
            `"skip"` leaves it out.
        most_faces: Largest number of faces per photo, of which the largest are kept; None keeps all.

    Returns:
        Faces in the order of the photos; within a photo, the largest detected face first.

    Raises:
        NoFaceError: If a photo has no face and `on_no_face` is `"error"`.
        ValueError: If boxes or points do not have one entry per photo, or a face lies outside its photo.
    """
    if on_no_face not in ON_NO_FACE:
        raise ValueError(f"`on_no_face` must be one of {', '.join(ON_NO_FACE)}, got {on_no_face!r}.")
    for name, entries in {"boxes": boxes, "points": points}.items():
        if entries is not None and len(entries) != len(photos):
            raise ValueError(f"`{name}` must hold an entry for each of {len(photos)} photos, got {len(entries)}.")
    cut = []
    if detector is not None:
        faces_by_photo = [[*zip(faces.boxes, faces.points, faces.scores)] for faces in detector(photos)]
    else:
        faces_by_photo = [
            _pair_boxes_with_points(boxes and boxes[number], points and points[number]) for number in range(len(photos))
        ]
    for number, (photo, faces) in enumerate(zip(photos, faces_by_photo)):
        if not faces and on_no_face == "error":
            raise NoFaceError(f"No face is found in photo {number} of {photo.width} x {photo.height} px: {WAYS_OUT}.")
        if not faces and on_no_face == "whole":
            cut.append(CutFace.from_whole_photo(photo, number))
        cut += [_cut_face(photo, number, crop, *face) for face in faces[:most_faces]]
    return cut


def cut_found_faces(photo: Image.Image, faces: Faces, crop: FaceCrop) -> list[CutFace]:
    """Cut the faces that a detector found in one photo out of it."""
    return [_cut_face(photo, 0, crop, *face) for face in zip(faces.boxes, faces.points, faces.scores)]


def _cut_face(photo: Image.Image, number: int, crop: FaceCrop, box, points, score: float) -> CutFace:
    square = crop.square(box, points)
    if box is None:
        box = np.array([square.x, square.y] * 2) + np.array([-1, -1, 1, 1]) * square.side_px / 2
    points = np.full((5, 2), np.nan) if points is None else np.reshape(points, (5, 2))
    image = square.cut(photo, crop.padding)
    return CutFace(image, number, np.asarray(box, np.float32), points.astype(np.float32), float(score), square)


def draw_faces(photo: Image.Image, faces: Faces, squares: Sequence[FaceSquare] = ()) -> Image.Image:
    """Draw detected faces on a photo: boxes in green, points in red, and the squares that are cut out in blue.

    A short line marks the upper side of each square.

    Returns:
        RGB picture of the size of the photo.
    """
    picture = photo.convert("RGB")
    pen, width = ImageDraw.Draw(picture), max(1, round(max(photo.size) / LINES_ACROSS))
    for square in squares:
        corners = [tuple(corner) for corner in square.corners().tolist()]
        pen.line([*corners, corners[0]], fill=SQUARE_COLOUR, width=width)
        top = square.corners()[:2].mean(axis=0)
        mark_end = top + (np.array([square.x, square.y]) - top) * 0.15
        pen.line([*top.tolist(), *mark_end.tolist()], fill=SQUARE_COLOUR, width=width)
    for box, points in zip(faces.boxes.tolist(), faces.points.tolist()):
        pen.rectangle(box, outline=BOX_COLOUR, width=width)
        for x, y in points:
            pen.circle((x, y), 1.5 * width, fill=POINT_COLOUR)
    return picture


def _pair_boxes_with_points(boxes: Any, points: Any) -> list[tuple]:
    """Return `(box, points, 1.0)` for each face of a photo, with None for whichever of the two was not given."""
    boxes = None if boxes is None else np.asarray(boxes, dtype=float).reshape(-1, 4)
    points = None if points is None else np.asarray(points, dtype=float).reshape(-1, 5, 2)
    if boxes is not None and points is not None and len(boxes) != len(points):
        raise ValueError(f"A photo has {len(boxes)} `boxes` and {len(points)} `points`; each face has one of either.")
    count = len(points) if boxes is None else len(boxes)
    return [
        (None if boxes is None else boxes[face], None if points is None else points[face], 1.0) for face in range(count)
    ]


__all__ = ["CutFace", "Faces", "NoFaceError", "cut_faces", "draw_faces"]
