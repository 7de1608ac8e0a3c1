"""Metrics of the probes, as `evaluate` modules that load without a network.

Each wraps a function of `scores`. `evaluate.load` takes the path of its folder, copies the file into Hugging Face's
cache (`HF_HOME`) and imports the copy. Nothing is written to the working directory.
"""

from pathlib import Path

import evaluate

METRICS = ("action_unit_f1", "angular_mae", "expression_accuracy", "fold_verification")


def load_metric(name: str) -> evaluate.EvaluationModule:
    """Open one of `METRICS`; its `compute` takes what the docstring of its file says.

    Raises:
        ValueError: If there is no metric of that name here.
    """
    if name not in METRICS:
        raise ValueError(f"`name` must be one of {', '.join(METRICS)}, got {name!r}.")
    # In memory: evaluate's file of rows stays locked after an error, and the next `compute` waits a second for it.
    return evaluate.load(str(Path(__file__).parent / name), keep_in_memory=True)
