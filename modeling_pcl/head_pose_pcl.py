"""Head pose: the one convention of this package for yaw, pitch and roll, and what follows from it.

The head's own axes are right-handed: x to the person's right, y up, z to the back of the head; the nose points along
-z. In a picture of a frontal face, whose right is on the left, x points left, y up and z into the picture. Each angle
turns right-handed about its axis, and a head is turned by `Rx(pitch) @ Ry(yaw) @ Rz(roll)`. So, as seen in the image:

    yaw > 0     the nose points to the right of the image (the person looks to their left)
    pitch > 0   the nose points up
    roll > 0    the head leans clockwise (towards the person's left shoulder)

GENKI-4K uses these signs. 300W-LP, AFLW2000-3D and what is derived from them have yaw the other way round.
"""

import numpy as np

ANGLES = ("yaw", "pitch", "roll")


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
