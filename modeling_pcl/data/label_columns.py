"""Read label columns of a flattened corpus, without reading its images. Missing values are None or NaN."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset

ATTRIBUTES = "attributes."  # Prefix of attribute columns in a flattened corpus.


def select_attributes(names) -> list[str]:
    """Select the names of attribute columns."""
    return [name for name in names if name.startswith(ATTRIBUTES)]


def numbers(corpus: Dataset, name: str) -> np.ndarray:
    """Read a column of numbers, classes or booleans, `(rows,)`, float64. Missing and infinite values are NaN."""
    values = pc.cast(_read_column(corpus, name), pa.float64()).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def names(corpus: Dataset, name: str) -> list[str | None]:
    """Read a column of classes, strings or numbers as strings, classes by their names. Missing values are None."""
    return [class_name(value, corpus.features[name]) for value in _read_column(corpus, name).to_pylist()]


def class_name(value, feature) -> str | None:
    """Return the name of a value in a column with this feature; None if the value is missing."""
    if is_missing(value):
        return None
    return feature.names[value] if isinstance(feature, ClassLabel) else str(value)


def order_names(values, feature) -> list[str]:
    """Return the class names of a column in the order of its feature, or its distinct values sorted by name."""
    return list(feature.names) if isinstance(feature, ClassLabel) else sorted(set(values) - {None})


def is_missing(value) -> bool:
    """Whether a value is None or NaN."""
    return value is None or value != value


def _read_column(corpus: Dataset, name: str) -> pa.ChunkedArray:
    return corpus.select_columns(name).with_format("arrow")[:].column(name)
