"""Features of many images, as files for other programs:

python scripts/embed.py --model runs/mine --input path/to/images --output_dir features
python scripts/embed.py --model runs/mine --input path/to/videos --every_s 0.5 --output_dir features
python scripts/embed.py --model onnx/model_quantized.onnx --backend onnx --input faces.parquet --output_dir features

The faces should fill their images, as a detector's boxes give them. OUTPUT_DIR gets features-00000.parquet and so on,
with the rows' own columns beside `trunk`, `face` and `pose`, and embed.json. A row whose image does not decode is left
out, and named there. The same command goes on after it was stopped, and ends with the same bytes.

datasets.load_dataset("parquet", data_files="features/*.parquet") and safetensors.torch.load_file open the results.
"""

import argparse
import importlib.metadata
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from embedding.encoders import BatchEncoder, open_backend
from embedding.sources import CorpusSource, Source, VideoSource
from filelock import FileLock, Timeout
from probing.encoder import on_every_core
from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import HfArgumentParser
from transformers.utils.logging import disable_progress_bar

from modeling_pcl.data.corpora import load_corpus
from modeling_pcl.data.layouts.base import IMAGE_SUFFIXES
from modeling_pcl.data.video import find_videos
from modeling_pcl.features_pcl import FEATURES
from modeling_pcl.probes.feature_files import FeatureFiles
from modeling_pcl.training.arguments import option
from modeling_pcl.training.record import describe_run

SHARD_BYTES = 2**28  # Of features; they lie in memory until the shard is written.


@dataclass
class EmbedArguments:
    """What to encode, and how to write it down."""

    model: str = option("", "Folder or Hub id of a PCL model; with `--backend onnx` an .onnx file.")
    input: str = option(
        "",
        "Image folder, of any depth; parquet file or glob; folder written by `save_to_disk`; Hub id; video file; or "
        "folder of video files, of any depth.",
    )
    output_dir: str = option("", "Folder for the features and embed.json; made.")
    split: str = option("train", "Split of the corpus.")
    corpus_revision: str | None = option(None, "Git revision of a corpus on the Hub.")
    streaming: bool = option(False, "Read the corpus as a stream: for corpora on the Hub that the disk cannot hold.")
    every_s: float = option(1.0, "Seconds between two frames of a video; 0 takes every frame.")
    features: list[str] = field(
        default_factory=lambda: list(FEATURES), metadata={"help": "Which of trunk, face and pose to write."}
    )
    image_size: int | None = option(None, "Side of the images, in px; by default the model's.")
    precision: Literal["float32", "bf16"] = option(
        "float32", "Of the computation: float32 gives what `PCLModel` gives; bf16 takes half the time and disk space."
    )
    backend: Literal["torch", "onnx"] = option("torch", "What runs the model; onnx is onnxruntime, on the CPU.")
    format: Literal["parquet", "safetensors"] = option(
        "parquet",
        "parquet: lists of float32 beside the rows' columns; safetensors: tensors, in float32 or bf16, with the rows' "
        "columns in rows-*.parquet.",
    )
    rows_per_file: int | None = option(None, "Rows of a file; by default as many as have 256 MiB of features.")
    batch_size: int = option(64, "Images that a core, or the GPU, encodes at once.")
    max_broken_share: float = option(0.05, "Share of images that may fail to decode before the run stops, in [0, 1].")


# What these say has no effect on the features.
WITHOUT_EFFECT = ("model", "input", "output_dir", "batch_size", "max_broken_share")


def check_arguments(arguments: EmbedArguments):
    """Refuse values that no run can have.

    Raises:
        ValueError: Naming the option, what it must be and what came.
    """
    for name in ("model", "input", "output_dir"):
        if not getattr(arguments, name):
            raise ValueError(f"`--{name}` must be given.")
    unknown = [name for name in arguments.features if name not in FEATURES]
    if unknown or not arguments.features:
        raise ValueError(
            f"`--features` must be some of {list(FEATURES)}, got {arguments.features}; `face+pose` is the columns "
            "`face` and `pose` side by side."
        )
    for name, least in {"rows_per_file": 1, "batch_size": 1, "image_size": 32, "every_s": 0}.items():
        value = getattr(arguments, name)
        if value is not None and not least <= value < float("inf"):
            raise ValueError(f"`--{name}` must be at least {least}, got {value}.")
    if not 0 <= arguments.max_broken_share <= 1:
        raise ValueError(f"`--max_broken_share` must be in [0, 1], got {arguments.max_broken_share}.")


def open_source(arguments: EmbedArguments, size_px: int) -> Source:
    """The images of `--input`.

    Raises:
        ValueError: If it does not open, is empty, or its columns' names are those of features.
        OSError: If a video cannot be read.
    """
    path = Path(arguments.input).expanduser()
    if find_videos(path):
        if path.is_dir() and any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*")):
            raise ValueError(f"`--input` {path} has images and videos in it: move one kind to a folder of its own.")
        return VideoSource(path, arguments.every_s, size_px)
    corpus = load_corpus(arguments.input, arguments.split, arguments.streaming, arguments.corpus_revision)
    source = CorpusSource(corpus, arguments.input, size_px, arguments.max_broken_share)
    taken = [name for name in arguments.features if name in source.columns]
    if taken:
        raise ValueError(f"The corpus has columns {taken}, which are names of features: rename them.")
    return source


def describe(arguments: EmbedArguments, encoder: BatchEncoder, source: Source) -> dict:
    """The beginning of embed.json."""
    record = describe_run(asdict(arguments), source.revision)
    used = {"onnxruntime": arguments.backend == "onnx", "av": isinstance(source, VideoSource)}
    record["versions"] |= {package: importlib.metadata.version(package) for package, is_used in used.items() if is_used}
    return record | {"model_revision": encoder.digest}


def begin(path: Path, record: dict) -> dict:
    """Write embed.json, or, if there is one of the same features, take that.

    Raises:
        ValueError: If the folder holds other features.
    """
    if not path.exists():
        others = sorted(path.parent.glob("features-*"))
        if others:
            raise ValueError(f"`--output_dir` holds {others[0].name} without embed.json: choose another folder.")
        write_json(path, record)
        return record
    try:
        earlier = json.loads(path.read_text())
        before, now = (facts(known) for known in (earlier, record))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not what embed.py wrote: choose another `--output_dir`.") from error
    changed = [f"`--{name}` ({before.get(name)}, now {now[name]})" for name in now if before.get(name) != now[name]]
    if changed:
        raise ValueError(
            f"`--output_dir` {path.parent} holds features made with another {', '.join(changed)}: give the same, or "
            "choose another folder."
        )
    return earlier


def facts(record: dict) -> dict:
    """What features depend on, by the option that says it."""
    chosen = {name: value for name, value in record["options"].items() if name not in WITHOUT_EFFECT}
    return {"model": record["model_revision"], "input": record["data_revision"], **chosen}


def write_json(path: Path, record: dict):
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(record, indent=2) + "\n")
    partial.replace(path)


def batches(rows: Iterator[dict], first: int, rows_per_file: int, size: int) -> Iterator[tuple[int, list[dict]]]:
    """Number of the first row, and rows; none are of two files, so that a file's batches are always the same."""
    while taken := list(islice(rows, min(size, rows_per_file - first % rows_per_file))):
        yield first, taken
        first += len(taken)


@dataclass
class EncodedRows:
    """Rows that have features.

    Args:
        end: The number behind that of the last row that was read for them.
        rows: Those whose image decodes.
        features: Of them, each `(rows, dim)`.
    """

    end: int
    rows: list[dict]
    features: dict[str, torch.Tensor]


def encoded(source: Source, encoder: BatchEncoder, names: list[str], read: Iterator) -> Iterator[EncodedRows]:
    """Rows with their features, in order: on a CPU by every core for itself, else decoded by all cores."""

    def load(batch: tuple[int, list[dict]]):
        first, rows = batch
        images, is_image = source.images(first, rows)
        kept = [{name: row[name] for name in source.columns} for row, whole in zip(rows, is_image) if whole]
        return first + len(rows), kept, images, torch.tensor(is_image)

    def encode(end: int, kept: list[dict], images: torch.Tensor, is_image: torch.Tensor) -> EncodedRows:
        features = encoder(images)
        return EncodedRows(end, kept, {name: features[name][is_image] for name in names})

    if encoder.device.type == "cpu":
        return on_every_core(lambda batch: encode(*load(batch)), read)
    return (encode(*loaded) for loaded in on_every_core(load, read))


def write_files(
    arguments: EmbedArguments, source: Source, encoder: BatchEncoder, files: FeatureFiles, rows_per_file: int
):
    """Write the shards that are missing, from the first of them on."""
    done = files.count()
    notes = [files.notes(number) for number in range(done)]
    source.broken = [entry for note in notes for entry in note["broken"]]
    position, last = (notes[-1]["end"], files.last_row(done - 1)) if notes else (0, None)
    read = batches(source.rows(position, last), position, rows_per_file, arguments.batch_size)
    shard: list[EncodedRows] = []

    def write():
        first, end = position - position % rows_per_file, shard[-1].end
        features = {name: torch.cat([part.features[name] for part in shard]) for name in arguments.features}
        broken = [entry for entry in source.broken if first <= entry["row"] < end]
        rows = [row for part in shard for row in part.rows]
        files.write(first // rows_per_file, rows, features, {"end": end, "broken": broken})
        shard.clear()

    with tqdm(total=source.count, initial=position, desc="features", unit=source.unit) as bar:
        for part in encoded(source, encoder, arguments.features, read):
            shard.append(part)
            bar.update(part.end - bar.n)
            if part.end % rows_per_file == 0:
                write()
                position = part.end
        if shard:
            write()


def embed(arguments: EmbedArguments) -> dict:
    """Write all features; what embed.json says at the end.

    Raises:
        ValueError, OSError: If an option, the input or the model is not as it must be, or the disk is full.
    """
    check_arguments(arguments)
    encoder = open_backend(arguments.model, arguments.backend, arguments.precision)
    size_px = arguments.image_size or encoder.image_size
    source = open_source(arguments, size_px)
    example = encoder(torch.zeros(1, 3, size_px, size_px, dtype=torch.uint8))
    widths = {name: example[name].shape[1] for name in arguments.features}
    rows_per_file = arguments.rows_per_file or max(1, SHARD_BYTES // (4 * sum(widths.values())))
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    files = FeatureFiles(folder, arguments.format, source.columns)
    try:
        with FileLock(folder / ".lock", timeout=0):
            record = begin(folder / "embed.json", describe(arguments, encoder, source))
            if "files" in record and files.count() == len(record["files"]):
                return record
            write_files(arguments, source, encoder, files, rows_per_file)
            rows = files.rows()
            if rows == 0:
                raise ValueError(f"Not one image of `{arguments.input}` decodes. The first: {source.broken[0]}")
            record |= {
                "image_size": size_px,
                "shapes": {name: [rows, width] for name, width in widths.items()},
                "files": [files.path(number).name for number in range(files.count())],
                "broken": source.broken,
            }
            write_json(folder / "embed.json", record)
            return record
    except Timeout as error:
        raise ValueError(f"Another process is writing to `--output_dir` {folder}.") from error


def summary(record: dict, folder: str) -> str:
    shapes = ", ".join(f"{name} {rows} x {width}" for name, (rows, width) in record["shapes"].items())
    broken = f"; {len(record['broken'])} broken, see embed.json" if record["broken"] else ""
    return f"{folder}: {shapes}; files: {len(record['files'])}{broken}"


def main():
    parser = HfArgumentParser(EmbedArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    (arguments,) = parser.parse_args_into_dataclasses()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    disable_progress_bar()  # transformers' own, for the weights
    try:
        with logging_redirect_tqdm():
            print(summary(embed(arguments), arguments.output_dir))
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "\nstopped; the same command goes on\n")


if __name__ == "__main__":
    main()
