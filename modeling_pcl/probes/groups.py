"""Groups of people, measured apart."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from datasets import Dataset, Value

from ..data import label_columns
from .results import over_seeds, results_table
from .subset import ROW

TENS = 10
FEW = 100  # Fewer images or pairs than this say little.

Groups = dict[str, dict[str, dict]]


def read_groups(corpus: Dataset, columns: Sequence[str], source: str) -> dict[str, np.ndarray]:
    """Read the group of every row, by column, None where it is not known.

    Of more than ten different numbers, as ages, tens are taken.

    Raises:
        ValueError: If the corpus lacks a column, naming those it has.
    """
    missing = [column for column in columns if column not in corpus.column_names]
    if missing:
        others = sorted(set(corpus.column_names) - {"image", ROW})
        raise ValueError(f"`--group_by {missing[0]}`: {source} has no such column; it has {', '.join(others)}.")
    return {column: np.array(_group_names(corpus, column), dtype=object) for column in columns}


def _group_names(corpus: Dataset, column: str) -> list[str | None]:
    named, feature = label_columns.names(corpus, column), corpus.features[column]
    is_number = isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "float"))
    if not is_number or len(set(named) - {None}) <= TENS:
        return named
    starts = label_columns.numbers(corpus, column) // TENS * TENS
    return [None if np.isnan(start) else f"{start:.0f}-{start + TENS - 1:.0f}" for start in starts]


def measure_groups(
    columns: Mapping[str, np.ndarray], method: str, unit: str, measure: Callable[[np.ndarray], Sequence[dict]]
) -> dict[str, Groups]:
    """Measure each group.

    Args:
        columns: Of each test image or pair, None for those that are left out; by column.
        method: What is measured, in words.
        unit: `images` or `pairs`.
        measure: From the places of a group to its measures, one for each seed, or none where they do not exist.

    Returns:
        By column, group and method, its measures and how many images or pairs they are of.
    """
    results: dict[str, Groups] = {column: {} for column in columns}
    for column, groups in columns.items():
        for group in sorted(set(groups) - {None}, key=_order):
            places = np.flatnonzero(groups == group)
            measured = measure(places)
            if measured:
                count = {"mean": len(places), "spread": None, "values": [len(places)]}
                results[column][group] = {method: over_seeds(measured) | {unit: count}}
    return results


def _order(group: str) -> tuple:
    start = group.partition("-")[0]
    return (int(start), group) if start.isdigit() else (0, group)


def group_tables(groups: dict[str, Groups], measures: Sequence[str], unit: str) -> str:
    """The measures in words, a table a column."""
    tables = []
    for column, results in groups.items():
        few = [name for name, methods in results.items() if next(iter(methods.values()))[unit]["mean"] < FEW]
        table = results_table(results, [unit, *measures]).replace("feature", f"{column:7}", 1)
        tables.append(table + (f"\nFewer than {FEW} {unit}, which say little: {', '.join(few)}" if few else ""))
    return "\n\n".join(tables)
