"""What a probe leaves behind: results.json, predictions, pictures, a table."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset
from tabulate import tabulate

from ..data.label_columns import is_missing
from ..data.label_columns import names as label_names
from ..files import write_json
from ..training.record import describe_run
from .arguments import ProbeArguments
from .encoder import Encoder
from .subset import ROW

Measures = Mapping[str, float | None]


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


def remove_old_results(folder: Path):
    """Make the folder, and delete the results of an earlier probe in it.

    Raises:
        OSError: If it cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").unlink(missing_ok=True)


def write_results(arguments: ProbeArguments, encoder: Encoder, facts: Mapping):
    """Write `results.json`: the facts, and what was run.

    Args:
        arguments: The options.
        encoder: The model.
        facts: `metric`, `selection`, `parts` and `results`, and what else there is to say.
    """
    run = describe_run(asdict(arguments), encoder.digest)
    run["model_revision"] = run.pop("data_revision")
    config = encoder.model.config
    sizes = {"hidden_sizes": config.hidden_sizes, "feature_channels": config.feature_channels}
    record = {"task": arguments.task, "model": encoder.name, **sizes, **facts, **run}
    write_json(Path(arguments.output_dir) / "results.json", record)


def write_predictions(folder: Path, columns: Mapping[str, Sequence]):
    """Write `predictions.csv`, a line for each image or pair."""
    Dataset.from_dict(dict(columns)).to_pandas().to_csv(folder / "predictions.csv", index=False)


def results_table(
    results: Mapping[str, Mapping[str, Mapping]], measures: Sequence[str], tablefmt: str = "simple"
) -> str:
    """A line for each feature and probe: mean and spread of some measures."""
    rows = [
        {
            "feature": feature,
            "probe": probe,
            **{name: mean_and_spread(summary[name]) for name in measures if name in summary},
        }
        for feature, probes in results.items()
        for probe, summary in probes.items()
    ]
    return tabulate(rows, headers="keys", tablefmt=tablefmt, disable_numparse=True)


def mean_and_spread(summary: Mapping | None) -> str:
    """Mean and spread, `0.412 ± 0.003`; of a count the count."""
    if summary is None or summary["mean"] is None:
        return "–"
    if isinstance(summary["mean"], int):
        return f"{summary['mean']:,}"
    digits = 3 if abs(summary["mean"]) < 2 else 2
    spread = "" if summary["spread"] is None else f" ± {summary['spread']:.{digits}f}"
    return f"{summary['mean']:.{digits}f}{spread}"


# Groups of people, measured apart.

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


def measure_groups(
    groups: np.ndarray, method: str, unit: str, measure: Callable[[np.ndarray], Sequence[dict]]
) -> Groups:
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
        table = results_table(results, [unit, *measures]).replace("feature", f"{column:7}", 1)
        tables.append(table + (f"\nFewer than {FEW} {unit}, which say little: {', '.join(few)}" if few else ""))
    return "\n\n".join(tables)
