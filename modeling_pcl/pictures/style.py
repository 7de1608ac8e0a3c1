"""How pictures look, and words in them that any label survives."""

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
NAME_LETTERS = 32  # Of a name beside or in a chart.
# Okabe and Ito's colours, which colour-blind people can tell apart, each with a marker.
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
# Of small letters every one is as wide, so that counting them says what fits. A label may hold dollar signs.
SMALL = {"fontsize": 7, "family": "DejaVu Sans Mono", "parse_math": False}


def new_figure(width_px: float, height_px: float, title: str = "") -> Figure:
    """Make a white figure that makes room for every word; the title is broken into lines."""
    figure = Figure((width_px / DPI, height_px / DPI), dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(wrapped(title, int(width_px / 8.5)), fontsize=11, parse_math=False)
    return figure


def add_grid(figure: Figure, count: int, across: int, **options) -> list[Axes]:
    """Add so many axes to a figure, in rows of which the last may be shorter; options are those of `subplots`."""
    grid = figure.subplots(math.ceil(count / across), across, squeeze=False, **options).ravel().tolist()
    for axes in grid[count:]:
        axes.remove()
    return grid[:count]


def rendered(figure: Figure) -> Image.Image:
    """Render a figure in RGB, cropped to what it shows; letters that the font lacks are boxes."""
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        FigureCanvasAgg(figure).print_figure(png, format="png", bbox_inches="tight", pad_inches=0.1)
    return Image.open(png).convert("RGB")


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Put pictures below each other, each in the middle of the widest."""
    width = max(picture.width for picture in pictures)
    tops = np.cumsum([0, *(picture.height for picture in pictures)]).tolist()
    page = Image.new("RGB", (width, tops[-1]), "white")
    for picture, top in zip(pictures, tops):
        page.paste(picture, ((width - picture.width) // 2, top))
    return page


def tidy_axes(axes: Axes):
    """Leave out what carries no numbers, and make numbers small."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def name_ticks(axis: Axis, names: Collection[str], letters: int = NAME_LETTERS, **look):
    """Write a name, cut to so many letters and taken literally, at each of the places 0, 1, 2 and so on of an axis."""
    axis.set_ticks(range(len(names)), [one_line(name, letters) for name in names], parse_math=False, **look)


def draw_bars(axes: Axes, values: Mapping[str, float | None], colours, number: str, missing: str):
    """Draw a bar with its number for each name.

    Args:
        axes: Where.
        values: By name; one that is None or NaN has no bar and the word `missing`.
        colours: One, or one a bar.
        number: How to write numbers, as for `format`.
        missing: What to write where there is no number.
    """
    heights = [value if is_known(value) else 0 for value in values.values()]
    bars = axes.bar(range(len(values)), heights, 0.75, color=colours)
    words = [format(value, number) if is_known(value) else missing for value in values.values()]
    axes.bar_label(bars, words, fontsize=8, padding=2)
    name_ticks(axes.xaxis, values)
    tidy_axes(axes)


def add_legend(owner: Axes | Figure, handles: Sequence[Artist], labels: Iterable[str], **place) -> Legend:
    """Add a legend whose labels are taken literally, also with dollar signs or a leading underscore."""
    legend = owner.legend(handles, ["-"] * len(handles), frameon=False, fontsize=8, **place)
    for text, label in zip(legend.get_texts(), labels):
        text.set(text=label, parse_math=False)
    return legend


def choose_looks(names: Collection[str]) -> dict[str, tuple[str, str]]:
    """Give each name a colour and a marker: a feature its own, the others what is left, in turn."""
    fixed = {name: FEATURE_LOOKS[name] for name in names if name in FEATURE_LOOKS}
    others = itertools.cycle(look for look in LOOKS if look not in fixed.values())
    return {name: fixed.get(name) or next(others) for name in names}


def is_known(number: float | None) -> bool:
    """Whether there is something to draw."""
    return number is not None and math.isfinite(number)


def one_line(text: str, letters: int = NAME_LETTERS) -> str:
    """Write a text with single spaces, cut to so many letters."""
    text = " ".join(text.split())
    return text if len(text) <= letters else text[: letters - 1] + "…"


def wrapped(text: str, letters: int, lines: int = 3) -> str:
    """Break a text into lines of at most so many letters; what takes more lines ends in dots."""
    broken = textwrap.wrap(text, letters, max_lines=lines, placeholder=" …", break_on_hyphens=False)
    return "\n".join(broken)
