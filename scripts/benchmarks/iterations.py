"""Iterations of `pcl pretrain`, and the time that their parts take."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from modeling_pcl.options import option
from modeling_pcl.training.options import parse_options
from modeling_pcl.training.run import Pretraining, train_step

from . import report

# Options that have the same name in benchmarks and in `pcl pretrain`.
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
    """The training iteration to measure."""

    corpus: str = option("orl", "Corpus, as for `pcl pretrain`; training usually reads a parquet file or a glob.")
    width: float = option(1.0, "Width of the model; 1 is the published one.")
    image_size: int = option(64, "Side of the views in px; images are loaded at twice this side.")
    batch_size: int = option(256, "Images per batch; the pose contrast uses `pose_images` of them.")
    pose_images: int = option(10, "Images of the pose contrast.")
    pose_negatives_per_image: int = option(100, "Views of the mirror of each image of the pose contrast.")


def limit_batch(corpus: Dataset, options: IterationOptions) -> Dataset:
    """Limit the batch size to the number of images, and print what is measured."""
    options.batch_size = min(options.batch_size, len(corpus))
    print(f"{len(corpus)} images of {options.corpus}, width {options.width}, on {report.describe_machine()}")
    return corpus


def build_flags(options, **changes) -> list[str]:
    """Build the command line of `pcl pretrain` from the options of a benchmark in `SHARED`, with changes."""
    flags = {name: getattr(options, name) for name in SHARED if getattr(options, name, None) is not None}
    flags |= {"subject_sampling": "off", "steps": 1000, "report_to": "none"}
    flags |= {"output_dir": f"{options.output_dir}/model", **changes}
    return [f"--{name}={value}" for name, value in flags.items()]


class Iteration:
    """An iteration of training, from reading images to the optimizer steps. Each call uses the next images.

    Args:
        flags: Options of `pcl pretrain`.
    """

    def __init__(self, flags: Sequence[str]):
        self.run = Pretraining(parse_options(flags))
        self.batches = iter(self.run.loader)

    def __call__(self):
        train_step(self.run, self.run.read_batches(self.batches))


class TimedIteration(Iteration):
    """An iteration that records the time of its parts.

    Args:
        flags: Options of `pcl pretrain`, with the alternating schedule.

    Attributes:
        spent: Seconds of each call by part: `total`, `waits for images`, and `NAME`, `NAME views` and `NAME optimizer`
            for each objective.
    """

    def __init__(self, flags: Sequence[str]):
        super().__init__(flags)
        self.calls: list[tuple[str, float, float]] = []  # Name, start and end of each call, in order.
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
        # Each objective makes three calls: zero_grad, the views, and after forward and backward the optimizer's step.
        for (_, begin, _), (name, views_start, views_end), (_, step_start, end) in zip(*[iter(self.calls)] * 3):
            parts[name] = end - begin
            parts |= {f"{name} views": views_end - views_start, f"{name} optimizer": end - step_start}
        self.spent.append(parts)


def compute_part_medians(spent: Sequence[Mapping[Any, float]]) -> dict[Any, float]:
    """Compute the median seconds of each part, over all calls but the first."""
    return {name: statistics.median(parts[name] for parts in spent[1:]) for name in spent[0]}
