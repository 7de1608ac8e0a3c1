"""Charts that compare models, and charts of what each branch of a model contains."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.lines import Line2D
from PIL import Image

from . import style

DIRECTIONS = {"higher is better": max, "lower is better": min, "neither is better": None}
BASELINE = "random"  # Prefix of the names of models that were not trained.
MIRRORING = "how far mirroring moves it"
MOST_ACROSS = 3

Row = Mapping[str, tuple[float, float | None] | None]


def draw_comparison(table: Mapping[str, Mapping[str, Row]], directions: Mapping[str, str]) -> Image.Image:
    """Draw the scores of all features of all models, with one panel per measure.

    Args:
        table: Mean and spread by measure, model and feature. Entries that are missing, None or NaN are not drawn; a
            spread that is None or NaN has no whisker.
        directions: One of `DIRECTIONS` for each measure.

    Returns:
        Picture with a row per model and a dot per feature, whose whisker shows the spread to both sides. The dashed
        line is the best mean of the models whose names begin with "random".
    """
    models = list(dict.fromkeys(model for rows in table.values() for model in rows))
    looks = style.choose_looks(dict.fromkeys(name for rows in table.values() for row in rows.values() for name in row))
    down = math.ceil(len(table) / MOST_ACROSS)
    across = math.ceil(len(table) / down)
    figure = style.new_figure(170 + across * 310, down * (44 * len(models) + 80) + 40)
    shifts = dict(zip(looks, np.linspace(-0.25, 0.25, len(looks)) if len(looks) > 1 else [0]))
    for axes, (measure, rows) in zip(style.add_grid(figure, len(table), across, sharey=True), table.items()):
        baselines = []
        for place, model in enumerate(models):
            pairs = {name: pair for name, pair in rows.get(model, {}).items() if pair and style.is_known(pair[0])}
            for name, (mean, spread) in pairs.items():
                look = {"color": looks[name][0], "fmt": looks[name][1], "markersize": 6, "capsize": 2.5}
                axes.errorbar(mean, place + shifts[name], xerr=spread if style.is_known(spread) else None, **look)
            if model.lower().startswith(BASELINE):
                baselines += [mean for mean, _ in pairs.values()]
        best = DIRECTIONS[directions[measure]]
        if baselines and best:
            axes.axvline(best(baselines), color=style.GREY, linewidth=1.2, linestyle="--")
        axes.set_title(f"{style.wrap_text(measure, 38)}\n{directions[measure]}", fontsize=9, parse_math=False)
        style.name_ticks(axes.yaxis, models)
        axes.set_ylim(len(models) - 0.5, -0.5)  # Reversed, so that the first model is at the top.
        axes.grid(axis="x", alpha=0.4)
        style.tidy_axes(axes)
    handles = [Line2D([], [], color=colour, marker=marker) for colour, marker in looks.values()]
    handles.append(Line2D([], [], color=style.GREY, linestyle="--"))
    labels = [*(style.one_line(name, 20) for name in looks), "best of random initialisation"]
    style.add_legend(figure, handles, labels, loc="outside lower center", ncols=5)
    return style.render_figure(figure)


def draw_leakage(
    readings: Mapping[str, Mapping[str, float | None]],
    mirror: Mapping[str, float | None],
    swaps: Image.Image | None,
    title: str,
) -> Image.Image:
    """Draw how well labels are predicted from each feature, how far mirroring moves each feature, and swapped faces.

    Args:
        readings: Scores by measure and feature. A value that is None or NaN is marked as missing.
        mirror: Distance by which mirroring the image moves each feature, in any unit.
        swaps: Picture of swapped faces to put below the charts; None leaves it out.
        title: Title of the picture.
    """
    panels = {**readings, MIRRORING: mirror}
    looks = style.choose_looks(dict.fromkeys(feature for values in panels.values() for feature in values))
    figure = style.new_figure(250 * len(panels), 320, title)
    for axes, (measure, values) in zip(style.add_grid(figure, len(panels), len(panels)), panels.items()):
        style.draw_bars(axes, values, [looks[feature][0] for feature in values], ".3f", missing="missing")
        axes.set_title(style.wrap_text(measure, 30), fontsize=10, parse_math=False)
        axes.axhline(0, color=style.GREY, linewidth=0.8)
        axes.margins(y=0.15)
    charts = style.render_figure(figure)
    if swaps is None:
        return charts
    height = round(swaps.height * charts.width / swaps.width)
    return style.stack_pictures([charts, swaps.resize((charts.width, height), Image.Resampling.LANCZOS)])
