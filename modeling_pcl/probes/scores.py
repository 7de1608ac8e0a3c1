"""Scores of predictions, as pure functions. Probes report them, choose heads by them, and `metrics` wraps them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from sklearn import metrics

from ..head_pose_pcl import ANGLES


def f1_per_unit(predicted: np.ndarray, active: np.ndarray) -> list[float | None]:
    """Compute the F1 of each unit.

    Args:
        predicted: Whether a unit is predicted active, `(images, units)` booleans; False where the label is missing.
        active: Whether the unit is active, `(images, units)` booleans.

    Returns:
        `(units,)`, in [0, 1]; None for a unit that is active neither in predictions nor in labels.
    """
    counts = predicted.sum(axis=0) + active.sum(axis=0)  # (images, units) -> (units,)
    hits = (predicted & active).sum(axis=0)
    return [float(2 * hit / count) if count else None for hit, count in zip(hits, counts)]


def mean_f1(by_unit: Sequence[float | None]) -> float | None:
    """Compute the mean over the units that have an F1; None if no unit has one."""
    known_scores = [score for score in by_unit if score is not None]
    return float(np.mean(known_scores)) if known_scores else None


def classification_scores(
    predictions: Sequence[int],
    references: Sequence[int],
    labels: Sequence[int] | None = None,
    confusion_matrix: Literal["counts", "normalised"] | None = None,
) -> dict[str, float | list]:
    """Compute accuracies, F1 and, on request, the confusion matrix.

    Args:
        predictions: Class numbers, `(images,)`.
        references: Class numbers, `(images,)`.
        labels: All classes, in the order of the confusion matrix; None takes the classes that occur, sorted.
        confusion_matrix: `counts` for a matrix of images, `normalised` for rows that sum to 1 (0 for a class without
            references), None for no matrix. Without it all results are numbers, as the evaluator's
            `strategy="bootstrap"` requires.

    Returns:
        `accuracy`: Share of images that are classified correctly, in [0, 1].
        `mean_class_accuracy`: The same share for each class in the references, averaged.
        `macro_f1`: Mean F1 of the classes that occur in references or predictions.
        `confusion_matrix`: On request, `(classes, classes)`, with a row for each class in the references and a column
            for each class in the predictions.
        `labels`: With the matrix, the classes of its rows and columns.

    Raises:
        ValueError: If there are no images, a class is not a whole number or not one of `labels`, or
            `confusion_matrix` has another value.
    """
    predictions, references = _to_class_numbers("predictions", predictions), _to_class_numbers("references", references)
    occurring, in_references = np.union1d(predictions, references), np.unique(references)
    results = {
        "accuracy": float(np.mean(predictions == references)),
        "mean_class_accuracy": float(
            metrics.recall_score(references, predictions, labels=in_references, average="macro")
        ),
        "macro_f1": float(metrics.f1_score(references, predictions, labels=occurring, average="macro")),
    }
    classes = occurring if labels is None else _to_class_numbers("labels", labels)
    if len(np.unique(classes)) != len(classes):
        raise ValueError(f"`labels` must name each class once, got {list(labels)}.")
    unknown = np.setdiff1d(occurring, classes)
    if len(unknown):
        raise ValueError(f"`labels` must name every class that occurs, {unknown.tolist()} too.")
    if confusion_matrix is None:
        return results
    if confusion_matrix not in ("counts", "normalised"):
        raise ValueError(f'`confusion_matrix` must be "counts", "normalised" or None, got {confusion_matrix!r}.')
    normalize = "true" if confusion_matrix == "normalised" else None
    matrix = metrics.confusion_matrix(references, predictions, labels=classes, normalize=normalize)
    return results | {"confusion_matrix": matrix.tolist(), "labels": classes.tolist()}


def _to_class_numbers(name: str, values) -> np.ndarray:
    """Convert class numbers to int64, and raise `ValueError` for anything else."""
    numbers = _to_numbers(name, values, "the classes of images", "be a class number")
    if not (np.isfinite(numbers) & (numbers == np.round(numbers))).all():
        raise ValueError(
            f"`{name}` must be class numbers; take the argmax of scores, and leave out images without a label."
        )
    return numbers.astype(np.int64)


def _to_numbers(name: str, rows, content: str, row_rule: str) -> np.ndarray:
    """Convert rows to float64.

    Raises:
        ValueError: If there are no rows, they have different lengths, or values are not numbers.
    """
    if not len(rows):
        raise ValueError(f"`{name}` must hold {content}, got none.")
    try:
        return np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must {row_rule} in every row.") from error


def angular_errors(
    predictions: Sequence[Sequence[float]],
    references: Sequence[Sequence[float]],
    max_angle: float | None = 99,
    per_sample: bool = False,
) -> dict[str, float | int | list]:
    """Compute mean absolute differences in degrees. Differences do not wrap: 179 and -179 are 358 degrees apart.

    Args:
        predictions: Yaw, pitch and roll in degrees, `(images, 3)`.
        references: Yaw, pitch and roll in degrees, `(images, 3)`.
        max_angle: In degrees. Images with a reference angle beyond it, on either side, are dropped. The default follows
            the practice on AFLW2000-3D, whose angles beyond 99 degrees are faults. None keeps all images.
        per_sample: Whether to return the errors of every image.

    Returns:
        `mae`: Mean of the three following, in degrees.
        `yaw_mae`, `pitch_mae`, `roll_mae`: Mean over the images that are kept, in degrees.
        `images`: Number of images that are kept.
        `dropped`: Number of images that are dropped.
        `errors`: With `per_sample`, `(images, 3)` absolute differences in degrees, in the order of the images; None
            instead of three numbers for a dropped image.

    Raises:
        ValueError: If there are no images, or none within `max_angle`, a row is not three finite numbers, or
            `max_angle` is not above 0.
    """
    predictions, references = _to_angles("predictions", predictions), _to_angles("references", references)
    if max_angle is not None and not max_angle > 0:
        raise ValueError(f"`max_angle` must be above 0 degrees, or None to keep all, got {max_angle}.")
    is_kept = (np.abs(references) <= (np.inf if max_angle is None else max_angle)).all(axis=1)
    if not is_kept.any():
        raise ValueError(f"`references` must hold an image within `max_angle`={max_angle} degrees, got none.")
    errors = np.abs(predictions - references)
    means = errors[is_kept].mean(axis=0)  # (images, 3) -> (3,)
    results = {
        "mae": float(means.mean()),
        **{f"{angle}_mae": float(mean) for angle, mean in zip(ANGLES, means)},
        "images": int(is_kept.sum()),
        "dropped": int((~is_kept).sum()),
    }
    if per_sample:
        results["errors"] = [row if keep else None for row, keep in zip(errors.tolist(), is_kept)]
    return results


def regression_scores(predictions: Sequence[float], references: Sequence[float]) -> dict[str, float | int | None]:
    """Compute the errors of predicted numbers.

    Args:
        predictions: `(images,)`.
        references: `(images,)`.

    Returns:
        `mae`: Mean absolute error, in the unit of the numbers.
        `bias`: Mean of predictions minus references, in the unit of the numbers.
        `r2`: Coefficient of determination, at most 1; None if all references are equal.
        `images`: Number of images.

    Raises:
        ValueError: If there are no images, a number is not finite, or predictions and references differ in length.
    """
    predictions, references = (
        _to_numbers(name, rows, "a number for each image", "be a number")
        for name, rows in (("predictions", predictions), ("references", references))
    )
    if predictions.ndim != 1 or predictions.shape != references.shape:
        raise ValueError(
            f"`predictions` and `references` must be a number for each image, got {predictions.shape} and "
            f"{references.shape}."
        )
    if not (np.isfinite(predictions).all() and np.isfinite(references).all()):
        raise ValueError("`predictions` and `references` must be finite numbers; leave other images out.")
    errors = predictions - references
    return {
        "mae": float(np.abs(errors).mean()),
        "bias": float(errors.mean()),
        "r2": float(metrics.r2_score(references, predictions)) if np.ptp(references) > 0 else None,
        "images": len(errors),
    }


def _to_angles(name: str, rows) -> np.ndarray:
    """Convert angles to `(images, 3)` float64, and raise `ValueError` for anything else."""
    table = _to_numbers(name, rows, "the angles of images", "be yaw, pitch and roll")
    if table.shape != (len(rows), 3):
        raise ValueError(f"`{name}` must be yaw, pitch and roll in every row, got {table.shape[1]} numbers.")
    if not np.isfinite(table).all():
        raise ValueError(f"`{name}` must be finite angles in degrees, got NaN, None or infinity.")
    return table


def action_unit_scores(
    predictions: Sequence[Sequence[float]],
    references: Sequence[Sequence[float]],
    names: Sequence[str] | None = None,
    threshold: float = 0.5,
) -> dict[str, float | int | dict | None]:
    """Compute the F1 of each unit over the frames that are labelled for it.

    Args:
        predictions: Probabilities in [0, 1], or 0 and 1, `(frames, units)`; ignored where the label is missing.
        references: 1 for active, 0 for inactive, -1, NaN or None for unknown, `(frames, units)`.
        names: Names of the units, in the order of the columns; None names them `unit_0` and so on.
        threshold: In (0, 1]. A unit is predicted to be active from this probability on.

    Returns:
        `f1`: Mean over the units that have an F1, in [0, 1]; None if there are none. A unit that is active in none of
            its labelled frames, neither in references nor in predictions, has no F1 and does not count. A unit that is
            active in only one of the two has an F1 of 0, which counts.
        `f1_per_unit`: By name; None for a unit without F1.
        `labelled_frames`: By name, the number of frames that are labelled for the unit.
        `frames`: Number of frames that are labelled for at least one unit.

    Raises:
        ValueError: If there are no frames or no labels, the rows differ in length, `names` has another length than the
            rows, or a probability, label or the threshold is out of range.
    """
    probabilities, labels = (
        _to_numbers(name, rows, "a row for each frame", "have a number for each unit")
        for name, rows in (("predictions", predictions), ("references", references))
    )
    if not probabilities.size or not labels.size:
        raise ValueError("`predictions` and `references` must have at least one unit, got empty rows.")
    if probabilities.shape != labels.shape:
        units = f"{probabilities.shape[1]} and {labels.shape[1]}"
        raise ValueError(f"`predictions` and `references` must have the same units, got {units}.")
    count = labels.shape[1]
    names = [f"unit_{unit}" for unit in range(count)] if names is None else names
    if isinstance(names, str) or len(names) != count or len(set(names)) != count:
        raise ValueError(f"`names` must be {count} different names, one for each unit, got {names!r}.")
    if not 0 < threshold <= 1:
        raise ValueError(f"`threshold` must be a probability above 0, got {threshold}.")
    is_labelled = ~(np.isnan(labels) | (labels == -1))
    if not is_labelled.any():
        raise ValueError("`references` must hold labels, got only missing ones.")
    if not np.isin(labels[is_labelled], [0, 1]).all():
        raise ValueError("`references` must be 0 or 1, or -1, NaN or None where missing, got another value.")
    if not ((probabilities[is_labelled] >= 0) & (probabilities[is_labelled] <= 1)).all():
        raise ValueError("`predictions` must be in [0, 1] wherever there is a label; take the sigmoid of logits.")
    scores = f1_per_unit(is_labelled & (probabilities >= threshold), labels == 1)
    return {
        "f1": mean_f1(scores),
        "f1_per_unit": dict(zip(names, scores)),
        "labelled_frames": dict(zip(names, is_labelled.sum(axis=0).tolist())),
        "frames": int(is_labelled.any(axis=1).sum()),
    }
