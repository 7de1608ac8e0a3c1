"""Iterations of `pcl pretrain` itself, and where their time goes."""

import statistics
from collections.abc import Mapping
from typing import Any

from modeling_pcl.training.options import parse_options
from modeling_pcl.training.run import Pretraining, train_step

from . import report


class _Timed:
    """Times the methods of an object.

    Args:
        target: The object.
        calls: Takes name, start and end of every call.
    """

    def __init__(self, target: Any, calls: list[tuple[str, float, float]]):
        self.target, self.calls = target, calls

    def __getattr__(self, name: str):
        method = getattr(self.target, name)

        def timed(*args, **kwargs):
            start = report.now()
            result = method(*args, **kwargs)
            self.calls.append((name, start, report.now()))
            return result

        return timed


class Iteration:
    """One iteration a call: images read, and all optimizer steps.

    Args:
        flags: Options of `pcl pretrain`; the schedule must be the alternating one.

    Attributes:
        spent: Seconds of every call by part: `total`, `waits for images`, and `NAME`, `NAME views` and `NAME optimizer`
            of each objective.
    """

    def __init__(self, flags: Mapping[str, Any]):
        self.run = Pretraining(parse_options([f"--{name}={value}" for name, value in flags.items()]))
        self.calls: list[tuple[str, float, float]] = []
        self.run.views = _Timed(self.run.views, self.calls)
        self.run.stepper.optimizer = _Timed(self.run.stepper.optimizer, self.calls)
        self.batches = iter(self.run.loader)
        self.spent: list[dict[str, float]] = []

    def __call__(self):
        self.calls.clear()
        start = report.now()
        batches = self.run.read_batches(self.batches)
        read = report.now()
        train_step(self.run, batches)
        parts = {"total": report.now() - start, "waits for images": read - start}
        # Of each objective: zero_grad, views, then, behind forward and backward, the optimizer's step.
        for (_, begin, _), (name, views, viewed), (_, step, end) in zip(*[iter(self.calls)] * 3):
            parts |= {name: end - begin, f"{name} views": viewed - views, f"{name} optimizer": end - step}
        self.spent.append(parts)

    def medians(self) -> dict[str, float]:
        """Of all calls but the first, by part."""
        return {name: statistics.median(parts[name] for parts in self.spent[1:]) for name in self.spent[0]}


def training_flags(options, batch_size: int, image_size: int, **more) -> dict[str, Any]:
    """Options of `pcl pretrain` for a benchmark's."""
    return {
        "corpus": options.corpus,
        "width": options.width,
        "image_size": image_size,
        "batch_size": batch_size,
        "pose_images": options.pose_images,
        "pose_negatives_per_image": options.pose_negatives_per_image,
        "subject_sampling": "off",
        "steps": 1000,
        "output_dir": f"{options.output_dir}/model",
        "report_to": "none",
        **more,
    }
