"""A training iteration: beside a plain one, beside its convolutions alone, and how it grows.

The convolutions are those of the published network, each on all images of its objective at once; linear layers, losses,
views and optimizer are none. `plain` is what `scripts/benchmarks/baselines/plain_step.py` writes out.
"""

import statistics
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm

from modeling_pcl import PCLConfig, PCLForPreTraining
from modeling_pcl.configuration_pcl import OBJECTIVES
from modeling_pcl.data.corpora import corpus_revision, load_corpus
from modeling_pcl.options import option

from . import report
from .baselines import plain_step
from .convolutions import BareConvolutions, Convolution, record_convolutions
from .iterations import Iteration, training_flags

DTYPE = torch.bfloat16  # of `pcl pretrain`'s autocast
PARTS_OF_MODEL = ("encoder", "decoder")


@dataclass
class StepBenchmark:
    """Which iteration, and how much work."""

    corpus: str = option("orl", "Corpus, as for `pcl pretrain`.")
    parts: str = option("iteration,growth,options", "Which parts to run, with commas between them.")
    width: float = option(1.0, "Width of the model; 1 is the published one.")
    image_size: int = option(64, "Side of the views in px.")
    batch_size: int = option(256, "Images of a batch; the pose contrast takes `pose_images` of it.")
    pose_images: int = option(10, "Images of a pose contrast.")
    pose_negatives_per_image: int = option(100, "Views of the mirror of each.")
    pairs: int = option(3, "Pairs of timings beside the convolutions alone, of which medians are taken.")
    plain_pairs: int = option(2, "Pairs of timings beside the plain iteration.")
    growth_batch_sizes: str = option("64,128,256", "Batches of the part `growth`, with commas between them.")
    growth_image_sizes: str = option("64,96", "Sides in px there, at the smallest of the batches.")
    plain_up_to: int = option(128, "Largest batch in `growth` for which the plain iteration is timed, at `image_size`.")
    output_dir: str = option("runs/benchmark-step", "Folder for results.json.")


def run(arguments: list[str]):
    options = report.parse(StepBenchmark, "step", arguments)
    report.check_parts(options.parts, PARTS)
    corpus = load_corpus(options.corpus)
    options.batch_size = min(options.batch_size, len(corpus))
    print(f"{len(corpus)} images of {options.corpus}, width {options.width}, on {report.describe_machine()}")
    print(f"Memory: {report.memory_kind()}, above what was held before the first iteration")
    results = {}
    for name in options.parts.split(","):
        for table, (title, rows) in PARTS[name](corpus, options).items():
            results[table] = rows
            report.show(title, rows)
        report.save(options.output_dir, vars(options), corpus_revision(corpus), results)
    print(f"\nWritten to {options.output_dir}/results.json")


# What is timed.


def prepare_ours(options: StepBenchmark, batch_size: int, image_size: int, **more) -> Iteration:
    return Iteration(training_flags(options, batch_size, image_size, **more))


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
                of_part = [
                    convolution
                    for convolution in convolutions
                    if convolution.layer.startswith("decoder") == (part == "decoder")
                ]
                parts[objective, part] = report.seconds(partial(self.compute, of_part))
        self.spent.append(parts)

    def medians(self) -> dict[tuple[str, str], float]:
        """Of all calls but the first."""
        return {key: statistics.median(parts[key] for parts in self.spent[1:]) for key in self.spent[0]}


def make_config(options: StepBenchmark, image_size: int) -> PCLConfig:
    return PCLConfig(**(PCLConfig().scaled(options.width).to_dict() | {"image_size": image_size}))


def iteration_convolutions(options: StepBenchmark, batch_size: int, image_size: int) -> dict[str, list[Convolution]]:
    """By objective, without computing anything."""
    count, negatives = options.pose_images, options.pose_negatives_per_image
    count = min(count, batch_size)
    with torch.device("meta"):
        model = PCLForPreTraining(make_config(options, image_size))
        image = (3, image_size, image_size)
        inputs = {
            "disentangling": {
                "pixel_values": torch.empty(batch_size, *image),
                "noise": torch.empty(2 * batch_size, *image),
            },
            "face_contrast": {
                "face_views": torch.empty(2 * batch_size, *image),
                "face_mix": torch.empty(2 * batch_size, 2 * batch_size - 2),
                "face_permutation": torch.empty(2 * batch_size - 2, dtype=torch.long),
            },
            "pose_contrast": {
                "pose_views": torch.empty(2 * count, *image),
                "pose_negative_views": torch.empty(count, negatives, *image),
                "pose_mix": torch.empty(count, negatives),
                "pose_permutation": torch.empty(negatives, dtype=torch.long),
            },
        }
    return {
        name: record_convolutions(model, partial(compute_loss, model, **inputs[name]))
        for name, compute_loss in plain_step.OBJECTIVES.items()
    }


def inverted(timed: dict[str, float]) -> dict[str, float]:
    """Ours over the other's time, where `report.paired` gives the other's over ours."""
    return {"median": 1 / timed["ratio"], "least": 1 / timed["ratio_max"], "most": 1 / timed["ratio_min"]}


# The parts.


def measure_iteration(corpus: Dataset, options: StepBenchmark) -> dict:
    sizes = options.batch_size, options.image_size
    ours, plain, bare = (make(options, *sizes) for make in (prepare_ours, PlainIteration, BareIteration))
    limit = report.paired(ours, bare, options.pairs)
    objectives = by_objective(ours.medians(), bare.medians(), limit)
    timed = report.paired(ours, plain, options.plain_pairs)
    held = [report.peak_memory(make, options, *sizes)["extra_mib"] for make in (prepare_ours, PlainIteration)]
    row = {
        "images": f"{sizes[0]} / {sizes[0]} / {options.pose_images} x {options.pose_negatives_per_image}",
        "ours, s": timed["ours_s"],
        "plain, s": timed["baseline_s"],
        "its views, s": plain.views_s,
        "times as fast": timed["ratio"],
        "least": timed["ratio_min"],
        "most": timed["ratio_max"],
        "ours, MiB": held[0],
        "plain, MiB": held[1],
        "times less memory": held[1] / held[0],
    }
    return {
        "objectives": ("An iteration of pretrain.py beside its convolutions alone", objectives),
        "iteration": ("An iteration beside a plain one, images and views included", [row]),
    }


def by_objective(spent: dict[str, float], bare: dict[tuple[str, str], float], limit: dict[str, float]) -> list[dict]:
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
    ratios = inverted(limit)
    total |= {"times the bare": ratios.pop("median"), "waits for images, s": spent["waits for images"], **ratios}
    return [*rows, total]


def measure_growth(corpus: Dataset, options: StepBenchmark) -> dict:
    batches = sorted({min(int(size), len(corpus)) for size in options.growth_batch_sizes.split(",")})
    sides = sorted({int(size) for size in options.growth_image_sizes.split(",")})
    sizes = [(batch, options.image_size) for batch in batches]
    sizes += [(batches[0], side) for side in sides if side != options.image_size]
    rows = [measure_size(options, *size) for size in tqdm(sizes, desc="Sizes", leave=False)]
    return {"growth": ("Growth with batch and image size", rows)}


def measure_size(options: StepBenchmark, batch_size: int, image_size: int) -> dict:
    sizes = batch_size, image_size
    ours = prepare_ours(options, *sizes)
    limit = report.paired(ours, BareIteration(options, *sizes), options.pairs)
    row = {
        "batch": batch_size,
        "px": image_size,
        "ours, s": limit["ours_s"],
        "bare, s": limit["baseline_s"],
        "times the bare": inverted(limit)["median"],
        "ours, MiB": report.peak_memory(prepare_ours, options, *sizes)["extra_mib"],
    }
    if batch_size <= options.plain_up_to and image_size == options.image_size:
        timed = report.paired(ours, PlainIteration(options, *sizes), pairs=1)
        row |= {"plain, s": timed["baseline_s"], "times as fast": timed["ratio"]}
        row["plain, MiB"] = report.peak_memory(PlainIteration, options, *sizes)["extra_mib"]
    return row


def measure_options(corpus: Dataset, options: StepBenchmark) -> dict:
    """`compile` and `gradient_checkpointing`, beside an iteration without them."""
    sizes = options.batch_size, options.image_size
    default = prepare_ours(options, *sizes)
    rows = []
    for name in ("compile", "gradient_checkpointing"):
        timed = report.paired(prepare_ours(options, *sizes, **{name: True}), default, options.pairs)
        held = report.peak_memory(prepare_with, name, options, *sizes)["extra_mib"]
        row = {"option": f"--{name}", "s": timed["ours_s"], "without, s": timed["baseline_s"]}
        rows.append(row | {"times the time": inverted(timed)["median"], "MiB": held})
    held = report.peak_memory(prepare_ours, options, *sizes)["extra_mib"]
    rows = [row | {"without, MiB": held, "times the memory": row["MiB"] / held} for row in rows]
    return {"options": ("Options of pretrain.py, each beside an iteration without it", rows)}


def prepare_with(name: str, options: StepBenchmark, batch_size: int, image_size: int) -> Iteration:
    return prepare_ours(options, batch_size, image_size, **{name: True})


PARTS = {"iteration": measure_iteration, "growth": measure_growth, "options": measure_options}
