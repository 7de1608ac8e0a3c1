"""What a probe leaves behind: results.json, predictions, pictures, a table."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from datasets import Dataset
from tabulate import tabulate

from modeling_pcl.training.record import describe_run

from .arguments import ProbeArguments
from .encoder import Encoder

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


def describe(arguments: ProbeArguments, encoder: Encoder, facts: Mapping) -> dict:
    """The contents of results.json.

    Args:
        arguments: The options.
        encoder: The model.
        facts: `metric`, `selection`, `parts` and `results`, and what else there is to say.
    """
    run = describe_run(asdict(arguments), encoder.digest)
    run["model_revision"] = run.pop("data_revision")
    config = encoder.model.config
    sizes = {"hidden_sizes": config.hidden_sizes, "feature_channels": config.feature_channels}
    return {"task": arguments.task, "model": encoder.name, **sizes} | dict(facts) | run


def start(folder: Path):
    """Make the folder, and take away what an earlier probe said: it is not of what comes now.

    Raises:
        OSError: If it cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").unlink(missing_ok=True)


def write_results(folder: Path, record: Mapping):
    """Write `results.json`, whole or not at all."""
    partial = folder / ".results.json"
    partial.write_text(json.dumps(record, indent=2) + "\n")
    partial.replace(folder / "results.json")


def write_predictions(folder: Path, columns: Mapping[str, Sequence]):
    """Write `predictions.csv`, a line for each image or pair."""
    Dataset.from_dict(dict(columns)).to_pandas().to_csv(folder / "predictions.csv", index=False)


def table(results: Mapping[str, Mapping[str, Mapping]], measures: Sequence[str], tablefmt: str = "simple") -> str:
    """A line for each feature and probe: mean and spread of some measures."""
    rows = [
        {"feature": feature, "probe": probe, **{name: in_words(summary[name]) for name in measures if name in summary}}
        for feature, probes in results.items()
        for probe, summary in probes.items()
    ]
    return tabulate(rows, headers="keys", tablefmt=tablefmt, disable_numparse=True)


def in_words(summary: Mapping | None) -> str:
    """Mean and spread, `0.412 ± 0.003`; of a count the count."""
    if summary is None or summary["mean"] is None:
        return "–"
    if isinstance(summary["mean"], int):
        return f"{summary['mean']:,}"
    digits = 3 if abs(summary["mean"]) < 2 else 2
    spread = "" if summary["spread"] is None else f" ± {summary['spread']:.{digits}f}"
    return f"{summary['mean']:.{digits}f}{spread}"
