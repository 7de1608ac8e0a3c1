"""Pictures of head pose: a schematic head in any pose, and the signs of the angles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from PIL import Image

from ..head_pose_pcl import ANGLES, AXIS_COLOURS, draw_axes, rotation_matrix
from .style import add_legend, new_figure, render_figure

VIEW = 1.5  # Distance from the centre of the head to the border of the picture; the head is 2 high.
LIGHT = np.array([0.3, 0.5, -0.8])  # Direction to the light source, in the axes of a frontal head.
AXES = {"left": "out of the person's left ear", "top": "out of the top of the head", "nose": "where the nose points"}
# Size in degrees of each angle, and descriptions of the negative and the positive angle.
TURNS = {
    "yaw": (40, "nose to the left of the image", "nose to the right of the image"),
    "pitch": (30, "nose down", "nose up"),
    "roll": (30, "head leans counter-clockwise", "head leans clockwise"),
}


@dataclass(frozen=True)
class Ellipsoid:
    """A part of the head, in the head's axes: x to the person's right, y up, z to the back.

    Args:
        centre: Centre of the ellipsoid.
        radii: Half of its size along each axis.
        colour: Red, green, blue, 0 to 255.
        is_fixed: Whether the part does not turn with the head.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    colour: tuple[int, int, int]
    is_fixed: bool = False


SKIN, EAR, NOSE, HAIR, LIPS = (242, 210, 185), (225, 170, 140), (222, 165, 132), (95, 65, 45), (176, 70, 70)
NECK, SHIRT, WHITE, BLACK = (225, 190, 165), (150, 165, 180), (255, 255, 255), (30, 30, 30)


def _make_side(sign: int) -> list[Ellipsoid]:
    """Make ear, eye, pupil and brow of the person's right side (1) or left side (-1)."""
    return [
        Ellipsoid((0.74 * sign, -0.02, 0.05), (0.12, 0.2, 0.13), EAR),
        Ellipsoid((0.27 * sign, 0.16, -0.73), (0.13, 0.075, 0.05), WHITE),
        Ellipsoid((0.27 * sign, 0.16, -0.765), (0.06, 0.06, 0.04), BLACK),
        Ellipsoid((0.27 * sign, 0.33, -0.71), (0.16, 0.03, 0.06), HAIR),
    ]


PARTS = [
    Ellipsoid((0, 0, 0), (0.72, 1, 0.82), SKIN),
    Ellipsoid((0, 0.17, 0.14), (0.77, 0.98, 0.86), HAIR),
    Ellipsoid((0, -0.14, -0.86), (0.1, 0.17, 0.18), NOSE),
    Ellipsoid((0, -0.42, -0.7), (0.2, 0.045, 0.07), LIPS),
    *_make_side(-1),
    *_make_side(1),
    Ellipsoid((0, -1.2, 0.15), (0.36, 0.5, 0.36), NECK, is_fixed=True),
    Ellipsoid((0, -1.95, 0.2), (1.3, 0.6, 0.5), SHIRT, is_fixed=True),
]


def draw_head(
    yaw_deg: float,
    pitch_deg: float,
    roll_deg: float,
    size_px: int,
    parts: Sequence[Ellipsoid] = tuple(PARTS),
    paper: tuple[int, int, int] = WHITE,
) -> np.ndarray:
    """Draw a head in parallel projection from the front, `(size_px, size_px, 3)` uint8."""
    head_rotation = rotation_matrix(yaw_deg, pitch_deg, roll_deg)
    steps = VIEW * (1 - (2 * np.arange(size_px) + 1) / size_px)  # x decreases from left to right, y from top to bottom.
    x, y = np.meshgrid(steps, steps)
    pixels = np.full((size_px, size_px, 3), paper, np.uint8)
    nearest = np.full((size_px, size_px), np.inf)
    for part in parts:
        z, shade = _compute_surface(part, np.eye(3) if part.is_fixed else head_rotation, x, y)
        is_visible = z < nearest
        nearest[is_visible] = z[is_visible]
        pixels[is_visible] = (np.array(part.colour) * shade[is_visible, None]).round()
    return pixels


def _compute_surface(
    part: Ellipsoid, rotation: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute depth and brightness of a part's front surface at each pixel; the depth is infinite beside the part."""
    radii = np.array(part.radii)
    offsets = np.stack([x, y, np.zeros_like(x)], axis=-1) - rotation @ part.centre  # (height, width, 3)
    # Scaled so that the part is the unit sphere, the ray of a pixel is `start + z * step`. It meets the sphere where
    # a z^2 + 2 b z + c = 0, and the smaller root is the front.
    start, step = offsets @ rotation / radii, rotation[2] / radii
    a, b, c = step @ step, start @ step, (start**2).sum(axis=-1) - 1
    root = np.sqrt(np.maximum(b**2 - a * c, 0))
    z = np.where(b**2 > a * c, (-b - root) / a, np.inf)
    normal = (start - ((b + root) / a)[..., None] * step) / radii @ rotation.T
    light = normal @ (LIGHT / np.linalg.norm(LIGHT)) / np.linalg.norm(normal, axis=-1)
    return z, 0.65 + 0.35 * np.clip(light, 0, 1)


def add_axes_legend(figure: Figure) -> Legend:
    """Add a legend for the axes that `draw_axes` draws, at the bottom of a figure."""
    lines = [Line2D([], [], color=np.array(AXIS_COLOURS[name]) / 255, linewidth=3) for name in AXES]
    return add_legend(figure, lines, AXES.values(), loc="outside lower center", ncols=3)


def draw_pose_convention() -> Image.Image:
    """Draw heads with negative and positive yaw, pitch and roll, with the signs that `head_pose_pcl` defines."""
    figure = new_figure(740, 830)
    for row, (angle, (size_deg, negative, positive)) in zip(figure.subplots(3, 3), TURNS.items()):
        for axes, degrees, text in zip(row, (-size_deg, 0, size_deg), (negative, "frontal", positive)):
            pose = [degrees if name == angle else 0 for name in ANGLES]
            axes.imshow(draw_axes(Image.fromarray(draw_head(*pose, 230)), *pose))
            axes.set_title(f"{angle} {degrees:+d}: {text}" if degrees else f"{angle} 0: {text}", fontsize=8, pad=4)
            axes.set_axis_off()
    add_axes_legend(figure)
    return render_figure(figure)
