"""Models side by side, measure by measure."""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from .picture_style import GREY, add_legend, broken_into_lines, looks, new_figure, one_line, plain, rendered

DIRECTIONS = {"higher is better": max, "lower is better": min}
BASELINE = "random"  # How the names of models that were not trained begin.
MOST_ACROSS = 3
PANEL_PX, NAMES_PX, ROW_PX, AROUND_PX, LEGEND_PX = 310, 170, 44, 80, 40
NAME_LETTERS, TITLE_LETTERS, FEATURE_LETTERS = 32, 38, 20
SPREAD = 0.5  # Of a row's height, over which its features lie.

Rows = Mapping[str, Mapping[str, tuple[float, float]]]


def draw_comparison(table: Mapping[str, Rows], directions: Mapping[str, str]) -> Image.Image:
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
            raise ValueError(
                f"`directions` must say {' or '.join(map(repr, DIRECTIONS))} of `{measure}`, got "
                f"{directions.get(measure)!r}."
            )
    features = looks(list(dict.fromkeys(name for rows in table.values() for row in rows.values() for name in row)))
    down = math.ceil(len(table) / MOST_ACROSS)
    across = math.ceil(len(table) / down)
    height = down * (ROW_PX * len(models) + AROUND_PX) + LEGEND_PX
    figure = new_figure(NAMES_PX + across * PANEL_PX, height)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for place, (axes, (measure, rows)) in enumerate(zip(grid, table.items())):
        _draw_measure(axes, rows, models, features, DIRECTIONS[directions[measure]])
        title = broken_into_lines(measure, TITLE_LETTERS) + f"\n{directions[measure]}"
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.tick_params(labelleft=place % across == 0)
    for axes in grid[len(table) :]:
        axes.remove()
    _explain(figure, features)
    return rendered(figure)


def _draw_measure(axes: Axes, rows: Rows, models: list[str], features: Mapping[str, tuple[str, str]], best_of):
    for place in range(0, len(models), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="#f3f3f3", linewidth=0)
    step = SPREAD / max(1, len(features) - 1)
    for offset, (feature, (colour, marker)) in enumerate(features.items()):
        shift = offset * step - SPREAD / 2 if len(features) > 1 else 0
        for place, model in enumerate(models):
            mean, spread = rows.get(model, {}).get(feature) or (None, None)
            if _is_known(mean):
                whisker = spread if _is_known(spread) else None
                axes.errorbar(mean, place + shift, xerr=whisker, fmt=marker, color=colour, markersize=6, capsize=2.5)
    baselines = [
        pair[0]
        for model, row in rows.items()
        for pair in row.values()
        if model.lower().startswith(BASELINE) and pair and _is_known(pair[0])
    ]
    if baselines:
        axes.axvline(best_of(baselines), color=GREY, linewidth=1.2, linestyle="--", zorder=1)
    axes.set_ylim(len(models) - 0.5, -0.5)  # The first model on top.
    axes.set_yticks(range(len(models)), [one_line(name, NAME_LETTERS) for name in models], parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    plain(axes)
    axes.tick_params(axis="y", length=0, labelsize=9)


def _is_known(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def _explain(figure, features: Mapping[str, tuple[str, str]]):
    handles = [Line2D([], [], color=colour, marker=marker, markersize=6) for colour, marker in features.values()]
    handles.append(Line2D([], [], color=GREY, linewidth=1.2, linestyle="--"))
    labels = [*(one_line(name, FEATURE_LETTERS) for name in features), "best of random initialisation"]
    add_legend(figure, handles, labels, loc="outside lower center", ncols=4)
