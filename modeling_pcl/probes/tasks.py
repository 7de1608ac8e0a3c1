"""The tasks that end in a head: how their labels are read, their predictions measured and their results drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from datasets import Dataset
from PIL import Image
from sklearn.metrics import confusion_matrix

from ..head_pose_pcl import ANGLES
from ..pictures.charts import draw_confusion, draw_errors, draw_unit_scores
from .arguments import HeadArguments
from .labels import Labels, read_action_units, read_classes, read_head_pose, read_numbers
from .scores import action_unit_scores, angular_errors, classification_scores, regression_scores


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


def head_task(arguments: HeadArguments) -> HeadTask:
    """Give the task that the options name."""
    # 100 and 256 px are the sides at which the paper reads expressions and head pose.
    if arguments.task == "head_pose":
        return HeadTask(256, "mae", read_head_pose, _measure_pose, _draw_pose, _predict_numbers)
    if arguments.task == "action_units":
        return HeadTask(100, "f1", read_action_units, _measure_units, _draw_units, _predict_units)
    if arguments.task == "regression":
        read = partial(read_numbers, column=arguments.label_column)
        return HeadTask(100, "mae", read, _measure_numbers, _draw_numbers, _predict_numbers)
    read = partial(read_classes, column=arguments.label_column, names=tuple(arguments.label_names))
    return HeadTask(100, "accuracy", read, _measure_classes, _draw_classes, _predict_classes)


def _measure_classes(logits: torch.Tensor, targets: torch.Tensor, names: tuple[str, ...]) -> dict:
    return classification_scores(logits.argmax(dim=1).tolist(), targets.tolist())


def _draw_classes(logits, targets, names, title) -> dict[str, Image.Image]:
    counts = confusion_matrix(targets, logits.argmax(dim=1), labels=range(len(names)))
    return {"confusion.png": draw_confusion(counts, names, title)}


def _predict_classes(logits: torch.Tensor, names: tuple[str, ...]) -> dict[str, list]:
    shares = logits.softmax(dim=1)
    return {
        "prediction": [names[number] for number in logits.argmax(dim=1).tolist()],
        "probability": shares.max(dim=1).values.tolist(),
    }


def _measure_pose(logits: torch.Tensor, targets: torch.Tensor, names: tuple[str, ...]) -> dict:
    return angular_errors(logits.tolist(), targets.tolist())


def _draw_pose(logits, targets, names, title) -> dict[str, Image.Image]:
    return {"head_pose.png": draw_errors(logits.numpy(), targets.numpy(), ANGLES, title, unit="degrees")}


def _predict_numbers(logits: torch.Tensor, names: tuple[str, ...]) -> dict[str, list]:
    return {f"predicted_{name}": column.tolist() for name, column in zip(names, logits.T)}


def _measure_numbers(logits: torch.Tensor, targets: torch.Tensor, names: tuple[str, ...]) -> dict:
    return regression_scores(logits[:, 0].tolist(), targets[:, 0].tolist())


def _draw_numbers(logits, targets, names, title) -> dict[str, Image.Image]:
    return {"regression.png": draw_errors(logits.numpy(), targets.numpy(), names, title)}


def _measure_units(logits: torch.Tensor, targets: torch.Tensor, names: tuple[str, ...]) -> dict:
    results = action_unit_scores(logits.sigmoid().tolist(), targets.tolist(), names)
    units = {f"f1_{name}": score for name, score in results["f1_per_unit"].items()}
    return {"f1": results["f1"], **units, "images": results["frames"]}


def _draw_units(logits, targets, names, title) -> dict[str, Image.Image]:
    results = _measure_units(logits, targets, names)
    return {"f1.png": draw_unit_scores({name: results[f"f1_{name}"] for name in names}, title, "F1")}


def _predict_units(logits: torch.Tensor, names: tuple[str, ...]) -> dict[str, list]:
    return {f"probability_{name}": column.tolist() for name, column in zip(names, logits.sigmoid().T)}
