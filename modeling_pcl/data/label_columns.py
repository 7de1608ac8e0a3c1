"""The label columns of a flat corpus, read without a look at its images; what is missing is None or NaN."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset

ATTRIBUTES = "attributes."  # What the names of attributes begin with in a flat corpus.


def attributes(names) -> list[str]:
    """Those of `names` that are columns of attributes."""
    return [name for name in names if name.startswith(ATTRIBUTES)]


def numbers(corpus: Dataset, name: str) -> np.ndarray:
    """A column of numbers, classes or booleans, `(rows,)`; NaN is missing, as is what is not finite."""
    values = pc.cast(_column(corpus, name), pa.float64()).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def names(corpus: Dataset, name: str) -> list[str | None]:
    """A column of classes, names or numbers, each as it is called."""
    return [class_name(value, corpus.features[name]) for value in _column(corpus, name).to_pylist()]


def class_name(value, feature) -> str | None:
    """What a value of a column with this feature is called."""
    if is_missing(value):
        return None
    return feature.names[value] if isinstance(feature, ClassLabel) else str(value)


def class_order(values, feature) -> list[str]:
    """The names of a column in the feature's own order; without one, those that were found, by name."""
    return list(feature.names) if isinstance(feature, ClassLabel) else sorted(set(values) - {None})


def is_missing(value) -> bool:
    return value is None or value != value


def _column(corpus: Dataset, name: str) -> pa.ChunkedArray:
    return corpus.select_columns(name).with_format("arrow")[:].column(name)
