"""Measures of a probe for each group of people."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from datasets import Dataset, Value

from ..data import label_columns
from .results import results_table, summarise_seeds
from .subset import ROW

TENS = 10  # Width of a group of numbers, and the number of distinct values up to which none are formed.
FEW = 100  # Groups with fewer images or pairs are listed as too small.

Groups = dict[str, dict[str, dict]]


def read_groups(corpus: Dataset, columns: Sequence[str], source: str) -> dict[str, np.ndarray]:
    """Read the group of every row, by column; None if the group of a row is unknown.

    Numbers with more than ten distinct values, such as ages, are grouped by tens.

    Raises:
        ValueError: If the corpus lacks a column; the message lists the columns that it has.
    """
    missing = [column for column in columns if column not in corpus.column_names]
    if missing:
        others = sorted(set(corpus.column_names) - {"image", ROW})
        raise ValueError(f"`--group_by {missing[0]}`: {source} has no such column; it has {', '.join(others)}.")
    return {column: np.array(_name_groups(corpus, column), dtype=object) for column in columns}


def _name_groups(corpus: Dataset, column: str) -> list[str | None]:
    """Name the group of every row: the value itself, or its range of ten for numbers with many values."""
    names, feature = label_columns.names(corpus, column), corpus.features[column]
    is_number = isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "float"))
    if not is_number or len(set(names) - {None}) <= TENS:
        return names
    starts = label_columns.numbers(corpus, column) // TENS * TENS
    return [None if np.isnan(start) else f"{start:.0f}-{start + TENS - 1:.0f}" for start in starts]


def measure_groups(
    columns: Mapping[str, np.ndarray], method: str, unit: str, measure: Callable[[np.ndarray], Sequence[dict]]
) -> dict[str, Groups]:
    """Measure each group.

    Args:
        columns: Group of each test image or pair, by column; None for those that belong to no group.
        method: Name of what is measured, such as `trunk feature, linear`.
        unit: `images` or `pairs`.
        measure: Maps the positions of a group's images or pairs to measures, one dict per seed. If there
            are none, the group is left out.

    Returns:
        By column, group and method: the measures, and the number of images or pairs.
    """
    results: dict[str, Groups] = {column: {} for column in columns}
    for column, groups in columns.items():
        for group in sorted(set(groups) - {None}, key=_sort_key):
            positions = np.flatnonzero(groups == group)
            measures = measure(positions)
            if measures:
                count = {"mean": len(positions), "spread": None, "values": [len(positions)]}
                results[column][group] = {method: summarise_seeds(measures) | {unit: count}}
    return results


def _sort_key(group: str) -> tuple:
    """Sort groups of numbers by their first number, and other groups by name."""
    start = group.partition("-")[0]
    return (int(start), group) if start.isdigit() else (0, group)


def format_group_tables(groups: dict[str, Groups], measures: Sequence[str], unit: str) -> str:
    """Format one table of the measures for each column."""
    tables = []
    for column, results in groups.items():
        small_groups = [name for name, methods in results.items() if next(iter(methods.values()))[unit]["mean"] < FEW]
        table = results_table(results, [unit, *measures]).replace("feature", f"{column:7}", 1)
        tables.append(table)
        if small_groups:
            tables[-1] += f"\nFewer than {FEW} {unit}, too few to be reliable: {', '.join(small_groups)}"
    return "\n\n".join(tables)
