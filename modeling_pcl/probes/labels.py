"""Labels of a corpus as the targets of a probe."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Value

from ..data import label_columns
from ..data.schema import action_units, presence
from ..head_pose_pcl import ANGLES

MAX_ANGLE_DEG = 99  # As the field does on AFLW2000-3D, whose angles beyond are faults.
CLASS_COLUMNS = ("expression", "label")


@dataclass(frozen=True)
class Labels:
    """What is to be learned of each row.

    Args:
        targets: `(rows,)` int64 classes, `(rows, 3)` angles in degrees, `(rows, 1)` numbers, or `(rows, units)` 1, 0 or
            NaN.
        known: `(rows,)` booleans: whether the row can be used.
        names: Of the classes, the angles, the number or the units.
        strata: `(rows,)` what a split is stratified by where the people are not known.
    """

    targets: torch.Tensor
    usable: np.ndarray
    names: tuple[str, ...]
    strata: list

    def select_rows(self, rows: np.ndarray) -> "Labels":
        """Of some rows."""
        return replace(
            self,
            targets=self.targets[torch.from_numpy(rows)],
            usable=self.usable[rows],
            strata=[self.strata[row] for row in rows],
        )


def read_classes(corpus: Dataset, column: str | None, names: Sequence[str] = ()) -> Labels:
    """A column of classes.

    Args:
        corpus: With class labels, whole numbers from 0, or names.
        column: None takes the first of `CLASS_COLUMNS` that is there.
        names: Of the classes, in the order of their numbers; none numbers them, or takes those that are found.

    Raises:
        ValueError: If there is no such column, or a number without a name.
    """
    column = column or next((name for name in CLASS_COLUMNS if name in corpus.column_names), None)
    if column not in corpus.column_names:
        wanted = f"`{column}`" if column else " or ".join(f"`{name}`" for name in CLASS_COLUMNS)
        raise ValueError(
            f"The corpus has no column {wanted}, only {corpus.column_names}; name the one of the classes with "
            "`--label_column`."
        )
    feature, names = corpus.features[column], list(names)
    if not isinstance(feature, (ClassLabel, Value)):
        raise ValueError(f"The column `{column}` must hold classes, not {feature}.")
    unknown = -1 if isinstance(feature, ClassLabel) else None  # How `datasets` marks a class that is not known.
    values = [
        None if label_columns.is_missing(value) or value == unknown else value
        for value in corpus.select_columns(column)[:][column]
    ]
    classes = sorted(set(values) - {None}, key=lambda value: (isinstance(value, str), value))
    if not classes:
        raise ValueError(f"The column `{column}` holds no label.")
    if isinstance(feature, ClassLabel):
        names = names or feature.names
    elif all(isinstance(value, str) for value in classes):
        names = names or classes
        odd = [value for value in classes if value not in names]
        if odd:
            raise ValueError(f"The column `{column}` holds {odd[0]!r}, which is not one of {names}.")
        classes, values = [0], [None if value is None else names.index(value) for value in values]
    else:
        odd = [value for value in classes if not math.isfinite(value) or value != int(value) or value < 0]
        if odd:
            raise ValueError(f"The column `{column}` must hold numbers of classes, from 0, or names, not {odd[0]}.")
        names = names or [str(number) for number in range(int(classes[-1]) + 1)]
    beyond = [value for value in (classes[0], classes[-1]) if not 0 <= value < len(names)]
    if beyond:
        raise ValueError(f"The column `{column}` holds the class {beyond[0]}, but there are {len(names)} names.")
    targets = torch.tensor([0 if value is None else int(value) for value in values])
    return Labels(targets, np.array([value is not None for value in values]), tuple(names), values)


def read_head_pose(corpus: Dataset) -> Labels:
    """Yaw, pitch and roll; rows with an angle beyond `MAX_ANGLE_DEG` cannot be used.

    Raises:
        ValueError: If an angle's column is not there, or no row can be used.
    """
    missing = [angle for angle in ANGLES if angle not in corpus.column_names]
    if missing:
        raise ValueError(f"The corpus has no column `{missing[0]}`, only {corpus.column_names}.")
    table = corpus.select_columns(list(ANGLES))[:]
    angles = np.array([table[angle] for angle in ANGLES], dtype=np.float32).T  # (rows, 3); None is NaN
    known = (np.abs(angles) <= MAX_ANGLE_DEG).all(axis=1)
    if not known.any():
        raise ValueError(f"No row has yaw, pitch and roll within {MAX_ANGLE_DEG} degrees.")
    return Labels(torch.from_numpy(angles), known, ANGLES, table["yaw"])


def read_numbers(corpus: Dataset, column: str) -> Labels:
    """A column of numbers; rows without a finite one cannot be used.

    Raises:
        ValueError: If there is no such column, it does not hold numbers, or all of them are equal.
    """
    if column not in corpus.column_names:
        raise ValueError(
            f"The corpus has no column `{column}`, only {corpus.column_names}; name that of the numbers with "
            "`--label_column`."
        )
    feature = corpus.features[column]
    if not isinstance(feature, Value) or not feature.dtype.startswith(("int", "uint", "float")):
        raise ValueError(f"The column `{column}` must hold numbers, not {feature}.")
    values = label_columns.numbers(corpus, column).astype(np.float32)
    known = np.isfinite(values)
    if len(np.unique(values[known])) < 2:
        raise ValueError(f"The column `{column}` must hold different numbers: there is nothing to learn in it.")
    return Labels(torch.from_numpy(values[:, None]), known, (column,), values.tolist())


def read_action_units(corpus: Dataset) -> Labels:
    """Every action unit of the corpus; rows without any label cannot be used.

    Raises:
        ValueError: If there is no action unit or no label.
    """
    units = action_units(corpus.column_names)
    if not units:
        raise ValueError(f"The corpus has no column of an action unit such as `AU12`, only {corpus.column_names}.")
    targets = np.stack([presence(corpus, unit) for unit in units], axis=1).astype(np.float32)
    known = ~np.isnan(targets).all(axis=1)
    if not known.any():
        raise ValueError("No row has a label of an action unit.")
    return Labels(torch.from_numpy(targets), known, tuple(units), [str(row) for row in targets.tolist()])
