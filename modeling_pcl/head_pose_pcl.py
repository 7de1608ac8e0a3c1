"""Head pose: this package's convention for yaw, pitch and roll, and conversions that depend on it.

The axes of the head are right-handed: x points to the person's right, y up, z to the back of the head, and the nose
points along -z. In a picture of a frontal face, x points left, y up and z into the picture. Each angle is a
right-handed rotation about its axis, and the rotation of a head is `Rx(pitch) @ Ry(yaw) @ Rz(roll)`. As seen in the
image:

    yaw > 0     the nose points to the right of the image (the person looks to their left)
    pitch > 0   the nose points up
    roll > 0    the head leans clockwise (towards the person's left shoulder)

GENKI-4K uses these signs. 300W-LP, AFLW2000-3D and collections derived from them have the opposite sign of yaw.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

ANGLES = ("yaw", "pitch", "roll")
AXIS_COLOURS = {"left": (214, 39, 40), "top": (44, 160, 44), "nose": (31, 119, 180)}  # Red, green, blue.
AXIS_SHARE, AXIS_WIDTH_SHARE = 0.45, 0.02  # Length and width of a drawn axis, as fractions of the box's shorter side.
# PIL draws lines without antialiasing, so they are drawn larger, on a canvas of limited size, and scaled down.
OVERSAMPLING, MOST_CANVAS_PX = 4, 4096


def rotation_matrix(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """Compute the rotation of a head, `(3, 3)`: its columns are the head's axes in the axes of a frontal head."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    about_x = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    about_y = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    about_z = [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    return np.array(about_x) @ np.array(about_y) @ np.array(about_z)


def angles_of(rotation: np.ndarray) -> tuple[float, float, float]:
    """Compute yaw, pitch and roll in degrees from a `rotation_matrix`.

    Returns:
        Yaw in [-90, 90], pitch and roll in (-180, 180].

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
    """Project three unit vectors of the head into the image, each as `(right, down)`.

    Returns:
        `"left"`, out of the person's left ear; `"top"`, out of the top of the head; `"nose"`, out of the face.
    """
    rotation = rotation_matrix(yaw_deg, pitch_deg, roll_deg)
    # The head's x points to the left of the image and its y up; right and down are the negatives.
    in_image = -rotation[:2]
    return {"left": -in_image[:, 0], "top": in_image[:, 1], "nose": -in_image[:, 2]}


def turn_back(yaw_deg: float, pitch_deg: float, roll_deg: float, angle_deg: float) -> tuple[float, float, float]:
    """Convert a head pose in a rotated square to the head pose in the photo that the square was cut out of.

    Args:
        yaw_deg: Yaw in the square.
        pitch_deg: Pitch in the square.
        roll_deg: Roll in the square.
        angle_deg: Clockwise rotation of the square in the photo.

    Returns:
        Yaw, pitch and roll in the photo, in degrees.
    """
    return angles_of(rotation_matrix(0, 0, angle_deg) @ rotation_matrix(yaw_deg, pitch_deg, roll_deg))


def draw_axes(
    image: Image.Image, yaw_deg: float, pitch_deg: float, roll_deg: float, box: Sequence[float] | None = None
) -> Image.Image:
    """Draw the axes of a head on an image.

    Args:
        image: The face, or a photo of it.
        yaw_deg: Positive if the nose points to the right of the image.
        pitch_deg: Positive if the nose points up.
        roll_deg: Positive if the head leans clockwise.
        box: Left, top, right, bottom of the face in px; the axes start from its centre. None means the whole image.

    Returns:
        RGB picture of the same size: red points out of the person's left ear, green out of the top of the head, blue
        out of the face. An axis in the image plane is 0.45 of the box's shorter side long.
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
    overlay = canvas.resize(image.size, Image.Resampling.LANCZOS)
    return Image.alpha_composite(image.convert("RGBA"), overlay).convert("RGB")
