"""The tasks that train a head: reading of labels, measures, charts and predictions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from datasets import Dataset
from PIL import Image
from sklearn.metrics import confusion_matrix

from ..pictures.charts import draw_confusion, draw_errors, draw_unit_scores
from .arguments import HeadArguments
from .labels import Labels, read_action_units, read_classes, read_head_pose, read_numbers
from .objectives import f1_of_logits
from .scores import angular_errors, classification_scores, mean_f1, regression_scores


@dataclass(frozen=True)
class HeadTask:
    """A task whose probe becomes a model.

    Args:
        image_size: Default side of the images, in px.
        metric: The main measure, by which models are compared.
        read: Maps a corpus to its labels.
        measure: Maps logits, targets and names to measures.
        draw: Maps logits, targets, names and a title to a picture.
        predict: Maps logits and names to columns of predictions.
        picture: File name of the picture.
    """

    image_size: int
    metric: str
    read: Callable[[Dataset], Labels]
    measure: Callable[[torch.Tensor, torch.Tensor, tuple[str, ...]], dict]
    draw: Callable[[torch.Tensor, torch.Tensor, tuple[str, ...], str], Image.Image]
    predict: Callable[[torch.Tensor, tuple[str, ...]], dict[str, list]]
    picture: str


def make_head_task(arguments: HeadArguments) -> HeadTask:
    """Build the task that the options select."""
    # 100 and 256 px are the sizes at which the paper probes expressions and head pose.
    if arguments.task == "head_pose":
        draw = partial(_draw_errors, unit="degrees")
        return HeadTask(256, "mae", read_head_pose, _measure_pose, draw, _predict_numbers, "head_pose.png")
    if arguments.task == "action_units":
        return HeadTask(100, "f1", read_action_units, _measure_units, _draw_units, _predict_units, "f1.png")
    if arguments.task == "regression":
        read = partial(read_numbers, column=arguments.label_column)
        return HeadTask(100, "mae", read, _measure_numbers, _draw_errors, _predict_numbers, "regression.png")
    read = partial(read_classes, column=arguments.label_column, names=tuple(arguments.label_names))
    return HeadTask(100, "accuracy", read, _measure_classes, _draw_classes, _predict_classes, "confusion.png")


def _measure_classes(logits: torch.Tensor, targets: torch.Tensor, names: tuple[str, ...]) -> dict:
    return classification_scores(logits.argmax(dim=1).numpy(), targets.numpy())


def _draw_classes(logits, targets, names, title) -> Image.Image:
    counts = confusion_matrix(targets, logits.argmax(dim=1), labels=range(len(names)))
    return draw_confusion(counts, names, title)


def _predict_classes(logits: torch.Tensor, names: tuple[str, ...]) -> dict[str, list]:
    probabilities = logits.softmax(dim=1)
    return {
        "prediction": [names[number] for number in logits.argmax(dim=1).tolist()],
        "probability": probabilities.max(dim=1).values.tolist(),
    }


def _measure_pose(logits: torch.Tensor, targets: torch.Tensor, names: tuple[str, ...]) -> dict:
    return angular_errors(logits.numpy(), targets.numpy())


def _measure_numbers(logits: torch.Tensor, targets: torch.Tensor, names: tuple[str, ...]) -> dict:
    return regression_scores(logits[:, 0].numpy(), targets[:, 0].numpy())


def _draw_errors(logits, targets, names, title, unit: str = "") -> Image.Image:
    return draw_errors(logits.numpy(), targets.numpy(), names, title, unit)


def _predict_numbers(logits: torch.Tensor, names: tuple[str, ...]) -> dict[str, list]:
    return {f"predicted_{name}": column.tolist() for name, column in zip(names, logits.T)}


def _measure_units(logits: torch.Tensor, targets: torch.Tensor, names: tuple[str, ...]) -> dict:
    by_unit = f1_of_logits(logits, targets)
    units = {f"f1_{name}": score for name, score in zip(names, by_unit)}
    return {"f1": mean_f1(by_unit), **units, "images": len(targets)}


def _draw_units(logits, targets, names, title) -> Image.Image:
    return draw_unit_scores(dict(zip(names, f1_of_logits(logits, targets))), title, "F1")


def _predict_units(logits: torch.Tensor, names: tuple[str, ...]) -> dict[str, list]:
    return {f"probability_{name}": column.tolist() for name, column in zip(names, logits.sigmoid().T)}
