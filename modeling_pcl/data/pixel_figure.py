"""A matplotlib figure whose parts are placed in pixels from its top left corner, with words that any label survives."""

import textwrap
import warnings

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

DPI = 100
# Of small letters every one is as wide, so that counting them says what fits. A label may hold dollar signs.
SMALL = {"fontsize": 7, "family": "DejaVu Sans Mono", "parse_math": False}
LETTER_PX, LINE_PX = 6, 13


def new_figure(width_px: int, height_px: int) -> Figure:
    """An empty white figure."""
    return Figure((width_px / DPI, height_px / DPI), dpi=DPI)


def axes_at(figure: Figure, left_px: float, top_px: float, width_px: float, height_px: float) -> Axes:
    """New axes, by the corner and the size of the part that holds the data."""
    width, height = figure.get_size_inches() * DPI
    bottom = from_top(figure, top_px + height_px)
    return figure.add_axes((left_px / width, bottom, width_px / width, height_px / height))


def from_top(figure: Figure, down_px: float) -> float:
    """The height of a point so far below the top, in the figure's own coordinates."""
    return 1 - down_px / (figure.get_figheight() * DPI)


def rendered(figure: Figure) -> Image.Image:
    """The figure as an RGB picture; letters that the font lacks are boxes."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def one_line(text: str, letters: int) -> str:
    """A text with single spaces, cut to so many letters."""
    text = " ".join(text.split())
    return text if len(text) <= letters else text[: letters - 1] + "…"


def broken_into_lines(text: str, letters: int, lines: int) -> list[str]:
    """A text in lines of at most so many letters; where it takes more lines, the last one ends in dots."""
    return textwrap.wrap(text, letters, max_lines=lines, placeholder=" …", break_on_hyphens=False)
