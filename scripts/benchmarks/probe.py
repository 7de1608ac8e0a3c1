"""Features of a corpus: how fast they are extracted beside the encoder alone, and how fast a second probe has them."""

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset
from matplotlib.figure import Figure
from probing.encoder import Encoder
from transformers import HfArgumentParser

from modeling_pcl import PCLConfig, PCLModel
from modeling_pcl.data.corpora import corpus_revision, load_corpus
from modeling_pcl.training.arguments import option

from . import report


@dataclass
class ProbesBenchmark:
    """Which images, and how much work."""

    corpus: str = option("orl", "Corpus, as for `pretrain.py`.")
    images: int = option(12_000, "Images of which features are extracted, at most those there are.")
    image_size: int = option(100, "Side of the images, in px.")
    batch_size: int = option(128, "Images encoded at once.")
    widths: str = option("1,0.25", "Widths of the encoder, with commas between them; 1 is the published one.")
    pairs: int = option(2, "Pairs of timings, of which medians are taken.")
    output_dir: str = option("runs/benchmark-probes", "Folder for results.json and results.png.")


def run(arguments: list[str]):
    (options,) = HfArgumentParser(ProbesBenchmark, prog="benchmark.py probes").parse_args_into_dataclasses(arguments)
    corpus = load_corpus(options.corpus)
    corpus = corpus.select(range(min(options.images, len(corpus))))
    print(f"{len(corpus)} images of {options.corpus} at {options.image_size} px, {torch.get_num_threads()} threads")
    rows = [measure(corpus, float(width), options) for width in options.widths.split(",")]
    report.show("Decoding, encoding and writing, beside the encoder's bf16 forward alone", rows)
    revision = corpus_revision(corpus)
    report.save(Path(options.output_dir), vars(options), revision, {"extraction": rows}, partial(draw, rows=rows))
    print(f"\nWritten to {options.output_dir}: results.json and results.png")


def measure(corpus: Dataset, width: float, options: ProbesBenchmark) -> dict:
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
def encode_ready_images(model: PCLModel, count: int, options: ProbesBenchmark):
    """Encode as many images as the corpus has, of which one batch lies ready."""
    model.to(memory_format=torch.channels_last)
    images = torch.rand(options.batch_size, 3, options.image_size, options.image_size, device=model.device)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(model.device.type, torch.bfloat16):
        for start in range(0, count, options.batch_size):
            features = model(images[: count - start]).pose_features
    features.sum().item()  # Waits for an accelerator.


def draw(figure: Figure, rows: list[dict]):
    axes = figure.subplots()
    names = ["extraction, images/s", "forward alone, images/s"]
    for place, name in enumerate(names):
        bars = axes.bar([row + 0.4 * place for row in range(len(rows))], [row[name] for row in rows], 0.4, label=name)
        axes.bar_label(bars, fmt="%.0f")
    axes.set_xticks([row + 0.2 for row in range(len(rows))], [f"width {row['width']:g}" for row in rows])
    axes.set_ylabel("images/s")
    axes.legend()
