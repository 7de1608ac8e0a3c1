"""Time of an iteration of PCL, compared with one of SimCLR with the same recipe and images."""

from dataclasses import dataclass
from functools import partial

from datasets import Dataset

from modeling_pcl.options import option

from . import report
from .iterations import Iteration, build_flags


@dataclass
class MethodsBenchmark:
    """The iteration, and the amount of work."""

    corpus: str = option("orl", "Corpus, as for `pcl pretrain`.")
    recipe: str = option("small", "Recipe of `pcl pretrain`.")
    width: float = option(0.25, "Width of the model; 1 is the published one.")
    image_size: int = option(64, "Side of the views in px.")
    batch_size: int | None = option(None, "Images per batch; by default that of the recipe.")
    pairs: int = option(5, "Pairs of timings, of which medians are reported.")
    output_dir: str = option("runs/benchmark-methods", "Folder for results.json.")


def announce(corpus: Dataset, options: MethodsBenchmark):
    print(f"{len(corpus)} images of {options.corpus}, width {options.width}, on {report.describe_machine()}")


def measure_methods(measured: None, options: MethodsBenchmark) -> dict:
    simclr, pcl = (
        Iteration(build_flags(options, method=method, output_dir=f"{options.output_dir}/{method}"))
        for method in ("simclr", "pcl")
    )
    timed = report.time_pairs(simclr, pcl, options.pairs)
    row = {"recipe": options.recipe, "SimCLR, s": timed.ours_s, "PCL, s": timed.baseline_s}
    row |= timed.columns("times the time")
    return {"methods": ("An iteration of PCL beside one of SimCLR, images and views included", [row])}


run = partial(report.run, name="methods", kind=MethodsBenchmark, parts={"methods": measure_methods}, prepare=announce)
