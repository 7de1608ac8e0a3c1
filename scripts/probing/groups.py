"""Measures of groups of people apart: by gender, ethnicity, age, or another column of the test corpus."""

from collections.abc import Callable, Sequence

import numpy as np
from datasets import ClassLabel, Dataset

from modeling_pcl.data.label_columns import is_missing
from modeling_pcl.data.label_columns import names as label_names

from .part import ROW
from .report import over_seeds, table

TENS = 10
FEW = 100  # Fewer images or pairs than this say little.

Groups = dict[str, dict[str, dict]]


def read_groups(corpus: Dataset, columns: Sequence[str], source: str) -> dict[str, np.ndarray]:
    """The group of every row, by column; None where it is not known. Of more than ten numbers, as ages, tens are taken.

    Raises:
        ValueError: If the corpus lacks a column, naming those it has.
    """
    missing = [column for column in columns if column not in corpus.column_names]
    if missing:
        others = sorted(set(corpus.column_names) - {"image", ROW})
        raise ValueError(f"`--group_by {missing[0]}`: {source} has no such column; it has {', '.join(others)}.")
    return {column: np.array(_groups(corpus, column), dtype=object) for column in columns}


def _groups(corpus: Dataset, column: str) -> list[str | None]:
    if isinstance(corpus.features[column], ClassLabel):
        return label_names(corpus, column)
    values = corpus.select_columns(column).with_format(None)[:][column]
    known = {value for value in values if not is_missing(value)}
    are_many = len(known) > TENS and all(isinstance(value, int | float) for value in known)
    named = {value: _in_tens(value) if are_many else str(value) for value in known}
    return [named.get(value) for value in values]


def _in_tens(value: float) -> str:
    start = int(value // TENS * TENS)
    return f"{start}-{start + TENS - 1}"


def by_group(groups: np.ndarray, method: str, unit: str, measure: Callable[[np.ndarray], Sequence[dict]]) -> Groups:
    """Measure each group.

    Args:
        groups: Of each test image or pair, None for those that are left out.
        method: What is measured, in words.
        unit: `images` or `pairs`.
        measure: From the places of a group to its measures, one for each seed, or none where they do not exist.

    Returns:
        By group and method, its measures and how many images or pairs they are of.
    """
    result = {}
    for group in sorted({group for group in groups if group is not None}, key=_order):
        places = np.flatnonzero(groups == group)
        measured = measure(places)
        if measured:
            count = {"mean": len(places), "spread": None, "values": [len(places)]}
            result[group] = {method: over_seeds(measured) | {unit: count}}
    return result


def _order(group: str) -> tuple:
    start = group.partition("-")[0]
    return (int(start), group) if start.isdigit() else (0, group)


def group_tables(groups: dict[str, Groups], measures: Sequence[str], unit: str) -> str:
    """The measures in words, a table a column."""
    tables = []
    for column, results in groups.items():
        few = [name for name, methods in results.items() if next(iter(methods.values()))[unit]["mean"] < FEW]
        said = table(results, [unit, *measures]).replace("feature", f"{column:7}", 1)
        tables.append(said + (f"\nFewer than {FEW} {unit}, which say little: {', '.join(few)}" if few else ""))
    return "\n\n".join(tables)
