"""Labels of a corpus as targets of a probe."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Value

from ..data import label_columns
from ..data.schema import action_units, presence
from ..head_pose_pcl import ANGLES

MAX_ANGLE_DEG = 99  # As is customary on AFLW2000-3D, whose larger angles are faults.
CLASS_COLUMNS = ("expression", "label")


@dataclass(frozen=True)
class Labels:
    """Targets of every row of a corpus.

    Args:
        targets: `(rows,)` int64 classes, `(rows, 3)` angles in degrees, `(rows, 1)` numbers, or `(rows, units)` with 1
            for active, 0 for inactive and NaN for unknown.
        usable: `(rows,)` booleans: whether the row has a valid label.
        names: Names of the classes, the angles, the number or the units.
        strata: `(rows,)` values by which splits are stratified if people are unknown.
    """

    targets: torch.Tensor
    usable: np.ndarray
    names: tuple[str, ...]
    strata: list

    def select_rows(self, rows: np.ndarray) -> "Labels":
        """Return the labels of some rows."""
        return replace(
            self,
            targets=self.targets[torch.from_numpy(rows)],
            usable=self.usable[rows],
            strata=[self.strata[row] for row in rows],
        )


def read_classes(corpus: Dataset, column: str | None, names: Sequence[str] = ()) -> Labels:
    """Read a column of classes.

    Args:
        corpus: Corpus with class labels, whole numbers from 0, or names of classes.
        column: Column of the classes; None takes the first of `CLASS_COLUMNS` that exists.
        names: Names of the classes, in the order of their numbers. If empty, they are those of the column, or the
            numbers.

    Raises:
        ValueError: If there is no such column, or a number has no name.
    """
    column = column or next((name for name in CLASS_COLUMNS if name in corpus.column_names), None)
    if column not in corpus.column_names:
        expected = f"`{column}`" if column else " or ".join(f"`{name}`" for name in CLASS_COLUMNS)
        raise ValueError(
            f"The corpus has no column {expected}, only {corpus.column_names}; name the column of classes with "
            "`--label_column`."
        )
    feature, names = corpus.features[column], list(names)
    if not isinstance(feature, (ClassLabel, Value)):
        raise ValueError(f"The column `{column}` must hold classes, not {feature}.")
    missing_value = -1 if isinstance(feature, ClassLabel) else None  # `datasets` marks unknown classes by -1.
    values = [
        None if label_columns.is_missing(value) or value == missing_value else value
        for value in corpus.select_columns(column)[:][column]
    ]
    classes = sorted(set(values) - {None}, key=lambda value: (isinstance(value, str), value))
    if not classes:
        raise ValueError(f"The column `{column}` has no labels.")
    if isinstance(feature, ClassLabel):
        names = names or feature.names
    elif all(isinstance(value, str) for value in classes):
        names = names or classes
        invalid = [value for value in classes if value not in names]
        if invalid:
            raise ValueError(f"The column `{column}` holds {invalid[0]!r}, which is not one of {names}.")
        classes, values = [0], [None if value is None else names.index(value) for value in values]
    else:
        invalid = [value for value in classes if not math.isfinite(value) or value != int(value) or value < 0]
        if invalid:
            raise ValueError(f"The column `{column}` must hold class numbers from 0, or names, not {invalid[0]}.")
        names = names or [str(number) for number in range(int(classes[-1]) + 1)]
    unnamed = [value for value in (classes[0], classes[-1]) if not 0 <= value < len(names)]
    if unnamed:
        raise ValueError(f"The column `{column}` holds the class {unnamed[0]}, but there are {len(names)} names.")
    targets = torch.tensor([0 if value is None else int(value) for value in values])
    return Labels(targets, np.array([value is not None for value in values]), tuple(names), values)


def read_head_pose(corpus: Dataset) -> Labels:
    """Read yaw, pitch and roll. Rows with an angle beyond `MAX_ANGLE_DEG` are unusable.

    Raises:
        ValueError: If the column of an angle is missing, or no row is usable.
    """
    missing = [angle for angle in ANGLES if angle not in corpus.column_names]
    if missing:
        raise ValueError(f"The corpus has no column `{missing[0]}`, only {corpus.column_names}.")
    table = corpus.select_columns(list(ANGLES))[:]
    angles = np.array([table[angle] for angle in ANGLES], dtype=np.float32).T  # (rows, 3); None is NaN
    usable = (np.abs(angles) <= MAX_ANGLE_DEG).all(axis=1)
    if not usable.any():
        raise ValueError(f"No row has yaw, pitch and roll within {MAX_ANGLE_DEG} degrees.")
    return Labels(torch.from_numpy(angles), usable, ANGLES, table["yaw"])


def read_numbers(corpus: Dataset, column: str) -> Labels:
    """Read a column of numbers. Rows without a finite number are unusable.

    Raises:
        ValueError: If there is no such column, it does not hold numbers, or all of them are equal.
    """
    if column not in corpus.column_names:
        raise ValueError(
            f"The corpus has no column `{column}`, only {corpus.column_names}; name the column of numbers with "
            "`--label_column`."
        )
    feature = corpus.features[column]
    if not isinstance(feature, Value) or not feature.dtype.startswith(("int", "uint", "float")):
        raise ValueError(f"The column `{column}` must hold numbers, not {feature}.")
    values = label_columns.numbers(corpus, column).astype(np.float32)
    usable = np.isfinite(values)
    if len(np.unique(values[usable])) < 2:
        raise ValueError(f"The column `{column}` must hold different numbers: there is nothing to learn in it.")
    return Labels(torch.from_numpy(values[:, None]), usable, (column,), values.tolist())


def read_action_units(corpus: Dataset) -> Labels:
    """Read every action unit of the corpus. Rows without any label are unusable.

    Raises:
        ValueError: If there is no action unit, or no label.
    """
    units = action_units(corpus.column_names)
    if not units:
        raise ValueError(f"The corpus has no column of an action unit such as `AU12`, only {corpus.column_names}.")
    targets = np.stack([presence(corpus, unit) for unit in units], axis=1).astype(np.float32)
    usable = ~np.isnan(targets).all(axis=1)
    if not usable.any():
        raise ValueError("No row has a label of an action unit.")
    return Labels(torch.from_numpy(targets), usable, tuple(units), [str(row) for row in targets.tolist()])
