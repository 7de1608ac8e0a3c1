"""Speed and quality of features, compared with float32, ONNX files and other networks."""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm

from modeling_pcl import PCLConfig, PCLModel
from modeling_pcl.data.image_decoder import CorpusImages
from modeling_pcl.data.splits import split_stratified
from modeling_pcl.features_pcl import FEATURES
from modeling_pcl.hub.models import open_encoder
from modeling_pcl.hub.onnx_encoder import OnnxEncoder
from modeling_pcl.hub.onnx_export import export_onnx, quantise_onnx
from modeling_pcl.options import option
from modeling_pcl.probes.encoder import Precision, encode, map_on_cores
from modeling_pcl.probes.logistic_regression import fit_logistic_regression

from . import report

OTHERS_PX = 224


@dataclass
class EmbedBenchmark:
    """The encoder and the images, and the amount of work."""

    model: str | None = option(None, "Folder or Hub id; by default the published size with random weights.")
    parts: str = option("speed,growth", "Parts to run, separated by commas; `probe` needs a corpus.")
    image_size: int = option(64, "Side of the images, in px.")
    batch_size: int = option(64, "Images per batch.")
    batches: int = option(8, "Batches in one timing.")
    pairs: int = option(5, "Pairs of timings, of which medians are reported.")
    others: str = option(
        "resnet50,vit_base_patch16_224", "Networks of timm to compare with, at 224 px, separated by commas, or none."
    )
    growth_batch_sizes: str = option("1,8,64,256", "Batch sizes in the part `growth`, separated by commas.")
    growth_image_sizes: str = option("64,100,128,256", "Sides in px in the part `growth`, at `batch_size`.")
    corpus: str | None = option(None, "Labelled corpus for the part `probe`, as for `pcl pretrain`.")
    label_column: str = option("label", "Column of classes in the corpus.")
    images: int = option(12_000, "Largest number of images of the corpus to use; a fifth of them is the test set.")
    output_dir: str = option("runs/benchmark-embed", "Folder for results.json.")


class Encoders:
    """The same weights in all forms. Each form maps images `(batch, 3, size, size)` uint8 to features by name."""

    def __init__(self, corpus: Dataset | None, options: EmbedBenchmark):
        if corpus is None and "probe" in options.parts.split(","):
            raise ValueError("The part `probe` needs `--corpus` and `--label_column`.")
        print(f"{options.model or 'Random weights of the published size'} on {report.describe_machine()}")
        self.corpus = corpus
        torch.manual_seed(0)
        config = PCLConfig(image_size=options.image_size)
        model = PCLModel(config) if options.model is None else open_encoder(options.model)
        self.model, self.plain_model = (copy.deepcopy(model).to(report.get_device()).eval() for _ in range(2))
        if options.parts != "growth":
            with tempfile.TemporaryDirectory() as folder:
                files = {"ONNX float32": Path(folder, "model.onnx"), "ONNX int8": Path(folder, "model_quantized.onnx")}
                export_onnx(model.eval(), files["ONNX float32"])
                quantise_onnx(*files.values())
                self.onnx = {name: OnnxEncoder(path) for name, path in files.items()}

    def encode_fast(self, images: torch.Tensor, precision: Precision = "bf16") -> dict[str, torch.Tensor]:
        return encode(self.model, images, precision)

    @torch.no_grad()
    def encode_eager(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode as in the README: float32, in the default memory format."""
        outputs = self.plain_model(images.to(report.get_device()).float() / 255)
        return {name: outputs[output].cpu() for name, output in FEATURES.items()}


# Speed.


def measure_speed(encoders: Encoders, options: EmbedBenchmark) -> dict:
    batches = make_batches(options.batch_size, options.image_size, options.batches)
    ours = partial(encode_all, encoders.encode_fast, batches)
    if report.get_device().type == "cpu":
        ours = partial(encode_on_every_core, encoders.encode_fast, batches)
    fast = get_fast_precision()
    ways = {
        "PCL float32, eager": (encoders.encode_eager, batches),
        f"PCL {fast}, one batch at a time": (encoders.encode_fast, batches),
    }
    ways |= {f"PCL {name}": (encoder, batches) for name, encoder in encoders.onnx.items()}
    others_batch = torch.rand(options.batch_size, 3, OTHERS_PX, OTHERS_PX, device=report.get_device())
    for name, precision in product(filter(None, options.others.split(",")), dict.fromkeys(("float32", fast))):
        ways[f"{name} {precision}"] = open_other_network(name, precision), [others_batch]
    rows = []
    for name, (encoder, images) in tqdm(ways.items(), desc="Encoders", leave=False):
        timed = report.time_pairs(ours, partial(encode_all, encoder, images), options.pairs)
        row = {"encoder": name, "px": images[0].shape[-1]}
        row["images/s"] = len(images) * options.batch_size / timed.baseline_s
        row["ours, images/s"] = len(batches) * options.batch_size / timed.ours_s
        # Ratios of the times per image.
        rows.append(row | timed.columns("ours is times as fast", len(batches) / len(images)))
    return {"speed": ("Features of ready images, beside the same weights and other networks", rows)}


def get_fast_precision() -> str:
    return "bf16" if report.choose_fast_dtype() == torch.bfloat16 else "float32"


def make_batches(batch_size: int, image_size: int, count: int) -> list[torch.Tensor]:
    """Make batches of random images, `(batch_size, 3, image_size, image_size)` uint8."""
    size = (batch_size, 3, image_size, image_size)
    return [torch.randint(256, size, dtype=torch.uint8) for _ in range(count)]


def encode_all(encoder: Callable, batches: list[torch.Tensor]):
    for images in batches:
        features = encoder(images)
    if isinstance(features, torch.Tensor):
        features.float().sum().item()  # Waits for an accelerator.


def encode_on_every_core(encoder: Callable, batches: list[torch.Tensor]):
    for _ in map_on_cores(encoder, iter(batches)):
        pass


def open_other_network(name: str, precision: Precision) -> Callable[[torch.Tensor], torch.Tensor]:
    """Open a network of timm with random weights, which do not affect its speed."""
    import timm

    network = timm.create_model(name, pretrained=False, num_classes=0).to(report.get_device()).eval()
    if precision == "bf16":
        network.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def encode_images(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return network(images)

    return encode_images


# Growth.


def measure_growth(encoders: Encoders, options: EmbedBenchmark) -> dict:
    sizes = [(batch, options.image_size) for batch in report.parse_integers(options.growth_batch_sizes)]
    sides = report.parse_integers(options.growth_image_sizes)
    sizes += [(options.batch_size, side) for side in sides if side != options.image_size]
    rows, fast = [], get_fast_precision()
    for batch, side in tqdm(sizes, desc="Sizes", leave=False):
        batches = make_batches(batch, side, options.batches)
        work = [partial(encode_all, encoder, batches) for encoder in (encoders.encode_fast, encoders.encode_eager)]
        timed = report.time_pairs(*work, options.pairs)
        row = {"batch": batch, "px": side, f"{fast}, images/s": options.batches * batch / timed.ours_s}
        row |= {"float32 eager, images/s": options.batches * batch / timed.baseline_s, "times as fast": timed.ratio}
        memory = report.measure_peak_memory(prepare_growth, options.model, batch, side)
        rows.append(row | {f"{fast}, MiB": memory["extra_mib"]})
    return {"growth": ("Growth with batch and image size, one batch at a time", rows)}


def prepare_growth(model: str | None, batch: int, side: int) -> Callable[[], object]:
    """Prepare the work on one batch. A small batch is encoded first, so that torch's set-up is not measured."""
    encoder = (PCLModel(PCLConfig()) if model is None else open_encoder(model)).to(report.get_device())
    encode(encoder, torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "bf16")
    (images,) = make_batches(batch, side, 1)
    return lambda: encode(encoder, images, "bf16")


# Linear probes.


def measure_probe(encoders: Encoders, options: EmbedBenchmark) -> dict:
    """Measure the accuracy of a logistic regression on the features of each form of the encoder."""
    labels = report.read_class_names(encoders.corpus, options.label_column)
    labelled = [row for row, label in enumerate(labels) if label is not None][: options.images]
    corpus, labels = encoders.corpus.select(labelled), np.array([labels[row] for row in labelled])
    parts = split_stratified(labels.tolist(), {"train": 0.7, "validation": 0.1, "test": 0.2}, seed=0)
    forms = {
        "PCL float32": partial(encoders.encode_fast, precision="float32"),
        "PCL bf16": encoders.encode_fast,
        **{f"PCL {name}": encoder for name, encoder in encoders.onnx.items()},
    }
    rows, reference = [], None
    for form, encoder in forms.items():
        features = encode_corpus(encoder, corpus, options)
        reference = reference or features
        row = {"encoder": form}
        for name, values in features.items():
            train, validation, test = (
                (values[torch.from_numpy(parts[part])], labels[parts[part]]) for part in ("train", "validation", "test")
            )
            predictions = fit_logistic_regression(*train, validation).predict(test[0])
            row[f"{name}, accuracy"] = float((predictions == test[1]).mean())
            row[f"{name}, relative error"] = float((values - reference[name]).norm() / reference[name].norm())
        rows.append(row)
    return {"probe": ("Accuracy of a logistic regression on the features", rows)}


def encode_corpus(encoder: Callable, corpus: Dataset, options: EmbedBenchmark) -> dict[str, torch.Tensor]:
    images = CorpusImages(corpus, options.image_size, options.corpus)
    batches = tqdm(images.batches(options.batch_size), total=-(-len(images) // options.batch_size), leave=False)
    encoded = [encoder(batch) for batch in batches]
    return {name: torch.cat([rows[name].float() for rows in encoded]) for name in FEATURES}


run = partial(
    report.run,
    name="embed",
    kind=EmbedBenchmark,
    parts={"speed": measure_speed, "growth": measure_growth, "probe": measure_probe},
    prepare=Encoders,
    packages=("timm", "onnxruntime"),
)
