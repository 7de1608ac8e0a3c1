"""Time and memory of a training iteration, compared with a plain iteration and with its convolutions alone.

The convolutions alone ("bare") are those of the published network, each on all images of its objective at once, without
linear layers, losses, views and optimizer. The plain iteration is in `scripts/benchmarks/baselines/plain_step.py`.
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
from .iterations import IterationOptions, TimedIteration, build_flags, compute_part_medians, limit_batch

PARTS_OF_MODEL = ("encoder", "decoder")


@dataclass
class StepBenchmark(IterationOptions):
    """The iteration, and the amount of work."""

    parts: str = option("iteration,growth,options", "Parts to run, separated by commas.")
    pairs: int = option(3, "Pairs of timings with the convolutions alone, of which medians are reported.")
    plain_pairs: int = option(2, "Pairs of timings with the plain iteration.")
    growth_batch_sizes: str = option("64,128,256", "Batch sizes in the part `growth`, separated by commas.")
    growth_image_sizes: str = option("64,96", "Sides in px in the part `growth`, at the smallest batch size.")
    plain_up_to: int = option(
        128, "Largest batch size in the part `growth` for which the plain iteration is timed, at `image_size`."
    )
    output_dir: str = option("runs/benchmark-step", "Folder for results.json.")


def announce(corpus: Dataset, options: StepBenchmark) -> Dataset:
    corpus = limit_batch(corpus, options)
    print(f"Memory: {report.describe_memory()}, above what was held before the first iteration")
    return corpus


# The functions to time.


def prepare_ours(options: StepBenchmark, batch_size: int, image_size: int, *switches: str) -> TimedIteration:
    """Prepare an iteration of `pcl pretrain` with the boolean options `switches`."""
    sizes = {"batch_size": batch_size, "image_size": image_size}
    return TimedIteration(build_flags(options, **sizes, **dict.fromkeys(switches, True)))


class PlainIteration:
    """A plain iteration. Each call uses other images.

    Attributes:
        views_s: Seconds that the views took in the last call.
    """

    def __init__(self, options: StepBenchmark, batch_size: int, image_size: int):
        self.corpus, self.batch_size = load_corpus(options.corpus), batch_size
        self.model = PCLForPreTraining(make_config(options, image_size)).to(report.get_device()).train()
        self.optimizer = plain_step.make_optimizer(self.model)
        count, negatives = options.pose_images, options.pose_negatives_per_image
        self.views = plain_step.IterationViews(self.corpus, image_size, count, negatives)
        self.generator, self.views_s = np.random.default_rng(0), 0.0

    def __call__(self):
        rows = self.generator.choice(len(self.corpus), self.batch_size, replace=False).tolist()
        start = report.now()
        inputs = plain_step.make_inputs(self.views, rows, workers=report.available_cpus())
        self.views_s = report.now() - start
        device = self.model.device
        inputs = {name: {key: value.to(device) for key, value in tensors.items()} for name, tensors in inputs.items()}
        plain_step.train_step(self.model, self.optimizer, inputs)


class BareIteration:
    """The convolutions of an iteration.

    Attributes:
        spent: Seconds of each call, by objective and part of the model.
    """

    def __init__(self, options: StepBenchmark, batch_size: int, image_size: int):
        self.convolutions = record_iteration_convolutions(options, batch_size, image_size)
        self.compute = BareConvolutions(
            list(chain(*self.convolutions.values())), report.choose_fast_dtype(), report.get_device()
        )
        self.spent: list[dict[tuple[str, str], float]] = []

    def __call__(self):
        parts = {}
        for objective, convolutions in self.convolutions.items():
            for part in PARTS_OF_MODEL:
                part_layers = [layer for layer in convolutions if layer.is_of_decoder == (part == "decoder")]
                work = partial(self.compute, part_layers)
                parts[objective, part] = report.measure_seconds(work) if part_layers else 0.0
        self.spent.append(parts)


def make_config(options: StepBenchmark, image_size: int) -> PCLConfig:
    return PCLConfig(**(PCLConfig().scaled(options.width).to_dict() | {"image_size": image_size}))


def record_iteration_convolutions(
    options: StepBenchmark, batch_size: int, image_size: int
) -> dict[str, list[Convolution]]:
    """Record the convolutions of each objective on the meta device, without computing them."""
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


# The parts. For ratios such as "times the bare", the other function is the first of the pair.


def measure_iteration(corpus: Dataset, options: StepBenchmark) -> dict:
    sizes = options.batch_size, options.image_size
    ours, plain, bare = (make(options, *sizes) for make in (prepare_ours, PlainIteration, BareIteration))
    times_the_bare = report.time_pairs(bare, ours, options.pairs).columns("times the bare")
    medians = compute_part_medians(ours.spent), compute_part_medians(bare.spent)
    objectives = tabulate_objectives(*medians, times_the_bare)
    timed = report.time_pairs(ours, plain, options.plain_pairs)
    row = {"images": f"{sizes[0]} / {sizes[0]} / {options.pose_images} x {options.pose_negatives_per_image}"}
    row |= {"ours, s": timed.ours_s, "plain, s": timed.baseline_s, "its views, s": plain.views_s, **timed.columns()}
    row |= {"ours, MiB": measure_memory_mib(prepare_ours, options, *sizes)}
    row |= {"plain, MiB": measure_memory_mib(PlainIteration, options, *sizes)}
    row["times less memory"] = row["plain, MiB"] / row["ours, MiB"]
    return {
        "objectives": ("An iteration of pretrain.py beside its convolutions alone", objectives),
        "iteration": ("An iteration beside a plain one, images and views included", [row]),
    }


def measure_memory_mib(*work) -> float:
    return report.measure_peak_memory(*work)["extra_mib"]


def tabulate_objectives(
    spent: dict[str, float], bare: dict[tuple[str, str], float], times_the_bare: dict[str, float]
) -> list[dict]:
    """Compare the time of each objective with that of its convolutions."""
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
    batches = sorted({min(size, len(corpus)) for size in report.parse_integers(options.growth_batch_sizes)})
    sides = sorted({*report.parse_integers(options.growth_image_sizes)} - {options.image_size})
    sizes = [*((batch, options.image_size) for batch in batches), *((batches[0], side) for side in sides)]
    rows = [measure_size(options, *size) for size in tqdm(sizes, desc="Sizes", leave=False)]
    return {"growth": ("Growth with batch and image size", rows)}


def measure_size(options: StepBenchmark, batch_size: int, image_size: int) -> dict:
    sizes = batch_size, image_size
    ours = prepare_ours(options, *sizes)
    bare_timed = report.time_pairs(BareIteration(options, *sizes), ours, options.pairs)
    row = {"batch": batch_size, "px": image_size, "ours, s": bare_timed.baseline_s, "bare, s": bare_timed.ours_s}
    row["times the bare"] = bare_timed.ratio
    row["ours, MiB"] = measure_memory_mib(prepare_ours, options, *sizes)
    if batch_size <= options.plain_up_to and image_size == options.image_size:
        timed = report.time_pairs(ours, PlainIteration(options, *sizes), pairs=1)
        row |= {"plain, s": timed.baseline_s, "times as fast": timed.ratio}
        row["plain, MiB"] = measure_memory_mib(PlainIteration, options, *sizes)
    return row


def measure_options(corpus: Dataset, options: StepBenchmark) -> dict:
    """Compare iterations with `compile` and with `gradient_checkpointing` to one without these options."""
    sizes = options.batch_size, options.image_size
    default, without_mib = prepare_ours(options, *sizes), measure_memory_mib(prepare_ours, options, *sizes)
    rows = []
    for name in ("compile", "gradient_checkpointing"):
        timed = report.time_pairs(default, prepare_ours(options, *sizes, name), options.pairs)
        row = {"option": f"--{name}", "s": timed.baseline_s, "without, s": timed.ours_s, "times the time": timed.ratio}
        with_mib = measure_memory_mib(prepare_ours, options, *sizes, name)
        rows.append(row | {"MiB": with_mib, "without, MiB": without_mib, "times the memory": with_mib / without_mib})
    return {"options": ("Options of pretrain.py, each beside an iteration without it", rows)}


run = partial(
    report.run,
    name="step",
    kind=StepBenchmark,
    parts={"iteration": measure_iteration, "growth": measure_growth, "options": measure_options},
    prepare=announce,
)
