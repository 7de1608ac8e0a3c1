"""Curves of the probes: verification over all thresholds, scores over the epochs."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.metrics import auc

from .picture_style import GREY, LOOKS, add_legend, looks, new_figure, one_line, plain, rendered

RATES = (1e-2, 1e-3)
LEAST_RATE = 1e-4
WIDTH_PX, HEIGHT_PX, LEGEND_LINE_PX = 900, 400, 17
NAME_LETTERS = 48
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
    figure = new_figure(WIDTH_PX, HEIGHT_PX + LEGEND_LINE_PX * len(rates), title)
    logarithmic, linear = figure.subplots(1, 2)
    lowest = min(false[false > 0].min(initial=1) for false, _ in rates.values())
    # Few pairs or a perfect curve leave room for the marks all the same.
    logarithmic.set(xscale="log", xlim=(max(LEAST_RATE, min(RATES[-1] / 2, lowest)), 1))
    linear.set(xlim=(0, 1))
    for axes in (logarithmic, linear):
        lines = [
            _draw_curve(axes, *rates[name], colour, marker) for name, (colour, marker) in looks(list(rates)).items()
        ]
        lines += _dress(axes)
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
    reads = ", ".join(f"{_true_accept_rate(false, true, rate):.3f} at {rate:g}" for rate in RATES)
    return f"AUC {auc(false, true):.3f}; true accept rate {reads}"


def _draw_curve(axes: Axes, false: np.ndarray, true: np.ndarray, colour: str, marker: str):
    marks = [_true_accept_rate(false, true, rate) for rate in RATES]
    style = {"color": colour, "marker": marker, "markersize": 6, "markeredgecolor": "white"}
    axes.plot(RATES, marks, linestyle="", clip_on=False, zorder=3, **style)
    axes.plot(false, true, color=colour, linewidth=1.6, drawstyle="steps-post")
    return axes.plot([], [], linewidth=1.6, **style)[0]


def _dress(axes: Axes) -> list:
    """Everything but the curves; returns the chance line."""
    everywhere = np.geomspace(LEAST_RATE / 10, 1, 200)  # A straight line is bent on a logarithmic axis.
    for rate in RATES:
        axes.axvline(rate, color=GREY, linewidth=0.6, linestyle=":")
    axes.set(ylim=(0, 1.01))
    axes.set_xlabel("false accept rate", fontsize=9)
    axes.set_ylabel("true accept rate", fontsize=9)
    plain(axes)
    return axes.plot(everywhere, everywhere, color=GREY, linewidth=1, linestyle="--")


def draw_histories(
    histories: Mapping[str, Sequence[float]], chosen: tuple[str, int], title: str, ylabel: str
) -> Image.Image:
    """Draw the score after every epoch for each candidate, and which was chosen.

    Args:
        histories: By candidate, a score an epoch, `(epochs,)`; what is not finite is left out.
        chosen: Candidate and epoch, from 1.
        title: Written above.
        ylabel: What is measured.

    Raises:
        ValueError: If `chosen` is not in `histories`.
    """
    candidate, epoch = chosen
    if not 1 <= epoch <= len(histories.get(candidate, ())):
        raise ValueError(f"`chosen` must be a candidate of `histories` and one of its epochs, from 1, got {chosen}.")
    figure = new_figure(WIDTH_PX, HEIGHT_PX, title)
    axes, lines = figure.subplots(), []
    for place, (name, scores) in enumerate(histories.items()):
        style = {"linestyle": LINE_STYLES[place // len(LOOKS) % len(LINE_STYLES)], "linewidth": 1.4}
        style |= {"marker": "."} if len(scores) == 1 else {}  # A line needs two points.
        lines += axes.plot(range(1, len(scores) + 1), scores, color=LOOKS[place % len(LOOKS)][0], **style)
    score = histories[candidate][epoch - 1]
    colour = lines[list(histories).index(candidate)].get_color()
    style = {"markersize": 15, "color": colour, "markeredgecolor": "black", "zorder": 3, "clip_on": False}
    lines += axes.plot(epoch, score, "*", **style)
    words = f"chosen: {one_line(candidate, NAME_LETTERS)}, epoch {epoch}, {score:.3f}"
    labels = [*(one_line(name, NAME_LETTERS) for name in histories), words]
    add_legend(figure, lines, labels, loc="outside lower center", ncols=1 if max(map(len, labels)) > 40 else 3)
    axes.set_xlabel("epoch", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(one_line(ylabel, 50), fontsize=9, parse_math=False)
    plain(axes)
    return rendered(figure)
