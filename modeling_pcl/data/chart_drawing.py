"""Charts drawn from their numbers, a few side by side."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from .label_charts import Panel
from .pixel_figure import LETTER_PX, SMALL, axes_at, one_line

NARROWEST_PX = 400  # Of a chart with its margins; a single one is half as wide as the page.
ABOVE_PX, BELOW_PX, RIGHT_PX = 28, 48, 36
NUMBERS_PX, GAP_PX = 70, 16  # Left of a chart, for numbers; between a name and its bar.
HEIGHT_PX, BAR_PX = 170, 17
LEAST_BARS = 4  # Fewer bars are no thicker than so many.
ROOM = 1.12  # Of the highest bar's height, so that its number has a place.
NAME_LETTERS, TITLE_LETTER_PX = 24, 8
WHOLE = {"integer": True, "steps": [1, 2, 5, 10], "min_n_ticks": 1}  # Ticks at round numbers.

COLOURS = {"same": "#009a00", "different": "#d00000", "present": "#4878a8", "absent": "#c8d8e8", "missing": "#b0b0b0"}
COLOURS |= {str(level): f"#{220 - 36 * level:02x}{230 - 30 * level:02x}f0" for level in range(6)}
OTHER_COLOUR = "#4878a8"


def charts_height_px(panels: Sequence[Panel], width_px: int) -> int:
    """What `draw_charts` takes of a page of this width."""
    cell = width_px // _across(panels, width_px)
    return sum(_row_height_px(row, cell) for row in _rows(panels, width_px))


def draw_charts(figure: Figure, panels: Sequence[Panel], top_px: int, width_px: int):
    """Draw charts from `top_px` on, in as few rows as possible and about as many in each."""
    cell = width_px // _across(panels, width_px)
    for row in _rows(panels, width_px):
        for column, panel in enumerate(row):
            names = _names(panel) if _is_horizontal(panel, cell) else []
            left = max((GAP_PX + LETTER_PX * len(name) for name in names), default=NUMBERS_PX)
            width = cell - left - RIGHT_PX
            axes = axes_at(figure, column * cell + left, top_px + ABOVE_PX, width, _body_px(panel, cell))
            title, middle = one_line(panel.title, cell // TITLE_LETTER_PX), (cell / 2 - left) / width
            axes.set_title(title, x=middle, fontsize=9, parse_math=False)
            _draw(axes, panel, bool(names))
        top_px += _row_height_px(row, cell)


def _rows(panels: Sequence[Panel], width_px: int) -> list[Sequence[Panel]]:
    across = _across(panels, width_px)
    return [panels[first : first + across] for first in range(0, len(panels), across)]


def _across(panels: Sequence[Panel], width_px: int) -> int:
    """How many stand side by side."""
    rows = max(1, -(-len(panels) // (width_px // NARROWEST_PX)))
    return max(2, -(-len(panels) // rows))


def _row_height_px(row: Sequence[Panel], cell_px: int) -> int:
    return ABOVE_PX + max(_body_px(panel, cell_px) for panel in row) + BELOW_PX


def _body_px(panel: Panel, cell_px: int) -> int:
    return max(HEIGHT_PX, BAR_PX * len(panel.bars) if _is_horizontal(panel, cell_px) else 0)


def _is_horizontal(panel: Panel, cell_px: int) -> bool:
    """Whether the bars' names are too many or too long to stand side by side."""
    letters = max(map(len, _names(panel)), default=0) + 1
    return max(len(panel.bars), LEAST_BARS) * letters * LETTER_PX > cell_px - NUMBERS_PX - RIGHT_PX


def _names(panel: Panel) -> list[str]:
    return [] if panel.bin_width else [one_line(name, NAME_LETTERS) for name in panel.bars]


def _draw(axes: Axes, panel: Panel, is_horizontal: bool):
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7, labelfontfamily=SMALL["family"])
    if not len(panel.bars):
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "nothing is known", ha="center", transform=axes.transAxes, **SMALL)
        return
    bars = _stack_bars(axes, panel, is_horizontal)
    _limit_bars(axes, panel, is_horizontal)
    _number_heights(axes.xaxis if is_horizontal else axes.yaxis, panel)
    if panel.bin_width:
        axes.set_xlabel(panel.unit, labelpad=2, **SMALL)
        axes.xaxis.set_major_locator(MaxNLocator(**WHOLE))
    elif len(panel.series) > 1:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 2.5, "frameon": False}
        axes.legend(fontsize=7, ncols=len(panel.series), handlelength=1, columnspacing=1, **place)
    else:
        axes.bar_label(bars, fmt="{:.2f}" if "share" in panel.series else "{:,.0f}", fontsize=7, padding=2)


def _stack_bars(axes: Axes, panel: Panel, is_horizontal: bool) -> BarContainer:
    """Draw the series on top of one another; the bars of the last."""
    draw, start = (axes.barh, "left") if is_horizontal else (axes.bar, "bottom")
    base = np.zeros(len(panel.bars))
    for name, heights in panel.series.items():
        style = {"label": name, "color": COLOURS.get(name, OTHER_COLOUR), "edgecolor": "white", "linewidth": 0.5}
        bars = draw(_middles(panel), heights, panel.bin_width or 0.8, **{start: base}, **style)
        base = base + heights
    return bars


def _middles(panel: Panel) -> np.ndarray:
    """Where the bars stand; a bin of one whole number stands on it."""
    if not panel.bin_width:
        return np.arange(len(panel.bars))
    return np.asarray(panel.bars) + (panel.bin_width / 2 if panel.bin_width > 1 else 0)


def _limit_bars(axes: Axes, panel: Panel, is_horizontal: bool):
    middles = _middles(panel)
    reach = (panel.bin_width or 1) * max(len(middles), LEAST_BARS) / 2
    low, high = middles.mean() - reach, middles.mean() + reach
    if is_horizontal:
        axes.set_ylim(high, low)  # The first bar on top.
        axes.set_yticks(middles, _names(panel), parse_math=False)
        return
    axes.set_xlim(low, high)
    if not panel.bin_width:
        axes.set_xticks(middles, _names(panel), parse_math=False)


def _number_heights(axis: Axis, panel: Panel):
    """Shares from 0 to 1, or whole numbers from 0 on."""
    is_share = "share" in panel.series
    highest = 1 if is_share else max(1, sum(panel.series.values()).max())
    limits = (0.5 if panel.is_log else 0, ROOM * highest)
    if panel.is_log:
        axis.axes.set_yscale("log")
    elif not is_share:
        axis.set_major_locator(MaxNLocator(nbins=5, **WHOLE))
    axis.set_major_formatter(StrMethodFormatter("{x:.1f}" if is_share else "{x:,.0f}"))
    axis.axes.set(**{"xlim" if axis.axis_name == "x" else "ylim": limits})
