"""Iterations of `pcl pretrain` itself, and where their time goes."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from modeling_pcl.options import option
from modeling_pcl.training.options import parse_options
from modeling_pcl.training.run import Pretraining, train_step

from . import report

# Options that benchmarks call as `pcl pretrain` does.
SHARED = (
    "corpus",
    "recipe",
    "width",
    "image_size",
    "batch_size",
    "pose_images",
    "pose_negatives_per_image",
    "mixed_precision",
    "fsdp",
)


@dataclass
class IterationOptions:
    """Which training iteration."""

    corpus: str = option("orl", "Corpus, as for `pcl pretrain`; a parquet file or glob is what training usually reads.")
    width: float = option(1.0, "Width of the model; 1 is the published one.")
    image_size: int = option(64, "Side of the views in px; images are loaded at twice as much.")
    batch_size: int = option(256, "Images of a batch; the pose contrast takes `pose_images` of it.")
    pose_images: int = option(10, "Images of a pose contrast.")
    pose_negatives_per_image: int = option(100, "Views of the mirror of each.")


def bound_batch(corpus: Dataset, options: IterationOptions) -> Dataset:
    """Take batches of at most all images, and say what is measured."""
    options.batch_size = min(options.batch_size, len(corpus))
    print(f"{len(corpus)} images of {options.corpus}, width {options.width}, on {report.describe_machine()}")
    return corpus


def training_flags(options, **changes) -> list[str]:
    """Options of `pcl pretrain`: those of a benchmark that it shares, but for the changes."""
    flags = {name: getattr(options, name) for name in SHARED if getattr(options, name, None) is not None}
    flags |= {"subject_sampling": "off", "steps": 1000, "report_to": "none"}
    flags |= {"output_dir": f"{options.output_dir}/model", **changes}
    return [f"--{name}={value}" for name, value in flags.items()]


class Iteration:
    """One iteration a call, on other images each time: images read, and all optimizer steps.

    Args:
        flags: Options of `pcl pretrain`.
    """

    def __init__(self, flags: Sequence[str]):
        self.run = Pretraining(parse_options(flags))
        self.batches = iter(self.run.loader)

    def __call__(self):
        train_step(self.run, self.run.read_batches(self.batches))


class TimedIteration(Iteration):
    """An iteration that knows where its time goes.

    Args:
        flags: Options of `pcl pretrain`; the schedule must be the alternating one.

    Attributes:
        spent: Seconds of every call by part: `total`, `waits for images`, and `NAME`, `NAME views` and `NAME optimizer`
            of each objective.
    """

    def __init__(self, flags: Sequence[str]):
        super().__init__(flags)
        self.calls: list[tuple[str, float, float]] = []  # Name, start and end of each, in their order.
        for name in self.run.objectives:
            self._time_calls(self.run.views, name)
        for name in ("zero_grad", "step"):
            self._time_calls(self.run.stepper.optimizer, name)
        self.spent: list[dict[str, float]] = []

    def _time_calls(self, target: Any, name: str):
        method = getattr(target, name)

        def timed(*args, **kwargs):
            start = report.now()
            result = method(*args, **kwargs)
            self.calls.append((name, start, report.now()))
            return result

        setattr(target, name, timed)

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


def median_parts(spent: Sequence[Mapping[Any, float]]) -> dict[Any, float]:
    """Median seconds of each part, over all calls but the first."""
    return {name: statistics.median(parts[name] for parts in spent[1:]) for name in spent[0]}
