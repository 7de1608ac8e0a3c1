"""F1 of each facial action unit, and their mean."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np


class ActionUnitF1(evaluate.Metric):
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
        names: Sequence[str] | None = None,
        threshold: float = 0.5,
    ) -> dict[str, float | int | dict | None]:
        """F1 of each unit over the frames that are labelled for it.

        Args:
            predictions: Probabilities in [0, 1], or 0 and 1, `(frames, units)`; not read where the label is missing.
            references: 1 where a unit is active, 0 where not, -1, NaN or None where that is not known,
                `(frames, units)`.
            names: Of the units, in the order of the columns; None numbers them, `unit_0` and so on.
            threshold: In (0, 1]; a unit is said to be active from this probability on.

        Returns:
            `f1`: Mean over the units whose F1 exists, in [0, 1]; None if there is none. A unit that is active
                in none of its labelled frames, neither in references nor in predictions, has no F1 and is left out of
                the mean; a unit that is active in one of them only has 0 and is in it.
            `f1_per_unit`: By name; None where there is none.
            `labelled_frames`: By name, how many frames the unit's F1 is over.
            `frames`: How many frames are labelled for at least one unit.

        Raises:
            ValueError: If there are no frames or no labels at all, the rows differ in length, `names` are not one for
                each unit, or a probability, label or the threshold is out of its range.
        """
        probabilities, labels = _table("predictions", predictions), _table("references", references)
        if probabilities.shape != labels.shape:
            units = f"{probabilities.shape[1]} and {labels.shape[1]}"
            raise ValueError(f"`predictions` and `references` must have the same units, got {units}.")
        names = _checked_names(names, labels.shape[1])
        if not 0 < threshold <= 1:
            raise ValueError(f"`threshold` must be a probability above 0, got {threshold}.")
        known = _known(probabilities, labels)
        said, active = known & (probabilities >= threshold), labels == 1
        counts = said.sum(axis=0) + active.sum(axis=0)  # (frames, units) -> (units,)
        hits = (said & active).sum(axis=0)
        scores = [float(2 * hit / count) if count else None for hit, count in zip(hits, counts)]
        existing = [score for score in scores if score is not None]
        return {
            "f1": float(np.mean(existing)) if existing else None,
            "f1_per_unit": dict(zip(names, scores)),
            "labelled_frames": dict(zip(names, known.sum(axis=0).tolist())),
            "frames": int(known.any(axis=1).sum()),
        }


def _table(name: str, rows) -> np.ndarray:
    if not len(rows):
        raise ValueError(f"`{name}` must hold a row for each frame, got none.")
    try:
        table = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must have a number for each unit in every row.") from error
    if not table.size:
        raise ValueError(f"`{name}` must have at least one unit, got empty rows.")
    return table


def _checked_names(names: Sequence[str] | None, units: int) -> list[str]:
    if names is None:
        return [f"unit_{unit}" for unit in range(units)]
    if isinstance(names, str) or len(names) != units or len(set(names)) != units:
        raise ValueError(f"`names` must be {units} different names, one for each unit, got {names!r}.")
    return list(names)


def _known(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which labels are there, `(frames, units)`."""
    known = ~(np.isnan(labels) | (labels == -1))
    if not known.any():
        raise ValueError("`references` must hold labels, got only missing ones.")
    if not np.isin(labels[known], [0, 1]).all():
        raise ValueError("`references` must be 0 or 1, or -1, NaN or None where missing, got another value.")
    found = probabilities[known]
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError("`predictions` must be in [0, 1] wherever there is a label; take the sigmoid of logits.")
    return known
