"""The results of one probe: classes, head poses and other numbers, action units, and how they were chosen."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay, auc

from . import style

COLOUR = style.FEATURE_LOOKS["trunk"][0]
FALSE_ACCEPT_RATES, LEAST_RATE = (1e-2, 1e-3), 1e-4


def draw_confusion(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Image.Image:
    """Draw how the images of each class were classified, as shares of the class.

    Args:
        counts: Images by labelled class (rows) and predicted class (columns), `(classes, classes)`, at least 0.
        names: Of the classes, `(classes,)`.
        title: Written above.

    Raises:
        ValueError: If there are no names, or `counts` has not a row and a column for each.
    """
    table, classes = np.asarray(counts), len(names)
    if not classes or table.shape != (classes, classes):
        raise ValueError(f"`counts` must have a row and a column for each of {classes} `names`, got {table.shape}.")
    totals = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, totals, out=np.zeros(table.shape), where=totals > 0)
    side = 260 + classes * max(46, min(110, 540 // classes))
    figure = style.new_figure(side, side, title)
    axes = figure.subplots()
    ConfusionMatrixDisplay(shares).plot(ax=axes, cmap="Blues", values_format=".0%", colorbar=False)
    style.name_ticks(axes.xaxis, names, **({"rotation": 45, "ha": "right"} if max(map(len, names)) > 8 else {}))
    counted = [f"{style.one_line(name)} ({n:,})" for name, n in zip(names, totals[:, 0])]
    style.name_ticks(axes.yaxis, counted, letters=2 * style.NAME_LETTERS)
    axes.set(xlabel="predicted", ylabel="labelled (images)")
    axes.images[0].set_clim(0, 1)
    return style.rendered(figure)


def draw_errors(
    predictions: np.ndarray, references: np.ndarray, names: Sequence[str], title: str, unit: str = ""
) -> Image.Image:
    """Draw predicted over labelled numbers, with the mean absolute error of each.

    Args:
        predictions: `(images, numbers)`.
        references: The labels, of the same shape, rows paired with `predictions`.
        names: Of the numbers: the angles of head pose, or `age`.
        title: Written above.
        unit: `degrees` for angles.

    Raises:
        ValueError: If the shapes differ or are not `(images, names)` with at least one image, or a value is not finite.
    """
    predicted, labelled = (np.asarray(values, dtype=np.float64) for values in (predictions, references))
    if predicted.shape != labelled.shape or predicted.shape[1:] != (len(names),) or not len(predicted):
        wanted, shapes = f"(images, {len(names)})", f"{predicted.shape} and {labelled.shape}"
        raise ValueError(f"`predictions` and `references` must be {wanted}, of one image at least, got {shapes}.")
    if not (np.isfinite(predicted).all() and np.isfinite(labelled).all()):
        raise ValueError("`predictions` and `references` must be finite numbers; leave other images out.")
    figure = style.new_figure(max(420, 320 * len(names)), 345, title)
    alpha = max(0.03, min(0.6, 400 / len(labelled)))  # Of many points each is paler, so that their density shows.
    after, sign = f", {unit}" if unit else "", "°" if unit == "degrees" else ""
    subplots = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name, labels, values in zip(subplots, names, labelled.T, predicted.T):
        axes.axline((0, 0), slope=1, color="black", linewidth=1, linestyle="--")
        axes.scatter(labels, values, s=10, color=COLOUR, alpha=alpha, linewidths=0)
        limits = min(labels.min(), values.min()) - 1, max(labels.max(), values.max()) + 1
        axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"labelled{after}", ylabel=f"predicted{after}")
        error = np.abs(values - labels).mean()
        axes.set_title(f"{style.one_line(name)}: mean absolute error {error:.2f}{sign}", fontsize=10)
        style.tidy_axes(axes)
    return style.rendered(figure)


def draw_unit_scores(scores: Mapping[str, float | None], title: str, ylabel: str) -> Image.Image:
    """Draw the score of each action unit, and their mean as a dashed line.

    Args:
        scores: By unit, in [0, 1]; None where the unit has no F1.
        title: Written above.
        ylabel: What is measured.

    Raises:
        ValueError: If there are no units, or a score is outside [0, 1].
    """
    known = [score for score in scores.values() if score is not None]
    if not scores or not all(0 <= score <= 1 for score in known):
        raise ValueError(f"`scores` must name at least one unit and be in [0, 1] or None, got {dict(scores)}.")
    figure = style.new_figure(max(420, 48 * len(scores) + 80), 320, title)
    axes = figure.subplots()
    style.draw_bars(axes, scores, COLOUR, ".2f", missing="no F1")
    if known:
        axes.axhline(np.mean(known), color="black", linewidth=1, linestyle="--")
        axes.set_title(f"mean {np.mean(known):.3f}", fontsize=9)
    axes.set(ylim=(0, 1.08), ylabel=ylabel)
    return style.rendered(figure)


def draw_roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Image.Image:
    """Draw the true over the false accept rate, which is logarithmic, with what is reached at rates of 1e-2 and 1e-3.

    Args:
        curves: By name, false and true accept rates, each `(thresholds,)` in [0, 1], neither falling, from a false
            accept rate of 0 on. Nothing is interpolated between thresholds.
        title: Written above.

    Raises:
        ValueError: If there are no curves, or one's rates are not as above.
    """
    if not curves:
        raise ValueError("`curves` must hold at least one curve, got none.")
    figure = style.new_figure(640, 390 + 17 * len(curves), title)
    axes = figure.subplots()
    handles, labels = [], []
    for (name, curve), (colour, _) in zip(curves.items(), style.choose_looks(curves).values()):
        false, true = _checked_rates(name, *curve)
        handles += axes.plot(false, true, color=colour, drawstyle="steps-post")
        reached = ", ".join(f"{true[false <= rate].max():.3f} at FAR {rate:g}" for rate in FALSE_ACCEPT_RATES)
        labels.append(f"{style.one_line(name)}: AUC {auc(false, true):.3f}, TAR {reached}")
    everywhere = np.geomspace(LEAST_RATE, 1, 200)  # A straight line is bent on a logarithmic axis.
    handles += axes.plot(everywhere, everywhere, color=style.GREY, linestyle="--")
    for rate in FALSE_ACCEPT_RATES:
        axes.axvline(rate, color=style.GREY, linewidth=0.6, linestyle=":")
    axes.set(xscale="log", xlim=(LEAST_RATE, 1), ylim=(0, 1.01))
    axes.set(xlabel="false accept rate (FAR)", ylabel="true accept rate (TAR)")
    style.tidy_axes(axes)
    style.add_legend(figure, handles, [*labels, "chance"], loc="outside lower center")
    return style.rendered(figure)


def _checked_rates(name: str, false, true) -> tuple[np.ndarray, np.ndarray]:
    false, true = np.asarray(false, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if false.ndim != 1 or false.shape != true.shape or len(false) < 2:
        shapes = f"{false.shape} and {true.shape}"
        raise ValueError(f"`curves` must hold two rates for each of 2 thresholds or more; `{name}` has {shapes}.")
    is_rising = all((np.diff(values) >= 0).all() and values[0] >= 0 and values[-1] <= 1 for values in (false, true))
    if not is_rising or false[0] > 0:
        raise ValueError(f"`curves` must rise from a false accept rate of 0, in [0, 1]; `{name}` does not.")
    return false, true


def draw_histories(
    histories: Mapping[str, Sequence[float]], chosen: tuple[str, int], title: str, ylabel: str
) -> Image.Image:
    """Draw the score after every epoch for each candidate, and a star where the choice fell.

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
    figure = style.new_figure(900, max(390, 17 * (len(histories) + 6)), title)
    axes = figure.subplots()
    handles = []
    for place, scores in enumerate(histories.values()):
        colour, _ = style.LOOKS[place % len(style.LOOKS)]
        dashes = ("-", "--", ":", "-.")[place // len(style.LOOKS) % 4]
        marker = "." if len(scores) == 1 else None  # A line needs two points.
        handles += axes.plot(range(1, len(scores) + 1), scores, color=colour, linestyle=dashes, marker=marker)
    score = histories[candidate][epoch - 1]
    handles += axes.plot(epoch, score, "*", markersize=14, color="white", markeredgecolor="black", zorder=3)
    words = f"chosen: {style.one_line(candidate)},\nepoch {epoch}, {score:.3f}"
    labels = [*(style.one_line(name) for name in histories), words]
    style.add_legend(figure, handles, labels, loc="outside right upper")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", ylabel=style.one_line(ylabel, 50))
    style.tidy_axes(axes)
    return style.rendered(figure)


def draw_learning_curve(rows: Sequence[Mapping[str, str]], feature: str = "trunk") -> Image.Image:
    """Draw how scores grow with the images that were seen, a line for each side of the images.

    Args:
        rows: Of a table with `images_seen`, `side`, `feature` and the scores, in the order of training.
        feature: Whose scores to draw.
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
            of_side = [row for row in rows if row["side"] == side and row["feature"] == feature]
            seen = [int(row["images_seen"]) / 1e6 for row in of_side]
            axes.plot(seen, [float(row[score]) for row in of_side], marker="o")
        axes.set(title=title, xlabel="million images seen")
        axes.grid(alpha=0.3)
        style.tidy_axes(axes)
    handles = [Line2D([], [], color=f"C{place}", marker="o") for place in range(len(sides))]
    style.add_legend(figure, handles, [f"at {side} px" for side in sides], loc="outside lower center", ncols=4)
    return style.rendered(figure)
