"""Head pose in pictures: a schematic head in any pose, and which way each angle turns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from PIL import Image

from ..head_pose_pcl import ANGLES, AXIS_COLOURS, draw_axes, rotation_matrix
from .style import add_legend, new_figure, rendered

VIEW = 1.5  # What is seen reaches this far from the middle of the head, which is 2 high.
LIGHT = np.array([0.3, 0.5, -0.8])  # Where it comes from, along the axes of a frontal head.
AXES = {"left": "out of the person's left ear", "top": "out of the top of the head", "nose": "where the nose points"}
# Angle: size in degrees, and what one below and one above zero look like.
TURNS = {
    "yaw": (40, "nose to the left of the image", "nose to the right of the image"),
    "pitch": (30, "nose down", "nose up"),
    "roll": (30, "head leans counter-clockwise", "head leans clockwise"),
}


@dataclass(frozen=True)
class Ellipsoid:
    """A part of the head, along its axes: x to the person's right, y up, z to the back.

    Args:
        centre: Its middle.
        radii: Half its size along each axis.
        colour: Red, green, blue, 0 to 255.
        is_fixed: Whether it stays when the head turns.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    colour: tuple[int, int, int]
    is_fixed: bool = False


SKIN, EAR, NOSE, HAIR, LIPS = (242, 210, 185), (225, 170, 140), (222, 165, 132), (95, 65, 45), (176, 70, 70)
NECK, SHIRT, WHITE, BLACK = (225, 190, 165), (150, 165, 180), (255, 255, 255), (30, 30, 30)


def _side(sign: int) -> list[Ellipsoid]:
    """Ear, eye, pupil and brow of the person's right (1) or left (-1)."""
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
    *_side(-1),
    *_side(1),
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
    """Draw a head as a camera far in front of the person sees it, `(size_px, size_px, 3)` uint8."""
    turned = rotation_matrix(yaw_deg, pitch_deg, roll_deg)
    steps = VIEW * (1 - (2 * np.arange(size_px) + 1) / size_px)  # From left to right x falls, from top to bottom y.
    x, y = np.meshgrid(steps, steps)
    pixels = np.full((size_px, size_px, 3), paper, np.uint8)
    nearest = np.full((size_px, size_px), np.inf)
    for part in parts:
        z, shade = _surface(part, np.eye(3) if part.is_fixed else turned, x, y)
        is_seen = z < nearest
        nearest[is_seen] = z[is_seen]
        pixels[is_seen] = (np.array(part.colour) * shade[is_seen, None]).round()
    return pixels


def _surface(part: Ellipsoid, rotation: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth and brightness of a part's front at each pixel; where it is not, the depth is infinite."""
    radii = np.array(part.radii)
    from_middle = np.stack([x, y, np.zeros_like(x)], axis=-1) - rotation @ part.centre
    # In the frame of the unit sphere: points `start + z * step`, of which the first of length 1 is seen.
    start, step = from_middle @ rotation / radii, rotation[2] / radii
    a, b, c = step @ step, start @ step, (start**2).sum(axis=-1) - 1
    root = np.sqrt(np.maximum(b**2 - a * c, 0))
    z = np.where(b**2 > a * c, (-b - root) / a, np.inf)
    normal = (start - ((b + root) / a)[..., None] * step) / radii @ rotation.T
    light = normal @ (LIGHT / np.linalg.norm(LIGHT)) / np.linalg.norm(normal, axis=-1)
    return z, 0.65 + 0.35 * np.clip(light, 0, 1)


def add_axes_legend(figure: Figure) -> Legend:
    """Say at the bottom of a figure what the axes are that `draw_axes` draws."""
    lines = [Line2D([], [], color=np.array(AXIS_COLOURS[name]) / 255, linewidth=3) for name in AXES]
    return add_legend(figure, lines, AXES.values(), loc="outside lower center", ncols=3)


def draw_pose_convention() -> Image.Image:
    """Draw which way a head turns with the sign of yaw, pitch and roll, as `head_pose_pcl` defines them."""
    figure = new_figure(740, 830)
    for row, (angle, (size_deg, negative, positive)) in zip(figure.subplots(3, 3), TURNS.items()):
        for axes, degrees, words in zip(row, (-size_deg, 0, size_deg), (negative, "frontal", positive)):
            pose = [degrees if name == angle else 0 for name in ANGLES]
            axes.imshow(draw_axes(Image.fromarray(draw_head(*pose, 230)), *pose))
            axes.set_title(f"{angle} {degrees:+d}: {words}" if degrees else f"{angle} 0: {words}", fontsize=8, pad=4)
            axes.set_axis_off()
    add_axes_legend(figure)
    return rendered(figure)
