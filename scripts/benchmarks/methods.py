"""An iteration of PCL beside one of SimCLR, by the same recipe and on the same images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pretrain
from matplotlib.figure import Figure
from transformers import HfArgumentParser

from modeling_pcl.data.corpora import corpus_revision, load_corpus
from modeling_pcl.training.arguments import option

from . import report


@dataclass
class MethodsBenchmark:
    """Which iteration, and how often."""

    corpus: str = option("orl", "Corpus, as for `pretrain.py`.")
    recipe: str = option("small", "Recipe of `pretrain.py`.")
    width: float = option(0.25, "Width of the model; 1 is the published one.")
    image_size: int = option(64, "Side of the views in px.")
    batch_size: int | None = option(None, "Images of a batch; by default the recipe's.")
    pairs: int = option(5, "Pairs of timings, of which medians are taken.")
    output_dir: str = option("runs/benchmark-methods", "Folder for results.json and results.png.")


def run(arguments: list[str]):
    (options,) = HfArgumentParser(MethodsBenchmark, prog="benchmark.py methods").parse_args_into_dataclasses(arguments)
    corpus = load_corpus(options.corpus)
    print(f"{len(corpus)} images of {options.corpus}, width {options.width}, on {report.describe_machine()}")
    simclr, pcl = (make_iteration(options, method) for method in ("simclr", "pcl"))
    timed = report.paired(simclr, pcl, options.pairs)
    row = {
        "recipe": options.recipe,
        "SimCLR, s": timed["ours_s"],
        "PCL, s": timed["baseline_s"],
        "times the time": timed["ratio"],
        "least": timed["ratio_min"],
        "most": timed["ratio_max"],
    }
    report.show("An iteration of PCL beside one of SimCLR, images and views included", [row])
    results = {"methods": [row]}
    report.save(Path(options.output_dir), vars(options), corpus_revision(corpus), results, partial(draw, row=row))
    print(f"\nWritten to {options.output_dir}: results.json and results.png")


def make_iteration(options: MethodsBenchmark, method: str) -> Callable[[], object]:
    """One iteration of `pretrain.py` a call, on other images each time."""
    flags = {
        "corpus": options.corpus,
        "recipe": options.recipe,
        "method": method,
        "width": options.width,
        "image_size": options.image_size,
        "subject_sampling": "off",
        "steps": 1000,
        "output_dir": f"{options.output_dir}/{method}",
        "report_to": "none",
    } | ({"batch_size": options.batch_size} if options.batch_size else {})
    training = pretrain.Pretraining(pretrain.parse_options([f"--{name}={value}" for name, value in flags.items()]))
    batches = iter(training.loader)
    return lambda: pretrain.train_step(training, training.read_batches(batches))


def draw(figure: Figure, row: dict):
    axis = figure.subplots()
    bars = axis.bar(["SimCLR", "PCL"], [row["SimCLR, s"], row["PCL, s"]], color=["C7", "C0"])
    axis.bar_label(bars, fmt="%.2f s")
    axis.margins(y=0.15)
    axis.set(
        ylabel="s", title=f"An iteration by the recipe {row['recipe']}: {row['times the time']:.2f} times the time"
    )
