"""Curves of the probes: verification over all thresholds, scores over the epochs."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.metrics import auc

from .picture_style import GREY, LOOKS, add_legend, looks, new_figure, one_line, plain, rendered

RATES = (1e-2, 1e-3)
LEAST_RATE = 1e-4
WIDTH_PX, HEIGHT_PX, LINE_PX = 900, 390, 17
NAME_LETTERS, YLABEL_LETTERS = 40, 50
LINE_STYLES = ("-", "--", ":", "-.")


def draw_roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Image.Image:
    """Draw the true over the false accept rate, on a logarithmic and on a linear axis.

    Args:
        curves: By name, false and true accept rates, each `(thresholds,)` in [0, 1], neither falling, from a false
            accept rate of 0 on.
        title: Written above.

    Returns:
        An RGB picture. Nothing is interpolated: at each false accept rate the curves and the marks at 1e-2 and 1e-3
        show the largest true accept rate of all thresholds with at most that rate. The logarithmic axis begins at the
        lowest rate above 0, or at 1e-4. The area under a curve takes straight lines between thresholds.

    Raises:
        ValueError: If there are no curves, or one's rates are not as above.
    """
    if not curves:
        raise ValueError("`curves` must hold at least one curve, got none.")
    rates = {name: _checked(name, *curve) for name, curve in curves.items()}
    figure = new_figure(WIDTH_PX, HEIGHT_PX + LINE_PX * len(rates), title)
    logarithmic, linear = figure.subplots(1, 2)
    lowest = min(false[false > 0].min(initial=1) for false, _ in rates.values())
    # A mark has room also where pairs are few or a curve is perfect.
    logarithmic.set(xscale="log", xlim=(max(LEAST_RATE, min(min(RATES) / 2, lowest)), 1))
    linear.set_xlim(0, 1)
    drawn = list(zip(rates.values(), looks(rates).values()))
    for axes in (logarithmic, linear):
        lines = [_draw_curve(axes, *curve, *look, place) for place, (curve, look) in enumerate(drawn)]
        lines.append(_draw_chance(axes))
    labels = [f"{one_line(name, NAME_LETTERS)}: {_summary(*curve)}" for name, curve in rates.items()]
    add_legend(figure, lines, [*labels, "chance"], loc="outside lower center")
    return rendered(figure)


def _checked(name: str, false, true) -> tuple[np.ndarray, np.ndarray]:
    false, true = np.asarray(false, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if false.ndim != 1 or false.shape != true.shape or len(false) < 2:
        raise ValueError(
            f"`curves` must hold two rates for each of at least 2 thresholds; `{name}` has shapes {false.shape} and "
            f"{true.shape}."
        )
    is_rising = all((np.diff(values) >= 0).all() and values[0] >= 0 and values[-1] <= 1 for values in (false, true))
    if not is_rising or false[0] > 0:
        raise ValueError(f"`curves` must rise from a false accept rate of 0, in [0, 1]; `{name}` does not.")
    return false, true


def _true_accept_rate(false: np.ndarray, true: np.ndarray, rate: float) -> float:
    return true[false <= rate].max()


def _summary(false: np.ndarray, true: np.ndarray) -> str:
    reads = ", ".join(f"{_true_accept_rate(false, true, rate):.3f} at FAR {rate:g}" for rate in RATES)
    return f"AUC {auc(false, true):.3f}, TAR {reads}"


def _draw_curve(axes: Axes, false: np.ndarray, true: np.ndarray, colour: str, marker: str, place: int) -> Line2D:
    """Draw a curve, with marks on a logarithmic axis only, where they stand apart; returns what the legend shows."""
    line = {"linewidth": 1.6, "linestyle": _dashes(place)}
    axes.plot(false, true, color=colour, drawstyle="steps-post", **line)
    style = {"color": colour, "marker": marker, "markersize": 6, "markeredgecolor": "white"}
    if axes.get_xscale() == "log":
        marks = [_true_accept_rate(false, true, rate) for rate in RATES]
        axes.plot(RATES, marks, linestyle="", clip_on=False, zorder=3, **style)
    return Line2D([], [], **line, **style)


def _dashes(place: int) -> str:
    """How the line at this place is broken: differently where colours begin anew."""
    return LINE_STYLES[place // len(LOOKS) % len(LINE_STYLES)]


def _draw_chance(axes: Axes) -> Line2D:
    """Draw the chance line and what belongs to all curves."""
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("false accept rate (FAR)", fontsize=9)
    axes.set_ylabel("true accept rate (TAR)", fontsize=9)
    plain(axes)
    if axes.get_xscale() == "log":
        for rate in RATES:
            axes.axvline(rate, color=GREY, linewidth=0.6, linestyle=":")
    everywhere = np.geomspace(LEAST_RATE, 1, 200)  # A straight line is bent on a logarithmic axis.
    return axes.plot(everywhere, everywhere, color=GREY, linewidth=1, linestyle="--")[0]


def draw_histories(
    histories: Mapping[str, Sequence[float]], chosen: tuple[str, int], title: str, ylabel: str
) -> Image.Image:
    """Draw the score after every epoch for each candidate, and which was chosen.

    Args:
        histories: By candidate, a score an epoch, `(epochs,)`; what is not finite is left out.
        chosen: Candidate and epoch, from 1.
        title: Written above.
        ylabel: What is measured.

    Returns:
        An RGB picture: a curve a candidate, a star where the choice fell.

    Raises:
        ValueError: If `chosen` is not in `histories`.
    """
    candidate, epoch = chosen
    if not 1 <= epoch <= len(histories.get(candidate, ())):
        raise ValueError(f"`chosen` must be a candidate of `histories` and one of its epochs, from 1, got {chosen}.")
    figure = new_figure(WIDTH_PX, max(HEIGHT_PX, LINE_PX * (len(histories) + 6)), title)
    axes = figure.subplots()
    lines = {name: _draw_history(axes, scores, place) for place, (name, scores) in enumerate(histories.items())}
    score = histories[candidate][epoch - 1]
    style = {"markersize": 14, "color": lines[candidate].get_color(), "markeredgecolor": "black"}
    star = axes.plot(epoch, score, "*", zorder=3, clip_on=False, **style)[0]
    words = f"chosen: {one_line(candidate, NAME_LETTERS)},\nepoch {epoch}, {score:.3f}"
    labels = [*(one_line(name, NAME_LETTERS) for name in histories), words]
    add_legend(figure, [*lines.values(), star], labels, loc="outside right upper")
    axes.set_xlim(0.5, max(map(len, histories.values())) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel(one_line(ylabel, YLABEL_LETTERS), fontsize=9, parse_math=False)
    plain(axes)
    return rendered(figure)


def _draw_history(axes: Axes, scores: Sequence[float], place: int) -> Line2D:
    style = {"color": LOOKS[place % len(LOOKS)][0], "linestyle": _dashes(place), "linewidth": 1.4}
    style["marker"] = "." if len(scores) == 1 else None  # A line needs two points.
    return axes.plot(range(1, len(scores) + 1), scores, **style)[0]
