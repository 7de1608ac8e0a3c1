"""Head pose: the one convention of this package for yaw, pitch and roll, and what follows from it.

The head's own axes are right-handed: x to the person's right, y up, z to the back of the head; the nose points along
-z. In a picture of a frontal face, whose right is on the left, x points left, y up and z into the picture. Each angle
turns right-handed about its axis, and a head is turned by `Rx(pitch) @ Ry(yaw) @ Rz(roll)`. So, as seen in the image:

    yaw > 0     the nose points to the right of the image (the person looks to their left)
    pitch > 0   the nose points up
    roll > 0    the head leans clockwise (towards the person's left shoulder)

GENKI-4K uses these signs. 300W-LP, AFLW2000-3D and what is derived from them have yaw the other way round.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

ANGLES = ("yaw", "pitch", "roll")
AXIS_COLOURS = {"left": (214, 39, 40), "top": (44, 160, 44), "nose": (31, 119, 180)}  # Red, green, blue.
AXIS_SHARE, AXIS_WIDTH_SHARE, OVERSAMPLING, MOST_CANVAS_PX = 0.45, 0.02, 4, 4096


def rotation_matrix(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """Columns are where the head's axes point, in the frontal head's axes: `(3, 3)`."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    about_x = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    about_y = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    about_z = [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    return np.array(about_x) @ np.array(about_y) @ np.array(about_z)


def angles_of(rotation: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of a `rotation_matrix`; pitch and roll in (-180, 180], yaw in [-90, 90].

    Raises:
        ValueError: If `rotation` is not a `(3, 3)` rotation, within 1e-2.
    """
    rotation = np.asarray(rotation, dtype=float)
    if rotation.shape != (3, 3) or not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-2):
        raise ValueError("the matrix is not a 3 x 3 rotation")
    if np.linalg.det(rotation) < 0:
        raise ValueError("the matrix mirrors: its determinant is -1")
    yaw = np.arctan2(rotation[0, 2], np.hypot(rotation[1, 2], rotation[2, 2]))
    pitch = np.arctan2(-rotation[1, 2], rotation[2, 2])
    roll = np.arctan2(-rotation[0, 1], rotation[0, 0])
    yaw_deg, pitch_deg, roll_deg = np.degrees([yaw, pitch, roll]).tolist()
    return yaw_deg, pitch_deg, roll_deg


def axes_in_image(yaw_deg: float, pitch_deg: float, roll_deg: float) -> dict[str, np.ndarray]:
    """Where three directions of the head point in the image, `(right, down)`, in shares of their length.

    Returns:
        `"left"`, out of the person's left ear; `"top"`, out of the top of the head; `"nose"`, out of the face.
    """
    rotation = rotation_matrix(yaw_deg, pitch_deg, roll_deg)
    in_image = -rotation[
        :2
    ]  # The head's x points to the left of the image and y up: right and down are their negatives.
    return {"left": -in_image[:, 0], "top": in_image[:, 1], "nose": -in_image[:, 2]}


def turn_back(yaw_deg: float, pitch_deg: float, roll_deg: float, angle_deg: float) -> tuple[float, float, float]:
    """Head pose in a photo of which a square was cut out that is turned: yaw, pitch and roll in degrees.

    Args:
        yaw_deg: In the square, as the others.
        pitch_deg: Likewise.
        roll_deg: Likewise.
        angle_deg: By which the square is turned clockwise in the photo.
    """
    return angles_of(rotation_matrix(0, 0, angle_deg) @ rotation_matrix(yaw_deg, pitch_deg, roll_deg))


def draw_axes(
    image: Image.Image, yaw_deg: float, pitch_deg: float, roll_deg: float, box: Sequence[float] | None = None
) -> Image.Image:
    """Draw on a face which way its head is turned.

    Args:
        image: The face, or a photo with it.
        yaw_deg: The nose to the right of the image is positive.
        pitch_deg: The nose up is positive.
        roll_deg: Leaning clockwise is positive.
        box: Left, top, right, bottom of the face in px of the photo; the axes stand in its middle, by default in the
            image's.

    Returns:
        An RGB picture of the same size: red out of the person's left ear, green out of the top of the head, blue out of
        the face, each as long as 0.45 of the box's shorter side where it lies in the image's plane.
    """
    left, top, right, bottom = (0, 0, *image.size) if box is None else box
    shorter = min(right - left, bottom - top)
    finer = max(1, min(OVERSAMPLING, MOST_CANVAS_PX // max(image.size)))
    canvas = Image.new("RGBA", (image.width * finer, image.height * finer))
    pen = ImageDraw.Draw(canvas)
    middle = (left + right) / 2 * finer, (top + bottom) / 2 * finer
    width = max(finer, round(AXIS_WIDTH_SHARE * shorter * finer))
    for name, (right, down) in axes_in_image(yaw_deg, pitch_deg, roll_deg).items():
        length = AXIS_SHARE * shorter * finer
        end = middle[0] + length * right, middle[1] + length * down
        pen.line((*middle, *end), fill=(*AXIS_COLOURS[name], 255), width=width)
        pen.circle(end, width, fill=(*AXIS_COLOURS[name], 255))
    over = canvas.resize(image.size, Image.Resampling.LANCZOS)
    return Image.alpha_composite(image.convert("RGBA"), over).convert("RGB")
