"""The tasks that end in a head: how their labels are read, their predictions measured and their results drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from datasets import Dataset
from PIL import Image

from modeling_pcl.probes.metrics import load_metric
from modeling_pcl.probes.pictures import draw_confusion, draw_pose_errors, draw_unit_scores

from .arguments import ProbeArguments
from .labels import ANGLES, Labels, read_action_units, read_classes, read_head_pose

THRESHOLD = 0.5


@dataclass(frozen=True)
class HeadTask:
    """A task whose probe becomes a model.

    Args:
        image_size: Side of the images, in px, where none is asked for.
        metric: The first of its measures, by which models are compared.
        read: From a corpus to its labels.
        measure: From logits, targets and names to numbers (and, for pictures, tables).
        draw: From logits, targets, names and a title to a picture, under the name of its file.
        predict: From logits and names to columns of predictions.
    """

    image_size: int
    metric: str
    read: Callable[[Dataset], Labels]
    measure: Callable[[torch.Tensor, torch.Tensor, tuple[str, ...]], dict]
    draw: Callable[[torch.Tensor, torch.Tensor, tuple[str, ...], str], dict[str, Image.Image]]
    predict: Callable[[torch.Tensor, tuple[str, ...]], dict[str, list]]


def head_task(arguments: ProbeArguments) -> HeadTask:
    """The task that the options name."""
    read = partial(read_classes, column=arguments.label_column, names=tuple(arguments.label_names))
    return {
        "expression": HeadTask(100, "accuracy", read, _measure_classes, _draw_classes, _predict_classes),
        "head_pose": HeadTask(256, "mae", read_head_pose, _measure_pose, _draw_pose, _predict_pose),
        "action_units": HeadTask(100, "f1", read_action_units, _measure_units, _draw_units, _predict_units),
    }[arguments.task]


def measure_predictions(predictions, targets: torch.Tensor, names: tuple[str, ...], **options) -> dict:
    """Accuracy, mean-class accuracy and macro-F1 of predicted classes."""
    metric = load_metric("expression_accuracy")
    return metric.compute(
        predictions=predictions, references=targets.tolist(), labels=list(range(len(names))), **options
    )


def _measure_classes(logits: torch.Tensor, targets: torch.Tensor, names: tuple[str, ...]) -> dict:
    return measure_predictions(logits.argmax(dim=1).tolist(), targets, names)


def _draw_classes(logits, targets, names, title) -> dict[str, Image.Image]:
    counts = measure_predictions(logits.argmax(dim=1).tolist(), targets, names, confusion_matrix="counts")
    return {"confusion.png": draw_confusion(counts["confusion_matrix"], names, title)}


def _predict_classes(logits: torch.Tensor, names: tuple[str, ...]) -> dict[str, list]:
    shares = logits.softmax(dim=1)
    return {
        "prediction": [names[number] for number in logits.argmax(dim=1).tolist()],
        "probability": shares.max(dim=1).values.tolist(),
    }


def _measure_pose(logits: torch.Tensor, targets: torch.Tensor, names: tuple[str, ...]) -> dict:
    return load_metric("angular_mae").compute(predictions=logits.tolist(), references=targets.tolist())


def _draw_pose(logits, targets, names, title) -> dict[str, Image.Image]:
    return {"head_pose.png": draw_pose_errors(logits.numpy(), targets.numpy(), title)}


def _predict_pose(logits: torch.Tensor, names: tuple[str, ...]) -> dict[str, list]:
    return {f"predicted_{angle}": column.tolist() for angle, column in zip(ANGLES, logits.T)}


def _measure_units(logits: torch.Tensor, targets: torch.Tensor, names: tuple[str, ...]) -> dict:
    results = load_metric("action_unit_f1").compute(
        predictions=logits.sigmoid().tolist(), references=targets.tolist(), names=list(names), threshold=THRESHOLD
    )
    units = {f"f1_{name}": score for name, score in results["f1_per_unit"].items()}
    return {"f1": results["f1"], **units, "images": results["frames"]}


def _draw_units(logits, targets, names, title) -> dict[str, Image.Image]:
    results = _measure_units(logits, targets, names)
    return {"f1.png": draw_unit_scores({name: results[f"f1_{name}"] for name in names}, title, "F1")}


def _predict_units(logits: torch.Tensor, names: tuple[str, ...]) -> dict[str, list]:
    return {f"probability_{name}": column.tolist() for name, column in zip(names, logits.sigmoid().T)}
