"""Models side by side, measure by measure."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from .picture_style import add_legend, broken_into_lines, is_known, looks, new_figure, one_line, plain, rendered

DIRECTIONS = {"higher is better": max, "lower is better": min}
BASELINE = "random"  # How the names of models that were not trained begin.
MOST_ACROSS = 3
PANEL_PX, NAMES_PX, ROW_PX, AROUND_PX, LEGEND_PX = 310, 170, 44, 80, 40
NAME_LETTERS, TITLE_LETTERS, FEATURE_LETTERS = 32, 38, 20
SPREAD = 0.25  # From the middle of a row, to both sides, in rows.
BASELINE_COLOUR = "#606060"

Row = Mapping[str, tuple[float, float | None] | None]


def draw_comparison(table: Mapping[str, Mapping[str, Row]], directions: Mapping[str, str]) -> Image.Image:
    """Draw what every feature of every model reaches in each measure.

    Args:
        table: By measure, model and feature: mean and spread, in the measure's unit. A feature or model that is left
            out, or a mean that is None or NaN, leaves its place empty; a spread that is None or NaN has no whisker.
            Models stand in the order in which they are first named.
        directions: By measure: `"higher is better"` or `"lower is better"`.

    Returns:
        An RGB picture: a panel a measure, a row a model, a dot with a whisker of the spread to both sides a feature.
        The dashed line is the best mean of models whose name begins with "random".

    Raises:
        ValueError: If there are no measures or models, or a measure has no direction.
    """
    models = list(dict.fromkeys(model for rows in table.values() for model in rows))
    if not models:
        raise ValueError("`table` must hold at least one measure of one model, got none.")
    for measure in table:
        if directions.get(measure) not in DIRECTIONS:
            expected = " or ".join(map(repr, DIRECTIONS))
            raise ValueError(f"`directions` must be {expected} for `{measure}`, got {directions.get(measure)!r}.")
    features = looks(dict.fromkeys(feature for rows in table.values() for row in rows.values() for feature in row))
    down = math.ceil(len(table) / MOST_ACROSS)
    across = math.ceil(len(table) / down)
    height = down * (ROW_PX * len(models) + AROUND_PX) + LEGEND_PX
    figure = new_figure(NAMES_PX + across * PANEL_PX, height)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    baseline = None
    for place, (axes, (measure, rows)) in enumerate(zip(grid, table.items())):
        known = {model: _known(rows.get(model, {})) for model in models}
        _lay_rows(axes, models)
        _draw_dots(axes, known, features)
        baseline = _draw_baseline(axes, known, DIRECTIONS[directions[measure]]) or baseline
        title = f"{broken_into_lines(measure, TITLE_LETTERS)}\n{directions[measure]}"
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.tick_params(labelleft=place % across == 0)
    for axes in grid[len(table) :]:
        axes.remove()
    _explain(figure, features, baseline)
    return rendered(figure)


def _known(row: Row) -> Row:
    """What of a row there is to draw."""
    return {feature: pair for feature, pair in row.items() if pair is not None and is_known(pair[0])}


def _lay_rows(axes: Axes, models: Sequence[str]):
    plain(axes)
    for place in range(0, len(models), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="#f3f3f3", linewidth=0)
    axes.set_ylim(len(models) - 0.5, -0.5)  # The first model on top.
    axes.set_yticks(range(len(models)), [one_line(name, NAME_LETTERS) for name in models], parse_math=False)
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(axis="x", color="#e0e0e0", linewidth=0.7)
    axes.set_axisbelow(True)


def _draw_dots(axes: Axes, rows: Mapping[str, Row], features: Mapping[str, tuple[str, str]]):
    shifts = np.linspace(-SPREAD, SPREAD, len(features)) if len(features) > 1 else [0]
    for shift, (feature, (colour, marker)) in zip(shifts, features.items()):
        style = {"fmt": marker, "color": colour, "markersize": 6, "capsize": 2.5, "label": feature}
        for place, row in enumerate(rows.values()):
            if feature in row:
                mean, spread = row[feature]
                axes.errorbar(mean, place + shift, xerr=spread if is_known(spread) else None, **style)


def _draw_baseline(axes: Axes, rows: Mapping[str, Row], best_of) -> Line2D | None:
    """Draw the line of the best model that was not trained, if there is one."""
    baselines = [row for model, row in rows.items() if model.lower().startswith(BASELINE)]
    means = [mean for row in baselines for mean, _ in row.values()]
    if not means:
        return None
    return axes.axvline(best_of(means), color=BASELINE_COLOUR, linewidth=1.2, linestyle="--", zorder=1.5)


def _explain(figure: Figure, features: Mapping[str, tuple[str, str]], baseline: Line2D | None):
    handles = [Line2D([], [], color=colour, marker=marker, markersize=6) for colour, marker in features.values()]
    labels = [one_line(name, FEATURE_LETTERS) for name in features]
    if baseline is not None:
        handles, labels = [*handles, baseline], [*labels, "best of random initialisation"]
    add_legend(figure, handles, labels, loc="outside lower center", ncols=4)
