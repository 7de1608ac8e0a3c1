"""Mean absolute error of the angles of the head."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

ANGLES = ("yaw", "pitch", "roll")


class AngularMAE(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        rows = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": rows, "references": rows}),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[Sequence[float]],
        max_angle: float | None = 99,
        per_sample: bool = False,
    ) -> dict[str, float | int | list]:
        """Mean absolute difference in degrees. It does not wrap: 179 and -179 are 358 degrees apart.

        Args:
            predictions: Yaw, pitch, roll in degrees, `(images, 3)`.
            references: The same, `(images, 3)`.
            max_angle: In degrees. Images of which a reference angle is larger, to either side, are dropped, as the
                field does on AFLW2000-3D, whose angles beyond 99 degrees are faults; None keeps all.
            per_sample: Whether to return every image's errors.

        Returns:
            `mae`: The mean of the three next, in degrees.
            `yaw_mae`, `pitch_mae`, `roll_mae`: Mean over the images that are kept, in degrees.
            `images`: How many are kept.
            `dropped`: How many are not.
            `errors`: With `per_sample`, `(images, 3)` absolute differences in degrees, in the order of the images,
                None in place of the three for an image that is dropped.

        Raises:
            ValueError: If there are no images, or none within `max_angle`, a row is not three finite numbers, or
                `max_angle` is not above 0.
        """
        predictions, references = _table("predictions", predictions), _table("references", references)
        kept = _within(references, max_angle)
        errors = np.abs(predictions - references)
        means = errors[kept].mean(axis=0)  # (images, 3) -> (3,)
        results = {
            "mae": float(means.mean()),
            **{f"{angle}_mae": float(mean) for angle, mean in zip(ANGLES, means)},
            "images": int(kept.sum()),
            "dropped": int((~kept).sum()),
        }
        if per_sample:
            results["errors"] = [row if keep else None for row, keep in zip(errors.tolist(), kept)]
        return results


def _table(name: str, rows) -> np.ndarray:
    if not len(rows):
        raise ValueError(f"`{name}` must hold the angles of images, got none.")
    try:
        table = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be yaw, pitch and roll in every row.") from error
    if table.shape != (len(rows), 3):
        raise ValueError(f"`{name}` must be yaw, pitch and roll in every row, got {table.shape[1]} numbers.")
    if not np.isfinite(table).all():
        raise ValueError(f"`{name}` must be finite angles in degrees, got NaN, None or infinity.")
    return table


def _within(references: np.ndarray, max_angle: float | None) -> np.ndarray:
    """Which images are kept, `(images,)`."""
    if max_angle is None:
        return np.ones(len(references), dtype=bool)
    if not max_angle > 0:
        raise ValueError(f"`max_angle` must be above 0 degrees, or None to keep all, got {max_angle}.")
    kept = (np.abs(references) <= max_angle).all(axis=1)
    if not kept.any():
        raise ValueError(f"`references` must hold an image within `max_angle`={max_angle} degrees, got none.")
    return kept
