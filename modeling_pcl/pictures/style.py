"""The style of all pictures, and text in pictures that may come from data."""

import io
import itertools
import math
import textwrap
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

from ..features_pcl import READABLE_FEATURES

DPI = 100
NAME_LETTERS = 32  # Longest name in a chart.
# The colours of Okabe and Ito, which colour-blind people can distinguish, each with a marker.
LOOKS = (
    ("#0072b2", "o"),
    ("#d55e00", "s"),
    ("#009e73", "D"),
    ("#cc79a7", "^"),
    ("#e69f00", "v"),
    ("#56b4e9", "P"),
    ("#404040", "X"),
)
FEATURE_LOOKS = dict(zip(READABLE_FEATURES, LOOKS))
GREY = "#808080"
# A monospaced font, so that the width of a text follows from its length. Without `parse_math`, dollar signs in labels
# are not read as formulas.
SMALL = {"fontsize": 7, "family": "DejaVu Sans Mono", "parse_math": False}


def new_figure(width_px: float, height_px: float, title: str = "") -> Figure:
    """Make a white figure whose layout leaves room for all text. The title is broken into lines."""
    figure = Figure((width_px / DPI, height_px / DPI), dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(wrap_text(title, int(width_px / 8.5)), fontsize=11, parse_math=False)
    return figure


def add_grid(figure: Figure, count: int, across: int, **options) -> list[Axes]:
    """Add `count` axes to a figure in rows of `across`, of which the last may be shorter.

    Args:
        figure: The figure.
        count: Number of axes.
        across: Number of axes in a row.
        **options: Options of `Figure.subplots`.
    """
    grid = figure.subplots(math.ceil(count / across), across, squeeze=False, **options).ravel().tolist()
    for axes in grid[count:]:
        axes.remove()
    return grid[:count]


def render_figure(figure: Figure) -> Image.Image:
    """Render a figure as RGB, cropped to its content. Letters that the font does not have are drawn as boxes."""
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        options = {
            "bbox_inches": "tight",
            "pad_inches": 0.1,
            "pil_kwargs": {"compress_level": 0},
        }  # It is read at once.
        FigureCanvasAgg(figure).print_figure(png, format="png", **options)
    return Image.open(png).convert("RGB")


def stack_pictures(pictures: Sequence[Image.Image]) -> Image.Image:
    """Stack pictures vertically, each centred on the widest."""
    width = max(picture.width for picture in pictures)
    tops = np.cumsum([0, *(picture.height for picture in pictures)]).tolist()
    page = Image.new("RGB", (width, tops[-1]), "white")
    for picture, top in zip(pictures, tops):
        page.paste(picture, ((width - picture.width) // 2, top))
    return page


def tidy_axes(axes: Axes):
    """Remove the spines without ticks, and make tick labels small."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def name_ticks(axis: Axis, names: Collection[str], letters: int = NAME_LETTERS, **look):
    """Label the positions 0, 1, 2, ... of an axis with names, which are shortened and not parsed as formulas.

    Args:
        axis: The axis.
        names: Names in the order of the positions.
        letters: Longest name.
        **look: Properties of the text.
    """
    axis.set_ticks(range(len(names)), [one_line(name, letters) for name in names], parse_math=False, **look)


def draw_bars(axes: Axes, values: Mapping[str, float | None], colours, number: str, missing: str):
    """Draw a bar with its number for each name.

    Args:
        axes: Axes to draw on.
        values: Value of each bar by name. A value that is None or NaN has no bar.
        colours: One colour, or one per bar.
        number: Format specification of the numbers.
        missing: Text in place of a value that is None or NaN.
    """
    heights = [value if is_known(value) else 0 for value in values.values()]
    bars = axes.bar(range(len(values)), heights, 0.75, color=colours)
    texts = [format(value, number) if is_known(value) else missing for value in values.values()]
    axes.bar_label(bars, texts, fontsize=8, padding=2)
    name_ticks(axes.xaxis, values)
    tidy_axes(axes)


def add_legend(owner: Axes | Figure, handles: Sequence[Artist], labels: Iterable[str], **place) -> Legend:
    """Add a legend whose labels are shown unchanged, also with dollar signs or a leading underscore."""
    legend = owner.legend(handles, ["-"] * len(handles), frameon=False, fontsize=8, **place)
    for text, label in zip(legend.get_texts(), labels):
        text.set(text=label, parse_math=False)
    return legend


def choose_looks(names: Collection[str]) -> dict[str, tuple[str, str]]:
    """Choose a colour and a marker for each name: fixed ones for features, and the others in turn for other names."""
    fixed = {name: FEATURE_LOOKS[name] for name in names if name in FEATURE_LOOKS}
    others = itertools.cycle(look for look in LOOKS if look not in fixed.values())
    return {name: fixed.get(name) or next(others) for name in names}


def is_known(number: float | None) -> bool:
    """Return whether a number can be drawn, that is, is neither None nor NaN nor infinite."""
    return number is not None and math.isfinite(number)


def one_line(text: str, letters: int = NAME_LETTERS) -> str:
    """Put a text into one line with single spaces, shortened to at most `letters` letters."""
    text = " ".join(text.split())
    return text if len(text) <= letters else text[: letters - 1] + "…"


def wrap_text(text: str, letters: int, lines: int = 3) -> str:
    """Break a text into lines of at most `letters` letters. A text that needs more lines is shortened."""
    return "\n".join(textwrap.wrap(text, letters, max_lines=lines, placeholder=" …", break_on_hyphens=False))
