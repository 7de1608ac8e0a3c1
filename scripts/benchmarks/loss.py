"""Time and memory of the face contrast's loss, forward and backward, compared with materialised negatives."""

from dataclasses import dataclass
from functools import partial

import torch
from tqdm import tqdm

from modeling_pcl import losses_pcl
from modeling_pcl.options import option

from . import report
from .baselines.materialised_loss import materialised_face_loss

TEMPERATURE = 0.07


@dataclass
class LossBenchmark:
    """The embeddings, and the amount of work."""

    rows: str = option("128,256,512,1024,2048,4096,8192", "Numbers of embeddings, two per image, separated by commas.")
    dim: int = option(512, "Length of an embedding.")
    materialised_up_to: int = option(
        512, "Largest number of embeddings for which negatives are materialised; 512 take about 5 GB."
    )
    pairs: int = option(5, "Pairs of timings, of which medians are reported.")
    output_dir: str = option("runs/benchmark-loss", "Folder for results.json.")


def check_rows(corpus: None, options: LossBenchmark) -> list[int]:
    sizes = report.parse_integers(options.rows)
    if any(rows < 4 or rows % 2 for rows in sizes):
        raise ValueError(f"`--rows` must be even numbers of at least 4, got {options.rows}.")
    print(f"Loss of embeddings of {options.dim} dimensions, float32, on {report.describe_machine()}")
    print(f"Memory: {report.describe_memory()}, above what was held before")
    return sizes


def measure_loss(sizes: list[int], options: LossBenchmark) -> dict:
    rows = [measure_size(size, options) for size in tqdm(sizes, desc="Sizes", leave=False)]
    return {"loss": ("Mixed-negative loss, forward and backward", rows)}


def measure_size(rows: int, options: LossBenchmark) -> dict:
    ours = prepare("ours", rows, options.dim)
    memory = report.measure_peak_memory(prepare, "ours", rows, options.dim)
    memory_columns = {"ours, MiB": memory["extra_mib"], "its process, MiB": memory["total_mib"]}
    if rows > options.materialised_up_to:
        return {"2N": rows, "ours, ms": 1000 * report.median_seconds(ours, options.pairs)} | memory_columns
    timed = report.time_pairs(ours, prepare("written out", rows, options.dim), options.pairs)
    baseline_mib = report.measure_peak_memory(prepare, "written out", rows, options.dim)["extra_mib"]
    row = {"2N": rows, "ours, ms": 1000 * timed.ours_s, **memory_columns, "written out, ms": 1000 * timed.baseline_s}
    row |= timed.columns()
    return row | {"written out, MiB": baseline_mib, "times less memory": baseline_mib / memory["extra_mib"]}


def prepare(way: str, rows: int, dim: int):
    """Prepare the work on random embeddings. A small batch comes first, so that torch's set-up is not measured."""
    train_on(way, *draw_inputs(4, dim))
    return partial(train_on, way, *draw_inputs(rows, dim))


def draw_inputs(rows: int, dim: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(rows, dim, generator=generator)
    mix = torch.rand(rows, rows - 2, generator=generator)
    inputs = embeddings, mix, torch.randperm(rows - 2, generator=generator)
    return tuple(tensor.to(report.get_device()) for tensor in inputs)


def train_on(way: str, embeddings: torch.Tensor, mix: torch.Tensor, permutation: torch.Tensor) -> torch.Tensor:
    embeddings = embeddings.detach().requires_grad_()
    WAYS[way](embeddings, mix, permutation, TEMPERATURE).backward()
    return embeddings.grad


WAYS = {"ours": losses_pcl.mixed_negative_loss, "written out": materialised_face_loss}
run = partial(report.run, name="loss", kind=LossBenchmark, parts={"loss": measure_loss}, prepare=check_rows)
