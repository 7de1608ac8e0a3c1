"""Charts of a probe's results: confusion matrix, errors of numbers, action units, ROC curves and score histories."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay, auc

from . import style

COLOUR = style.FEATURE_LOOKS["trunk"][0]
FALSE_ACCEPT_RATES = (1e-2, 1e-3)  # At which the true accept rate is written.
LEAST_RATE = 1e-4  # Left end of the logarithmic axis.


def draw_confusion(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Image.Image:
    """Draw a confusion matrix, normalised for each labelled class.

    Args:
        counts: Number of images by labelled class (rows) and predicted class (columns), `(classes, classes)`.
        names: Names of the classes, `(classes,)`.
        title: Title of the picture.
    """
    table, classes = np.asarray(counts), len(names)
    totals = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, totals, out=np.zeros(table.shape), where=totals > 0)
    side = 260 + classes * max(46, min(110, 540 // classes))
    figure = style.new_figure(side, side, title)
    axes = figure.subplots()
    ConfusionMatrixDisplay(shares).plot(ax=axes, cmap="Blues", values_format=".0%", colorbar=False)
    style.name_ticks(axes.xaxis, names, **({"rotation": 45, "ha": "right"} if max(map(len, names)) > 8 else {}))
    names_with_counts = [f"{style.one_line(name)} ({n:,})" for name, n in zip(names, totals[:, 0])]
    style.name_ticks(axes.yaxis, names_with_counts, letters=2 * style.NAME_LETTERS)
    axes.set(xlabel="predicted", ylabel="labelled (images)")
    axes.images[0].set_clim(0, 1)
    return style.render_figure(figure)


def draw_errors(
    predictions: np.ndarray, references: np.ndarray, names: Sequence[str], title: str, unit: str = ""
) -> Image.Image:
    """Draw predicted against labelled numbers, with the mean absolute error of each number.

    Args:
        predictions: `(images, numbers)`, of at least one image, finite.
        references: Labels, of the same shape, rows paired with `predictions`, finite.
        names: Names of the numbers, such as the angles of head pose or `age`.
        title: Title of the picture.
        unit: Unit of the numbers, such as `degrees`; empty for none.
    """
    figure = style.new_figure(max(420, 320 * len(names)), 345, title)
    alpha = max(0.03, min(0.6, 400 / len(references)))  # The more points, the paler, so that their density is visible.
    unit_suffix, sign = f", {unit}" if unit else "", "°" if unit == "degrees" else ""
    subplots = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name, labels, values in zip(subplots, names, references.T, predictions.T):
        axes.axline((0, 0), slope=1, color="black", linewidth=1, linestyle="--")
        axes.scatter(labels, values, s=10, color=COLOUR, alpha=alpha, linewidths=0)
        limits = min(labels.min(), values.min()) - 1, max(labels.max(), values.max()) + 1
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.set(xlabel=f"labelled{unit_suffix}", ylabel=f"predicted{unit_suffix}")
        error = np.abs(values - labels).mean()
        axes.set_title(f"{style.one_line(name)}: mean absolute error {error:.2f}{sign}", fontsize=10)
        style.tidy_axes(axes)
    return style.render_figure(figure)


def draw_unit_scores(scores: Mapping[str, float | None], title: str, ylabel: str) -> Image.Image:
    """Draw the score of each action unit, and the mean of the scores as a dashed line.

    Args:
        scores: Score of each unit, in [0, 1]; None if F1 is not defined for the unit.
        title: Title of the picture.
        ylabel: Name of the score.
    """
    known_scores = [score for score in scores.values() if score is not None]
    figure = style.new_figure(max(420, 48 * len(scores) + 80), 320, title)
    axes = figure.subplots()
    style.draw_bars(axes, scores, COLOUR, ".2f", missing="no F1")
    if known_scores:
        axes.axhline(np.mean(known_scores), color="black", linewidth=1, linestyle="--")
        axes.set_title(f"mean {np.mean(known_scores):.3f}", fontsize=9)
    axes.set(ylim=(0, 1.08), ylabel=ylabel)
    return style.render_figure(figure)


def draw_roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Image.Image:
    """Draw ROC curves on a logarithmic axis, with AUC and the true accept rates at false accept rates of 1e-2 and 1e-3.

    Args:
        curves: False and true accept rates by name, each `(thresholds,)` in [0, 1] and not decreasing, starting with a
            false accept rate of 0. Curves are not interpolated between thresholds.
        title: Title of the picture.
    """
    figure = style.new_figure(640, 390 + 17 * len(curves), title)
    axes = figure.subplots()
    handles, labels = [], []
    for (name, (false, true)), (colour, _) in zip(curves.items(), style.choose_looks(curves).values()):
        handles += axes.plot(false, true, color=colour, drawstyle="steps-post")
        rates = ", ".join(f"{true[false <= rate].max():.3f} at FAR {rate:g}" for rate in FALSE_ACCEPT_RATES)
        labels.append(f"{style.one_line(name)}: AUC {auc(false, true):.3f}, TAR {rates}")
    diagonal = np.geomspace(LEAST_RATE, 1, 200)  # Many points, because the diagonal is curved on a logarithmic axis.
    handles += axes.plot(diagonal, diagonal, color=style.GREY, linestyle="--")
    for rate in FALSE_ACCEPT_RATES:
        axes.axvline(rate, color=style.GREY, linewidth=0.6, linestyle=":")
    axes.set(xscale="log", xlim=(LEAST_RATE, 1), ylim=(0, 1.01))
    axes.set(xlabel="false accept rate (FAR)", ylabel="true accept rate (TAR)")
    style.tidy_axes(axes)
    style.add_legend(figure, handles, [*labels, "chance"], loc="outside lower center")
    return style.render_figure(figure)


def draw_histories(
    histories: Mapping[str, Sequence[float]], chosen: tuple[str, int], title: str, ylabel: str
) -> Image.Image:
    """Draw the score of each candidate after every epoch, and mark the chosen candidate and epoch with a star.

    Args:
        histories: Scores of each candidate, `(epochs,)`. Scores that are not finite are left out.
        chosen: Chosen candidate and epoch, from 1.
        title: Title of the picture.
        ylabel: Name of the score.
    """
    candidate, epoch = chosen
    figure = style.new_figure(900, max(390, 17 * (len(histories) + 6)), title)
    axes = figure.subplots()
    handles = []
    for place, scores in enumerate(histories.values()):
        colour, _ = style.LOOKS[place % len(style.LOOKS)]
        dashes = ("-", "--", ":", "-.")[place // len(style.LOOKS) % 4]
        marker = "." if len(scores) == 1 else None  # A line of one point would be invisible.
        handles += axes.plot(range(1, len(scores) + 1), scores, color=colour, linestyle=dashes, marker=marker)
    score = histories[candidate][epoch - 1]
    handles += axes.plot(epoch, score, "*", markersize=14, color="white", markeredgecolor="black", zorder=3)
    chosen_label = f"chosen: {style.one_line(candidate)},\nepoch {epoch}, {score:.3f}"
    labels = [*(style.one_line(name) for name in histories), chosen_label]
    style.add_legend(figure, handles, labels, loc="outside right upper")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", ylabel=style.one_line(ylabel, 50))
    style.tidy_axes(axes)
    return style.render_figure(figure)


def draw_learning_curve(rows: Sequence[Mapping[str, str]], feature: str = "trunk") -> Image.Image:
    """Draw scores against the number of images seen in training, with one line per image side.

    Args:
        rows: Rows of a table with `images_seen`, `side`, `feature` and the scores, in the order of training.
        feature: Feature whose scores to draw.
    """
    panels = {
        "expression_accuracy": "expression, accuracy",
        "verification_auc": "verification, AUC",
        "yaw_r2": "yaw, R2",
        "age_mae": "age, mean absolute error, years",
    }
    figure = style.new_figure(1300, 360)
    sides = sorted({row["side"] for row in rows}, key=int)
    for axes, (score, title) in zip(figure.subplots(1, len(panels)), panels.items()):
        for side in sides:
            side_rows = [row for row in rows if row["side"] == side and row["feature"] == feature]
            million_images = [int(row["images_seen"]) / 1e6 for row in side_rows]
            axes.plot(million_images, [float(row[score]) for row in side_rows], marker="o")
        axes.set(title=title, xlabel="million images seen")
        axes.grid(alpha=0.3)
        style.tidy_axes(axes)
    handles = [Line2D([], [], color=f"C{place}", marker="o") for place in range(len(sides))]
    style.add_legend(figure, handles, [f"at {side} px" for side in sides], loc="outside lower center", ncols=4)
    return style.render_figure(figure)
