"""The results of one probe in pictures: classes, head poses, action units."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from PIL import Image

from .picture_style import FEATURES, GREY, broken_into_lines, new_figure, one_line, plain, rendered

ANGLES = ("yaw", "pitch", "roll")
NAME_LETTERS, NAME_LETTER_PX = 32, 8
CELL_PX, LEAST_CELL_PX, TABLE_PX = 110, 46, 540
DARK = 0.55  # Row share from which a cell is so dark that its numbers are white.
PANEL_PX, BAR_PX, CHART_WIDTH_PX, CHART_HEIGHT_PX = 320, 48, 420, 320
INK = 400  # Points of full strength; more of them are paler, so that their density shows.
COLOUR = FEATURES["trunk"][0]


def draw_confusion(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Image.Image:
    """Draw how the images of each class were classified.

    Args:
        counts: Images by labelled class (rows) and predicted class (columns), `(classes, classes)`, at least 0.
        names: Of the classes, `(classes,)`.
        title: Written above.

    Returns:
        An RGB picture. A cell's colour and its per cent are shares of its row; a row without images is blank.

    Raises:
        ValueError: If there are no names, or `counts` has not a row and a column for each.
    """
    table, classes = np.asarray(counts), len(names)
    if not classes or table.shape != (classes, classes):
        raise ValueError(
            f"`counts` must have a row and a column for each of the {classes} `names`, got shape {table.shape}."
        )
    totals = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, totals, out=np.full(table.shape, np.nan), where=totals > 0)
    side = classes * max(LEAST_CELL_PX, min(CELL_PX, TABLE_PX / classes))
    figure = new_figure(side, side)
    figure.set_layout_engine("none")  # The table has a fixed size; words stand around it.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        if totals[row]:
            colour = "white" if share >= DARK else "black" if table[row, column] else GREY
            words = f"{share:.0%}\n{table[row, column]:,}"
            axes.text(column, row, words, ha="center", va="center", fontsize=8, color=colour)
    _name_columns(axes, names, side / classes)
    axes.set_yticks(range(classes), [one_line(name, NAME_LETTERS) for name in names], parse_math=False)
    axes.set_xlabel("predicted", fontsize=10)
    axes.set_ylabel("labelled", fontsize=10)
    axes.tick_params(labelsize=9, length=0)
    axes.set_title(broken_into_lines(title, max(40, int(side / 8))), fontsize=11, pad=12, parse_math=False)
    return rendered(figure)


def _name_columns(axes: Axes, names: Sequence[str], column_px: float):
    """Write names below columns, slanted if one is wider than its column."""
    names = [one_line(name, NAME_LETTERS) for name in names]
    is_tight = NAME_LETTER_PX * max(map(len, names)) > column_px
    slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if is_tight else {}
    axes.set_xticks(range(len(names)), names, parse_math=False, **slant)


def draw_pose_errors(predictions: np.ndarray, references: np.ndarray, title: str) -> Image.Image:
    """Draw predicted over labelled yaw, pitch and roll, with the mean absolute error of each.

    Args:
        predictions: Yaw, pitch, roll, in degrees, `(images, 3)`.
        references: The labels, `(images, 3)`, rows paired with `predictions`.
        title: Written above.

    Returns:
        An RGB picture: a panel an angle, with the same numbers along both axes; a right prediction is on the diagonal.

    Raises:
        ValueError: If the shapes differ or are not `(images, 3)` with at least one image, or a value is not finite.
    """
    predicted, labelled = (np.asarray(values, dtype=np.float64) for values in (predictions, references))
    if predicted.shape != labelled.shape or predicted.shape[1:] != (3,) or not len(predicted):
        raise ValueError(
            "`predictions` and `references` must both be `(images, 3)` with at least one image, got "
            f"{predicted.shape} and {labelled.shape}."
        )
    if not (np.isfinite(predicted).all() and np.isfinite(labelled).all()):
        raise ValueError("`predictions` and `references` must be finite angles; leave other images out.")
    figure = new_figure(3 * PANEL_PX, PANEL_PX + 25, title)
    for axes, angle, labels, values in zip(figure.subplots(1, 3), ANGLES, labelled.T, predicted.T):
        _draw_angle(axes, angle, labels, values)
    return rendered(figure)


def _draw_angle(axes: Axes, angle: str, labels: np.ndarray, values: np.ndarray):
    low, high = min(labels.min(), values.min()), max(labels.max(), values.max())
    room = 0.05 * (high - low) + 1
    limits = (low - room, high + room)
    axes.axline((0, 0), slope=1, color="black", linewidth=1, linestyle="--", zorder=3)
    alpha = max(0.03, min(0.6, INK / len(labels)))
    axes.scatter(labels, values, s=10, color=COLOUR, alpha=alpha, linewidths=0)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_title(f"{angle}: mean absolute error {np.abs(values - labels).mean():.2f}°", fontsize=10)
    axes.set_xlabel("labelled, degrees", fontsize=9)
    axes.set_ylabel("predicted, degrees", fontsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 3, 5, 10]))
    plain(axes)


def draw_unit_scores(scores: Mapping[str, float | None], title: str, ylabel: str) -> Image.Image:
    """Draw the score of each action unit, and their mean.

    Args:
        scores: By unit, in [0, 1]; None where the unit has no F1.
        title: Written above.
        ylabel: What is measured.

    Returns:
        An RGB picture: a bar a unit; the dashed line is the mean over those that have a score.

    Raises:
        ValueError: If there are no units, or a score is outside [0, 1].
    """
    known = [score for score in scores.values() if score is not None]
    if not scores or not all(0 <= score <= 1 for score in known):
        raise ValueError(f"`scores` must name at least one unit and be in [0, 1] or None, got {dict(scores)}.")
    figure = new_figure(max(CHART_WIDTH_PX, BAR_PX * len(scores) + 80), CHART_HEIGHT_PX, title)
    axes = figure.subplots()
    outline = [withStroke(linewidth=2, foreground="white")]  # The mean's line may pass behind a number.
    axes.bar(range(len(scores)), [score or 0 for score in scores.values()], 0.75, color=COLOUR)
    for place, score in enumerate(scores.values()):
        height, words, colour = (0, "no F1", GREY) if score is None else (score, f"{score:.2f}", "black")
        style = {"ha": "center", "fontsize": 8, "color": colour, "path_effects": outline}
        axes.annotate(words, (place, height), (0, 3), textcoords="offset points", **style)
    if known:
        mean = np.mean(known)
        axes.axhline(mean, color="black", linewidth=1, linestyle="--")
        beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"mean {mean:.3f}", (1, mean), (4, 0), fontsize=8, **beside)
    _name_columns(axes, list(scores), BAR_PX)
    axes.set(xlim=(-0.6, len(scores) - 0.4), ylim=(0, 1.08), yticks=np.linspace(0, 1, 6))
    axes.set_ylabel(one_line(ylabel, 40), fontsize=9, parse_math=False)
    plain(axes)
    return rendered(figure)
