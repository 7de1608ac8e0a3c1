"""Time of a linear probe, compared with one that extracts features in every epoch, and speed of the extraction."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from datasets import Dataset

from modeling_pcl import PCLConfig, PCLModel
from modeling_pcl.options import option
from modeling_pcl.probes.encoder import Encoder
from modeling_pcl.probes.feature_cache import FeatureTable
from modeling_pcl.probes.linear import PUBLISHED, Examples, train_linear
from modeling_pcl.probes.objectives import OBJECTIVES

from . import report
from .baselines import reextracted_probe


@dataclass
class ProbeBenchmark:
    """The images, and the amount of work."""

    corpus: str = option("orl", "Corpus, as for `pcl pretrain`.")
    label_column: str = option("subject", "Column of classes for the part `epochs`.")
    parts: str = option("epochs,extraction", "Parts to run, separated by commas.")
    epochs: int = option(300, "Epochs of the linear probe.")
    extracted_epochs: int = option(
        1, "Epochs for which the plain probe is timed; the time of all epochs is extrapolated from them."
    )
    images: int = option(12_000, "Largest number of images whose features are extracted.")
    image_size: int = option(64, "Side of the images, in px.")
    batch_size: int = option(128, "Images per batch.")
    widths: str = option("1,0.25", "Widths of the encoder, separated by commas; 1 is the published one.")
    pairs: int = option(2, "Pairs of timings, of which medians are reported.")
    output_dir: str = option("runs/benchmark-probe", "Folder for results.json.")


def select_images(corpus: Dataset, options: ProbeBenchmark) -> Dataset:
    corpus = corpus.select(range(min(options.images, len(corpus))))
    print(f"{len(corpus)} images of {options.corpus} at {options.image_size} px, on {report.describe_machine()}")
    return corpus


def measure_epochs(corpus: Dataset, options: ProbeBenchmark) -> dict:
    """Measure the seconds of a linear probe, from images to the last epoch, with features extracted once."""
    labels = np.unique(report.read_class_names(corpus, options.label_column), return_inverse=True)[1].tolist()
    share, rows = options.epochs / options.extracted_epochs, []
    for width, folder in save_encoders(options):
        model = PCLModel.from_pretrained(folder).to(report.get_device()).eval()
        images = reextracted_probe.LabelledImages(corpus, labels, options.image_size)
        plain = partial(
            reextracted_probe.train_probe, model, images, options.extracted_epochs, workers=report.available_cpus()
        )
        timed = report.time_pairs(partial(train_once, folder, corpus, labels, options), plain, options.pairs)
        row = {"width": width, "epochs": options.epochs, "ours, s": timed.ours_s}
        row["extracted in every epoch, s"] = timed.baseline_s * share
        rows.append(row | timed.columns(factor=share))
    return {"epochs": ("A linear probe, features extracted once or in every epoch", rows)}


def save_encoders(options: ProbeBenchmark) -> Iterator[tuple[float, str]]:
    """Yield each width with a temporary folder that holds an encoder of this width with random weights."""
    for width in map(float, options.widths.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            PCLModel(PCLConfig(image_size=options.image_size).scaled(width)).save_pretrained(folder)
            yield width, folder


def extract(folder: str, corpus: Dataset, options: ProbeBenchmark, cache: str | None = None) -> FeatureTable:
    """Extract all three features as `pcl probe` does, with an empty cache unless one is given."""
    with tempfile.TemporaryDirectory() as empty:
        encoder = Encoder(folder, cache or empty, options.batch_size)
        return encoder.extract(corpus, options.image_size, "bf16", options.corpus)


def train_once(folder: str, corpus: Dataset, labels: list[int], options: ProbeBenchmark):
    """Extract features and train a linear probe on the trunk feature as `pcl probe` does, with an empty cache."""
    examples = Examples(extract(folder, corpus, options).features["trunk"], torch.tensor(labels))
    recipe = replace(PUBLISHED["expression"], epochs=options.epochs)
    train_linear(examples, examples, max(labels) + 1, OBJECTIVES["expression"], recipe, seed=0)


def measure_extraction(corpus: Dataset, options: ProbeBenchmark) -> dict:
    """Measure images per second with an empty cache, for the forward pass alone, and with a full cache."""
    rows = []
    for width, folder in save_encoders(options):
        forward = partial(encode_repeated_batch, Encoder(folder).model, len(corpus), options)
        timed = report.time_pairs(partial(extract, folder, corpus, options), forward, options.pairs)
        extract_cached = partial(extract, folder, corpus, options, cache=f"{folder}/cache")
        extract_cached()
        row = {"width": width, "extraction, images/s": len(corpus) / timed.ours_s}
        row |= {"forward alone, images/s": len(corpus) / timed.baseline_s}
        row |= timed.columns("share of the forward's speed")
        rows.append(row | {"again, s": report.measure_seconds(extract_cached)})
    return {"extraction": ("Decoding, encoding and writing, beside the encoder's forward alone", rows)}


@torch.no_grad()
def encode_repeated_batch(model: PCLModel, count: int, options: ProbeBenchmark):
    """Encode `count` images, by encoding one batch that is in memory several times."""
    model.to(memory_format=torch.channels_last)
    images = torch.rand(options.batch_size, 3, options.image_size, options.image_size, device=model.device)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=report.choose_fast_dtype() == torch.bfloat16):
        for start in range(0, count, options.batch_size):
            features = model(images[: count - start]).pose_features
    features.sum().item()  # Waits for an accelerator.


run = partial(
    report.run,
    name="probe",
    kind=ProbeBenchmark,
    parts={"epochs": measure_epochs, "extraction": measure_extraction},
    prepare=select_images,
)
