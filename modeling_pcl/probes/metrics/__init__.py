"""Metrics of the probes, as `evaluate` modules that load without a network.

Each wraps a function of `scores`. `evaluate.load` takes the path of its folder, copies the file into Hugging Face's
cache (`HF_HOME`) and imports the copy. Nothing is written to the working directory.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import evaluate
from datasets import Features, List, Value

METRICS = ("action_unit_f1", "angular_mae", "expression_accuracy", "fold_verification")
# Floats, so that a probability is refused and not cut to class 0; without `format="numpy"`, which rounds to float32.
NUMBER = Value("float64")
ROW = List(NUMBER)


class ScoreMetric(evaluate.Metric):
    """A metric that a function of `predictions`, `references` and options computes; its docstring says which."""

    compute_scores: Callable[..., dict]
    inputs = {"predictions": NUMBER, "references": NUMBER}
    source = ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=sys.modules[type(self).__module__].__doc__,
            citation=self.source,
            inputs_description=self.compute_scores.__doc__,
            features=Features(self.inputs),
        )

    def _compute(self, predictions, references, **options):
        return self.compute_scores(predictions, references, **options)


def load_metric(name: str) -> evaluate.EvaluationModule:
    """Open one of `METRICS`; its `compute` takes what the docstring of its file says.

    Raises:
        ValueError: If there is no metric of that name here.
    """
    if name not in METRICS:
        raise ValueError(f"`name` must be one of {', '.join(METRICS)}, got {name!r}.")
    # In memory: evaluate's file of rows stays locked after an error, and the next `compute` waits a second for it.
    return evaluate.load(str(Path(__file__).parent / name), keep_in_memory=True)
