"""A training iteration: beside a plain one, beside its convolutions alone, and how it grows.

The convolutions are those of the published network, each on all images of its objective at once; linear layers, losses,
views and optimizer are none. `plain` is what `scripts/benchmarks/baselines/plain_step.py` writes out.
"""

from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm

from modeling_pcl import PCLConfig, PCLForPreTraining
from modeling_pcl.configuration_pcl import OBJECTIVES
from modeling_pcl.data.corpora import load_corpus
from modeling_pcl.options import option

from . import report
from .baselines import plain_step
from .convolutions import BareConvolutions, Convolution, record_convolutions
from .iterations import IterationOptions, TimedIteration, bound_batch, median_parts, training_flags

DTYPE = torch.bfloat16  # of `pcl pretrain`'s autocast
PARTS_OF_MODEL = ("encoder", "decoder")


@dataclass
class StepBenchmark(IterationOptions):
    """Which iteration, and how much work."""

    parts: str = option("iteration,growth,options", "Which parts to run, with commas between them.")
    pairs: int = option(3, "Pairs of timings beside the convolutions alone, of which medians are taken.")
    plain_pairs: int = option(2, "Pairs of timings beside the plain iteration.")
    growth_batch_sizes: str = option("64,128,256", "Batches of the part `growth`, with commas between them.")
    growth_image_sizes: str = option("64,96", "Sides in px there, at the smallest of the batches.")
    plain_up_to: int = option(128, "Largest batch in `growth` for which the plain iteration is timed, at `image_size`.")
    output_dir: str = option("runs/benchmark-step", "Folder for results.json.")


def announce(corpus: Dataset, options: StepBenchmark) -> Dataset:
    corpus = bound_batch(corpus, options)
    print(f"Memory: {report.memory_kind()}, above what was held before the first iteration")
    return corpus


# What is timed.


def prepare_ours(options: StepBenchmark, batch_size: int, image_size: int, *switches: str) -> TimedIteration:
    """An iteration of `pcl pretrain`, with some of its options switched on."""
    sizes = {"batch_size": batch_size, "image_size": image_size}
    return TimedIteration(training_flags(options, **sizes, **dict.fromkeys(switches, True)))


class PlainIteration:
    """One plain iteration a call, with views of other images each time.

    Attributes:
        views_s: Seconds that the last call spent on views.
    """

    def __init__(self, options: StepBenchmark, batch_size: int, image_size: int):
        self.corpus, self.batch_size = load_corpus(options.corpus), batch_size
        self.model = PCLForPreTraining(make_config(options, image_size)).to(report.device()).train()
        self.optimizer = plain_step.make_optimizer(self.model)
        count, negatives = options.pose_images, options.pose_negatives_per_image
        self.views = plain_step.IterationViews(self.corpus, image_size, count, negatives)
        self.generator, self.views_s = np.random.default_rng(0), 0.0

    def __call__(self):
        rows = self.generator.choice(len(self.corpus), self.batch_size, replace=False).tolist()
        start = report.now()
        inputs = plain_step.make_inputs(self.views, rows, workers=report.cpus())
        self.views_s = report.now() - start
        device = self.model.device
        inputs = {name: {key: value.to(device) for key, value in tensors.items()} for name, tensors in inputs.items()}
        plain_step.train_step(self.model, self.optimizer, inputs)


class BareIteration:
    """The convolutions of one iteration a call.

    Attributes:
        spent: Seconds of every call, by objective and part of the model.
    """

    def __init__(self, options: StepBenchmark, batch_size: int, image_size: int):
        self.convolutions = iteration_convolutions(options, batch_size, image_size)
        self.compute = BareConvolutions(list(chain(*self.convolutions.values())), DTYPE, report.device())
        self.spent: list[dict[tuple[str, str], float]] = []

    def __call__(self):
        parts = {}
        for objective, convolutions in self.convolutions.items():
            for part in PARTS_OF_MODEL:
                of_part = [layer for layer in convolutions if layer.is_of_decoder == (part == "decoder")]
                parts[objective, part] = report.seconds(partial(self.compute, of_part))
        self.spent.append(parts)


def make_config(options: StepBenchmark, image_size: int) -> PCLConfig:
    return PCLConfig(**(PCLConfig().scaled(options.width).to_dict() | {"image_size": image_size}))


def iteration_convolutions(options: StepBenchmark, batch_size: int, image_size: int) -> dict[str, list[Convolution]]:
    """By objective, without computing anything."""
    views = {
        "disentangling": (batch_size, 3),
        "face_contrast": (batch_size, 2),
        "pose_contrast": (min(options.pose_images, batch_size), 2 + options.pose_negatives_per_image),
    }
    with torch.device("meta"):
        model = PCLForPreTraining(make_config(options, image_size))
    convolutions = {}
    for name, compute_loss in plain_step.OBJECTIVES.items():
        inputs = plain_step.INPUTS[name](torch.empty(*views[name], 3, image_size, image_size, device="meta"))
        inputs = {key: value.to("meta") for key, value in inputs.items()}
        convolutions[name] = record_convolutions(model, partial(compute_loss, model, **inputs))
    return convolutions


# The parts. Where ours stands above something else, that is the first of the pair.


def measure_iteration(corpus: Dataset, options: StepBenchmark) -> dict:
    sizes = options.batch_size, options.image_size
    ours, plain, bare = (make(options, *sizes) for make in (prepare_ours, PlainIteration, BareIteration))
    times_the_bare = report.paired(bare, ours, options.pairs).columns("times the bare")
    objectives = by_objective(median_parts(ours.spent), median_parts(bare.spent), times_the_bare)
    timed = report.paired(ours, plain, options.plain_pairs)
    row = {"images": f"{sizes[0]} / {sizes[0]} / {options.pose_images} x {options.pose_negatives_per_image}"}
    row |= {"ours, s": timed.ours_s, "plain, s": timed.baseline_s, "its views, s": plain.views_s, **timed.columns()}
    row |= {"ours, MiB": memory_mib(prepare_ours, options, *sizes)}
    row |= {"plain, MiB": memory_mib(PlainIteration, options, *sizes)}
    row["times less memory"] = row["plain, MiB"] / row["ours, MiB"]
    return {
        "objectives": ("An iteration of pretrain.py beside its convolutions alone", objectives),
        "iteration": ("An iteration beside a plain one, images and views included", [row]),
    }


def memory_mib(*work) -> float:
    return report.peak_memory(*work)["extra_mib"]


def by_objective(
    spent: dict[str, float], bare: dict[tuple[str, str], float], times_the_bare: dict[str, float]
) -> list[dict]:
    """What bounds the iteration."""
    rows = []
    for name in OBJECTIVES:
        row = {"objective": name, "ours, s": spent[name]}
        row |= {f"{part}, s": spent[f"{name} {part}"] for part in ("views", "optimizer")}
        row |= {f"bare {part}, s": bare[name, part] for part in PARTS_OF_MODEL}
        row["times the bare"] = spent[name] / sum(bare[name, part] for part in PARTS_OF_MODEL)
        rows.append(row)
    total = {"objective": "all, and reading images", "ours, s": spent["total"]}
    total |= {name: sum(row[name] for row in rows) for name in rows[0] if name not in ("objective", "ours, s")}
    return [*rows, total | {"waits for images, s": spent["waits for images"]} | times_the_bare]


def measure_growth(corpus: Dataset, options: StepBenchmark) -> dict:
    batches = sorted({min(size, len(corpus)) for size in report.integers(options.growth_batch_sizes)})
    sides = sorted({*report.integers(options.growth_image_sizes)} - {options.image_size})
    sizes = [*((batch, options.image_size) for batch in batches), *((batches[0], side) for side in sides)]
    rows = [measure_size(options, *size) for size in tqdm(sizes, desc="Sizes", leave=False)]
    return {"growth": ("Growth with batch and image size", rows)}


def measure_size(options: StepBenchmark, batch_size: int, image_size: int) -> dict:
    sizes = batch_size, image_size
    ours = prepare_ours(options, *sizes)
    limit = report.paired(BareIteration(options, *sizes), ours, options.pairs)
    row = {"batch": batch_size, "px": image_size, "ours, s": limit.baseline_s, "bare, s": limit.ours_s}
    row["times the bare"] = limit.ratio
    row["ours, MiB"] = memory_mib(prepare_ours, options, *sizes)
    if batch_size <= options.plain_up_to and image_size == options.image_size:
        timed = report.paired(ours, PlainIteration(options, *sizes), pairs=1)
        row |= {"plain, s": timed.baseline_s, "times as fast": timed.ratio}
        row["plain, MiB"] = memory_mib(PlainIteration, options, *sizes)
    return row


def measure_options(corpus: Dataset, options: StepBenchmark) -> dict:
    """`compile` and `gradient_checkpointing`, beside an iteration without them."""
    sizes = options.batch_size, options.image_size
    default, without_mib = prepare_ours(options, *sizes), memory_mib(prepare_ours, options, *sizes)
    rows = []
    for name in ("compile", "gradient_checkpointing"):
        timed = report.paired(default, prepare_ours(options, *sizes, name), options.pairs)
        row = {"option": f"--{name}", "s": timed.baseline_s, "without, s": timed.ours_s, "times the time": timed.ratio}
        with_mib = memory_mib(prepare_ours, options, *sizes, name)
        rows.append(row | {"MiB": with_mib, "without, MiB": without_mib, "times the memory": with_mib / without_mib})
    return {"options": ("Options of pretrain.py, each beside an iteration without it", rows)}


run = partial(
    report.run,
    name="step",
    kind=StepBenchmark,
    parts={"iteration": measure_iteration, "growth": measure_growth, "options": measure_options},
    prepare=announce,
)
