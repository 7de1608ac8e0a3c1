"""A linear probe beside one that extracts features in every epoch, and extraction beside the encoder alone."""

import tempfile
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from datasets import Dataset

from modeling_pcl import PCLConfig, PCLModel
from modeling_pcl.data.corpora import corpus_revision, load_corpus
from modeling_pcl.data.label_columns import names as label_names
from modeling_pcl.options import option
from modeling_pcl.probes.encoder import Encoder
from modeling_pcl.probes.linear import PUBLISHED, Examples, train_linear
from modeling_pcl.probes.objectives import OBJECTIVES

from . import report
from .baselines import reextracted_probe


@dataclass
class ProbeBenchmark:
    """Which images, and how much work."""

    corpus: str = option("orl", "Corpus, as for `pcl pretrain`.")
    label_column: str = option("subject", "Its column of classes, for the part `epochs`.")
    parts: str = option("epochs,extraction", "Which parts to run, with commas between them.")
    epochs: int = option(300, "Epochs of the linear probe.")
    extracted_epochs: int = option(
        1, "Epochs in which the plain probe is timed; the time of all of them follows, since all are alike."
    )
    images: int = option(12_000, "Images of which features are extracted, at most those there are.")
    image_size: int = option(64, "Side of the images, in px.")
    batch_size: int = option(128, "Images encoded at once.")
    widths: str = option("1,0.25", "Widths of the encoder, with commas between them; 1 is the published one.")
    pairs: int = option(2, "Pairs of timings, of which medians are taken.")
    output_dir: str = option("runs/benchmark-probe", "Folder for results.json.")


def run(arguments: list[str]):
    options = report.parse(ProbeBenchmark, "probe", arguments)
    report.check_parts(options.parts, PARTS)
    corpus = load_corpus(options.corpus)
    corpus = corpus.select(range(min(options.images, len(corpus))))
    print(f"{len(corpus)} images of {options.corpus} at {options.image_size} px, on {report.describe_machine()}")
    results = {}
    for name in options.parts.split(","):
        title, measure = PARTS[name]
        results[name] = [measure(corpus, float(width), options) for width in options.widths.split(",")]
        report.show(title, results[name])
        report.save(options.output_dir, vars(options), corpus_revision(corpus), results)
    print(f"\nWritten to {options.output_dir}/results.json")


def measure_epochs(corpus: Dataset, width: float, options: ProbeBenchmark) -> dict:
    """Seconds of a linear probe from images to the last epoch, its features extracted once."""
    if options.label_column not in corpus.column_names:
        names = ", ".join(corpus.column_names)
        raise ValueError(f"`--label_column` must be one of {names}, got {options.label_column}.")
    labels = np.unique(label_names(corpus, options.label_column), return_inverse=True)[1].tolist()
    with tempfile.TemporaryDirectory() as folder:
        PCLModel(PCLConfig(image_size=options.image_size).scaled(width)).save_pretrained(folder)
        model = PCLModel.from_pretrained(folder).to(report.device()).eval()
        images = reextracted_probe.LabelledImages(corpus, labels, options.image_size)
        plain = partial(reextracted_probe.train_probe, model, images, options.extracted_epochs, workers=report.cpus())
        timed = report.paired(partial(train_once, folder, corpus, labels, options), plain, options.pairs)
    share = options.epochs / options.extracted_epochs
    return {
        "width": width,
        "epochs": options.epochs,
        "ours, s": timed["ours_s"],
        "extracted in every epoch, s": timed["baseline_s"] * share,
        "times as fast": timed["ratio"] * share,
        "least": timed["ratio_min"] * share,
        "most": timed["ratio_max"] * share,
    }


def train_once(folder: str, corpus: Dataset, labels: list[int], options: ProbeBenchmark):
    """As `probe.py` does it, with an empty cache: all three features, of which the trunk's are probed."""
    with tempfile.TemporaryDirectory() as cache:
        table = Encoder(folder, cache, options.batch_size).table(corpus, options.image_size, "bf16", options.corpus)
        examples = Examples(table.features["trunk"], torch.tensor(labels))
        recipe = replace(PUBLISHED["expression"], epochs=options.epochs)
        train_linear(examples, examples, max(labels) + 1, OBJECTIVES["expression"], recipe, seed=0)


def measure_extraction(corpus: Dataset, width: float, options: ProbeBenchmark) -> dict:
    """Images a second with an empty cache, of the forward alone, and with a full cache."""
    with tempfile.TemporaryDirectory() as folder:
        PCLModel(PCLConfig().scaled(width)).save_pretrained(folder)

        def extract(cache: str):
            encoder = Encoder(folder, cache, options.batch_size)
            encoder.table(corpus, options.image_size, "bf16", options.corpus)

        def extract_anew():
            with tempfile.TemporaryDirectory() as cache:
                extract(cache)

        forward = partial(encode_ready_images, Encoder(folder).model, len(corpus), options)
        timed = report.paired(extract_anew, forward, options.pairs)
        extract(f"{folder}/cache")
        cached_s = report.seconds(lambda: extract(f"{folder}/cache"))
    return {
        "width": width,
        "extraction, images/s": len(corpus) / timed["ours_s"],
        "forward alone, images/s": len(corpus) / timed["baseline_s"],
        "share of the forward's speed": timed["ratio"],
        "least": timed["ratio_min"],
        "most": timed["ratio_max"],
        "again, s": cached_s,
    }


@torch.no_grad()
def encode_ready_images(model: PCLModel, count: int, options: ProbeBenchmark):
    """Encode as many images as the corpus has, of which one batch lies ready."""
    model.to(memory_format=torch.channels_last)
    images = torch.rand(options.batch_size, 3, options.image_size, options.image_size, device=model.device)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(model.device.type, torch.bfloat16):
        for start in range(0, count, options.batch_size):
            features = model(images[: count - start]).pose_features
    features.sum().item()  # Waits for an accelerator.


PARTS = {
    "epochs": (
        "A linear probe, features extracted once or in every epoch",
        measure_epochs,
    ),
    "extraction": (
        "Decoding, encoding and writing, beside the encoder's bf16 forward alone",
        measure_extraction,
    ),
}
