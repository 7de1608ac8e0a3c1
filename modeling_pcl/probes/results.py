"""Measures of a probe: over seeds and folds, and in a table."""

import statistics
from collections.abc import Mapping, Sequence

from tabulate import tabulate

Measures = Mapping[str, float | None]
# Which way a measure is better: 1 up, -1 down, 0 neither. Behind its name in tables, and in words in pictures.
ARROWS = {1: " ↑", -1: " ↓", 0: ""}
DIRECTIONS = {1: "higher is better", -1: "lower is better", 0: "neither is better"}


def over_seeds(measures: Sequence[Measures]) -> dict[str, dict]:
    """Mean, spread and values of each measure over the seeds.

    The spread is the standard deviation (ddof=1), None of a single value. A value that does not exist is left out.
    """
    summary = {}
    for name in measures[0]:
        values = [measure[name] for measure in measures]
        known = [value for value in values if value is not None]
        summary[name] = {
            "mean": statistics.fmean(known) if known else None,
            "spread": statistics.stdev(known) if len(known) > 1 else None,
            "values": values,
        }
    return summary


def over_folds(measures: Sequence[Measures]) -> dict[str, float | None]:
    """Mean of each measure over the folds; of a count, the sum."""
    result = {}
    for name in measures[0]:
        values = [measure[name] for measure in measures if measure[name] is not None]
        is_count = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
        result[name] = None if not values else sum(values) if is_count else statistics.fmean(values)
    return result


def results_table(results: Mapping[str, Mapping[str, Mapping]], measures: Sequence[str]) -> str:
    """A line for each feature and probe: mean and spread of some measures."""
    rows = []
    for feature, probes in results.items():
        for probe, summary in probes.items():
            cells = {name: mean_and_spread(summary[name]) for name in measures if name in summary}
            rows.append({"feature": feature, "probe": probe} | cells)
    return tabulate(rows, headers="keys", disable_numparse=True)


def mean_and_spread(summary: Mapping | None) -> str:
    """Mean and spread, `0.412 ± 0.003`; of a count the count."""
    if summary is None or summary["mean"] is None:
        return "–"
    if isinstance(summary["mean"], int):
        return f"{summary['mean']:,}"
    digits = 3 if abs(summary["mean"]) < 2 else 2
    spread = "" if summary["spread"] is None else f" ± {summary['spread']:.{digits}f}"
    return f"{summary['mean']:.{digits}f}{spread}"


def bars(summaries: Mapping[str, Mapping]) -> dict[str, tuple[float | None, float | None]]:
    """Mean and spread of each feature, as pictures take them."""
    return {feature: (summary["mean"], summary["spread"]) for feature, summary in summaries.items()}
