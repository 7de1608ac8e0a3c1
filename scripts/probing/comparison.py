"""Several models' results as one table and one plot."""

import statistics
from collections.abc import Mapping, Sequence

from PIL import Image
from tabulate import tabulate

from modeling_pcl.features_pcl import READABLE_FEATURES
from modeling_pcl.probes.comparison_picture import draw_comparison

from .report import in_words

# What of each task stands in the table, and which way is better: up, down, or neither.
MEASURES = {
    "expression": {"accuracy": 1, "mean_class_accuracy": 1},
    "verification": {"accuracy": 1, "auc": 1},
    "head_pose": {"mae": -1},
    "action_units": {"f1": 1},
    "disentanglement": {"pose R²": 1, "identity AUC": 1, "expression accuracy": 1, "mirror movement": 0},
}
DIRECTIONS = {1: "higher is better", -1: "lower is better", 0: "neither is better"}
ARROWS = {1: " ↑", -1: " ↓", 0: ""}

Summary = dict[str, dict[str, dict[str, dict]]]


def summarise(records: Mapping[str, Mapping[str, Sequence[Mapping]]]) -> Summary:
    """From task and model to the records of its runs, to measure, model and feature: mean and spread.

    The spread of one model is over the seeds of its probe; that of several random initialisations over these.
    """
    summary: Summary = {}
    for task, models in records.items():
        for model, runs in models.items():
            for measure in MEASURES[runs[0]["task"]]:
                row = summary.setdefault(f"{task}: {measure}", {}).setdefault(model, {})
                for feature in runs[0]["results"]:
                    row[feature] = _merged([_main_probe(run["results"][feature])[measure] for run in runs])
    return summary


def _main_probe(probes: Mapping[str, Mapping]) -> Mapping:
    """What was trained last of all, or else the first probe there is."""
    return probes.get("identity embedding") or next(iter(probes.values()))


def _merged(measured: Sequence[Mapping]) -> dict:
    if len(measured) == 1:
        return {"mean": measured[0]["mean"], "spread": measured[0]["spread"]}
    means = [each["mean"] for each in measured if each["mean"] is not None]
    return {
        "mean": statistics.fmean(means) if means else None,
        "spread": statistics.stdev(means) if means[1:] else None,
    }


def direction(measure: str) -> int:
    """1 if the higher is the better, -1 if the lower is, 0 if neither."""
    name = measure.partition(": ")[2]
    return next(signs[name] for signs in MEASURES.values() if name in signs)


def as_markdown(summary: Summary) -> str:
    """A line for each measure and feature, a column for each model; the best of a line is bold."""
    lines = []
    for measure, models in summary.items():
        for feature in (name for name in READABLE_FEATURES if any(name in row for row in models.values())):
            cells = {model: row[feature] for model, row in models.items() if feature in row}
            name = measure + ARROWS[direction(measure)]
            lines.append({"measure": name, "feature": feature} | _in_words(cells, direction(measure)))
    return tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True)


def _in_words(cells: Mapping[str, Mapping], sign: int) -> dict[str, str]:
    known = {model: sign * cell["mean"] for model, cell in cells.items() if sign and cell["mean"] is not None}
    best = max(known.values(), default=None)
    return {
        model: f"**{in_words(cell)}**" if known.get(model) == best is not None else in_words(cell)
        for model, cell in cells.items()
    }


def draw(summary: Summary) -> Image.Image:
    """The same as a plot."""
    rows = {
        measure: {
            model: {
                feature: (cell["mean"], cell["spread"])
                for feature, cell in features.items()
                if cell["mean"] is not None
            }
            for model, features in models.items()
        }
        for measure, models in summary.items()
    }
    return draw_comparison(rows, {measure: DIRECTIONS[direction(measure)] for measure in summary})
