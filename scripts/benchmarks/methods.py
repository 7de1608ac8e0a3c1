"""An iteration of PCL beside one of SimCLR, by the same recipe and on the same images."""

from collections.abc import Callable
from dataclasses import dataclass

from modeling_pcl.data.corpora import corpus_revision, load_corpus
from modeling_pcl.options import option
from modeling_pcl.training.options import parse_options
from modeling_pcl.training.run import Pretraining, train_step

from . import report


@dataclass
class MethodsBenchmark:
    """Which iteration, and how often."""

    corpus: str = option("orl", "Corpus, as for `pcl pretrain`.")
    recipe: str = option("small", "Recipe of `pcl pretrain`.")
    width: float = option(0.25, "Width of the model; 1 is the published one.")
    image_size: int = option(64, "Side of the views in px.")
    batch_size: int | None = option(None, "Images of a batch; by default the recipe's.")
    pairs: int = option(5, "Pairs of timings, of which medians are taken.")
    output_dir: str = option("runs/benchmark-methods", "Folder for results.json.")


def run(arguments: list[str]):
    options = report.parse(MethodsBenchmark, "methods", arguments)
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
    report.save(options.output_dir, vars(options), corpus_revision(corpus), results)
    print(f"\nWritten to {options.output_dir}/results.json")


def make_iteration(options: MethodsBenchmark, method: str) -> Callable[[], object]:
    """One iteration of `pcl pretrain` a call, on other images each time."""
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
    training = Pretraining(parse_options([f"--{name}={value}" for name, value in flags.items()]))
    batches = iter(training.loader)
    return lambda: train_step(training, training.read_batches(batches))
