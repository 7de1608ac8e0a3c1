"""Head pose in pictures: the head's axes on a face, and which way each angle turns."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from PIL import Image

from ..head_pose_pcl import axes_in_image
from .head_drawing import draw_head
from .label_columns import ANGLES
from .pixel_figure import axes_at, from_top, new_figure, rendered

# Direction of the head: colour, length in shares of the image's side, and the words of the legend.
DIRECTIONS = {
    "left": ("#e00000", 0.4, "out of the person's left ear"),
    "top": ("#00b000", 0.4, "out of the top of the head"),
    "nose": ("#0030ff", 0.5, "where the nose points"),
}
LEGEND_PX = 34
HEAD_PX, GAP_PX, WORDS_PX = 230, 16, 44
# Angle: size in degrees, and what one below and one above zero look like.
TURNS = {
    "yaw": (
        40,
        "nose to the left of the image\n(to the person's right)",
        "nose to the right of the image\n(to the person's left)",
    ),
    "pitch": (30, "nose down\n(the person looks down)", "nose up\n(the person looks up)"),
    "roll": (
        30,
        "head leans counter-clockwise\n(to the person's right shoulder)",
        "head leans clockwise\n(to the person's left shoulder)",
    ),
}


def draw_pose_axes(axes: Axes, pose: Sequence[float], size: float):
    """Draw where the head's axes point, from the middle of an image.

    Args:
        axes: Holds the image from 0 to `size` in both directions, y downwards.
        pose: Yaw, pitch and roll, in degrees.
        size: Side of the image, in the unit of `axes`.
    """
    outline = [Stroke(linewidth=4.5, foreground="white"), Normal()]
    for name, direction in axes_in_image(*pose).items():
        colour, length, _ = DIRECTIONS[name]
        right, down = size * (0.5 + np.outer([0, length], direction)).T
        axes.plot(right, down, color=colour, linewidth=2.5, solid_capstyle="round", path_effects=outline)
    # Of a nose that points towards us the tip is all there is to see; it is the last that was drawn.
    axes.plot(right[1], down[1], "o", color=colour, markersize=6, markeredgewidth=1, markeredgecolor="white")


def add_legend(figure: Figure, top_px: float):
    """Say what the axes are, in the `LEGEND_PX` below `top_px`."""
    lines = [Line2D([], [], color=colour, linewidth=3, label=words) for colour, _, words in DIRECTIONS.values()]
    middle = (0.5, from_top(figure, top_px + LEGEND_PX / 2))
    figure.legend(handles=lines, ncols=len(lines), loc="center", bbox_to_anchor=middle, fontsize=9, frameon=False)


def draw_pose_convention() -> Image.Image:
    """Draw which way a head turns with the sign of yaw, pitch and roll, as `head_pose_pcl` defines them."""
    cell, row = HEAD_PX + GAP_PX, HEAD_PX + WORDS_PX
    figure = new_figure(3 * cell, len(TURNS) * row + LEGEND_PX)
    for i, (angle, (turn, negative, positive)) in enumerate(TURNS.items()):
        for j, (degrees, words) in enumerate(((-turn, negative), (0, "frontal"), (turn, positive))):
            axes = axes_at(figure, j * cell + GAP_PX / 2, i * row + WORDS_PX, HEAD_PX, HEAD_PX)
            axes.set_title(f"{angle} {degrees:+d}: {words}" if degrees else f"{angle} 0: {words}", fontsize=8, pad=4)
            _draw_turned(axes, [degrees if name == angle else 0 for name in ANGLES])
    add_legend(figure, len(TURNS) * row)
    return rendered(figure)


def _draw_turned(axes: Axes, pose: Sequence[float]):
    axes.imshow(draw_head(*pose, HEAD_PX), extent=(0, HEAD_PX, HEAD_PX, 0))
    draw_pose_axes(axes, pose, HEAD_PX)
    axes.set(xlim=(0, HEAD_PX), ylim=(HEAD_PX, 0), xticks=[], yticks=[])
