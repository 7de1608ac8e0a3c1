"""How the probes' pictures look, and words in them that any label survives."""

import io
import itertools
import math
import textwrap
import warnings
from collections.abc import Collection, Iterable, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

from ..features_pcl import READABLE_FEATURES

DPI = 100
TITLE_LETTER_PX, TITLE_LINES = 8.5, 3
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
FEATURES = dict(zip(READABLE_FEATURES, LOOKS))
GREY = "#808080"


def new_figure(width_px: float, height_px: float, title: str = "") -> Figure:
    """A white figure that makes room for every word; the title is broken into lines."""
    figure = Figure((width_px / DPI, height_px / DPI), dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(broken_into_lines(title, int(width_px / TITLE_LETTER_PX)), fontsize=11, parse_math=False)
    return figure


def rendered(figure: Figure) -> Image.Image:
    """The figure as an RGB picture, without empty margins; letters that the font lacks are boxes."""
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        FigureCanvasAgg(figure).print_figure(png, format="png", bbox_inches="tight", pad_inches=0.1)
    return Image.open(png).convert("RGB")


def plain(axes: Axes):
    """Leave out what carries no numbers, and make numbers small."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def add_legend(owner: Axes | Figure, handles: Sequence[Artist], labels: Iterable[str], **place) -> Legend:
    """A legend whose labels are taken literally, also with dollar signs or a leading underscore."""
    legend = owner.legend(handles, ["-"] * len(handles), frameon=False, fontsize=8, **place)
    for text, label in zip(legend.get_texts(), labels):
        text.set(text=label, parse_math=False)
    return legend


def looks(names: Collection[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each name: a feature's own, the others' in turn."""
    own = {name: FEATURES[name] for name in names if name in FEATURES}
    others = itertools.cycle(look for look in LOOKS if look not in own.values())
    return {name: own.get(name) or next(others) for name in names}


def is_known(number: float | None) -> bool:
    """Whether there is something to draw."""
    return number is not None and math.isfinite(number)


def one_line(text: str, letters: int) -> str:
    """A text with single spaces, cut to so many letters."""
    text = " ".join(text.split())
    return text if len(text) <= letters else text[: letters - 1] + "…"


def broken_into_lines(text: str, letters: int, lines: int = TITLE_LINES) -> str:
    """A text in lines of at most so many letters; what takes more lines ends in dots."""
    return "\n".join(textwrap.wrap(text, letters, max_lines=lines, placeholder=" …"))
