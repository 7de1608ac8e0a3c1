"""Summaries of a probe's measures over seeds and folds, and their tables."""

import statistics
from collections.abc import Mapping, Sequence

from tabulate import tabulate

Measures = Mapping[str, float | None]
# By sign: 1 if higher is better, -1 if lower is better, 0 if neither. Tables show arrows, pictures show words.
ARROWS = {1: " ↑", -1: " ↓", 0: ""}
DIRECTIONS = {1: "higher is better", -1: "lower is better", 0: "neither is better"}


def summarise_seeds(measures: Sequence[Measures]) -> dict[str, dict]:
    """Compute mean, spread and values of each measure over the seeds.

    The spread is the standard deviation (ddof=1); None for a single value. None values do not count in mean and spread.
    """
    summary = {}
    for name in measures[0]:
        values = [measure[name] for measure in measures]
        known_values = [value for value in values if value is not None]
        summary[name] = {
            "mean": statistics.fmean(known_values) if known_values else None,
            "spread": statistics.stdev(known_values) if len(known_values) > 1 else None,
            "values": values,
        }
    return summary


def average_folds(measures: Sequence[Measures]) -> dict[str, float | None]:
    """Average each measure over the folds. Counts (integers) are summed instead."""
    result = {}
    for name in measures[0]:
        values = [measure[name] for measure in measures if measure[name] is not None]
        is_count = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
        result[name] = None if not values else sum(values) if is_count else statistics.fmean(values)
    return result


def results_table(results: Mapping[str, Mapping[str, Mapping]], measures: Sequence[str]) -> str:
    """Format a table with a line for each feature and probe, and mean and spread of some measures."""
    rows = []
    for feature, probes in results.items():
        for probe, summary in probes.items():
            cells = {name: format_mean_and_spread(summary[name]) for name in measures if name in summary}
            rows.append({"feature": feature, "probe": probe} | cells)
    return tabulate(rows, headers="keys", disable_numparse=True)


def format_mean_and_spread(summary: Mapping | None) -> str:
    """Format mean and spread as `0.412 ± 0.003`, and a count as the count alone."""
    if summary is None or summary["mean"] is None:
        return "–"
    if isinstance(summary["mean"], int):
        return f"{summary['mean']:,}"
    digits = 3 if abs(summary["mean"]) < 2 else 2
    spread = "" if summary["spread"] is None else f" ± {summary['spread']:.{digits}f}"
    return f"{summary['mean']:.{digits}f}{spread}"


def to_bars(summaries: Mapping[str, Mapping]) -> dict[str, tuple[float | None, float | None]]:
    """Convert summaries to `(mean, spread)` by feature, the form that charts take."""
    return {feature: (summary["mean"], summary["spread"]) for feature, summary in summaries.items()}
