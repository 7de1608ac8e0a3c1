"""The scores of the probes as `evaluate` modules that load without network access.

Each module wraps a function of `scores`. `evaluate.load` takes the path of its folder, copies the file to Hugging
Face's cache (`HF_HOME`) and imports the copy. Nothing is written to the working directory.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import evaluate
from datasets import Features, List, Value

METRICS = ("action_unit_f1", "angular_mae", "expression_accuracy", "fold_verification")
# Floats, so that a probability is rejected and not truncated to class 0; not `format="numpy"`, which rounds to float32.
NUMBER = Value("float64")
ROW = List(NUMBER)


class ScoreMetric(evaluate.Metric):
    """Base class of metrics that a function of `predictions`, `references` and options computes."""

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
    """Load one of `METRICS`. The arguments of its `compute` are those of the function that it wraps.

    Raises:
        ValueError: If there is no metric of that name.
    """
    if name not in METRICS:
        raise ValueError(f"`name` must be one of {', '.join(METRICS)}, got {name!r}.")
    # In memory, because the file of rows stays locked after an error, which delays the next `compute` by a second.
    return evaluate.load(str(Path(__file__).parent / name), keep_in_memory=True)
