"""Features of many images, as files for other programs."""

import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch

from ..data.corpora import load_corpus
from ..data.image_folders import list_folder
from ..data.sources import CorpusSource, Source, VideoSource
from ..data.video import find_videos
from ..files import only_process, write_json
from ..progress import progress
from ..training.record import describe_run
from .arguments import EmbeddingArguments
from .encoder import BatchEncoder, load_and_encode, open_backend
from .feature_files import FeatureFiles, choose_rows_per_file

# What these options say has no effect on the features.
WITHOUT_EFFECT = ("model", "corpus", "output_dir", "batch_size", "max_broken_share")


def open_source(arguments: EmbeddingArguments, size_px: int) -> Source:
    """The images of `--corpus`.

    Raises:
        ValueError: If it does not open, is empty, or its columns' names are those of features.
        OSError: If a video cannot be read.
    """
    path = Path(arguments.corpus).expanduser()
    if find_videos(path):
        if path.is_dir() and list_folder(path).images:
            raise ValueError(f"`--corpus` {path} has images and videos in it: move one kind to a folder of its own.")
        return VideoSource(path, arguments.every_s, size_px)
    corpus = load_corpus(arguments.corpus, arguments.split, arguments.streaming, arguments.corpus_revision)
    source = CorpusSource(corpus, arguments.corpus, size_px, arguments.max_broken_share)
    taken = [name for name in arguments.features if name in source.columns]
    if taken:
        raise ValueError(f"The corpus has columns {taken}, which are names of features: rename them.")
    return source


def begin_record(path: Path, record: dict) -> dict:
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
        before, now = (_select_feature_facts(entry) for entry in (earlier, record))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not what `pcl embed` wrote: choose another `--output_dir`.") from error
    changed = [f"`--{name}` ({before.get(name)}, now {now[name]})" for name in now if before.get(name) != now[name]]
    if changed:
        raise ValueError(
            f"`--output_dir` {path.parent} holds features made with another {', '.join(changed)}: give the same, or "
            "choose another folder."
        )
    return earlier


def _select_feature_facts(record: dict) -> dict:
    """What features depend on, by the option that says it."""
    chosen = {name: value for name, value in record["options"].items() if name not in WITHOUT_EFFECT}
    return {"model": record["model_revision"], "corpus": record["data_revision"], **chosen}


@dataclass
class EncodedRows:
    """Rows whose image decodes, with their features, each `(rows, dim)`; `end` is behind the last row that was read."""

    end: int
    rows: list[dict]
    features: dict[str, torch.Tensor]


def encode_rows(source: Source, encoder: BatchEncoder, names: list[str], read: Iterator) -> Iterator[EncodedRows]:
    """Rows with their features, in order."""

    def load(batch: tuple[int, list[dict]]):
        first, rows = batch
        images, is_image = source.images(first, rows)
        kept = [{name: row[name] for name in source.columns} for row, decodes in zip(rows, is_image) if decodes]
        return first + len(rows), kept, images, torch.tensor(is_image)

    def encode(loaded: tuple[int, list[dict], torch.Tensor, torch.Tensor]) -> EncodedRows:
        end, kept, images, is_image = loaded
        features = encoder(images)
        return EncodedRows(end, kept, {name: features[name][is_image] for name in names})

    return load_and_encode(load, encode, read, encoder.device)


def write_shards(
    arguments: EmbeddingArguments, source: Source, encoder: BatchEncoder, files: FeatureFiles, rows_per_file: int
):
    """Write the shards that are missing, from the first of them on."""
    done = files.count_shards()
    notes = [files.read_notes(number) for number in range(done)]
    source.broken = [entry for note in notes for entry in note["broken"]]
    position, last = (notes[-1]["end"], files.read_last_row(done - 1)) if notes else (0, None)
    rows = source.rows(position, last)

    def read_batches() -> Iterator[tuple[int, list[dict]]]:
        # No batch is of two files: so a file's batches, and with them its bytes, do not depend on where a run was
        # stopped.
        first = position
        while taken := list(islice(rows, min(arguments.batch_size, rows_per_file - first % rows_per_file))):
            yield first, taken
            first += len(taken)

    def write(shard: list[EncodedRows]):
        end = shard[-1].end
        number = (end - 1) // rows_per_file
        features = {name: torch.cat([part.features[name] for part in shard]) for name in arguments.features}
        broken = [entry for entry in source.broken if number * rows_per_file <= entry["row"] < end]
        files.write(number, [row for part in shard for row in part.rows], features, {"end": end, "broken": broken})

    shard: list[EncodedRows] = []
    with progress(total=source.count, initial=position, desc="Features", unit=source.unit) as bar:
        for part in encode_rows(source, encoder, arguments.features, read_batches()):
            shard.append(part)
            bar.update(part.end - bar.n)
            if part.end % rows_per_file == 0:
                write(shard)
                shard = []
        if shard:
            write(shard)


def embed(arguments: EmbeddingArguments) -> dict:
    """Write the features of a corpus or of videos as files; a call that was stopped is gone on with.

    Returns:
        What embed.json says at the end.

    Raises:
        ValueError, OSError: If an option, the input or the model is not as it must be, or the disk is full.
    """
    encoder = open_backend(arguments.model, arguments.backend, arguments.precision)
    size_px = arguments.image_size or encoder.image_size
    source = open_source(arguments, size_px)
    example = encoder(torch.zeros(1, 3, size_px, size_px, dtype=torch.uint8))
    if not all(features.isfinite().all() for features in example.values()):  # An ONNX file shows its weights only so.
        raise ValueError(f"The model `{arguments.model}` makes features that are not finite: its weights are damaged.")
    widths = {name: example[name].shape[1] for name in arguments.features}
    rows_per_file = arguments.rows_per_file or choose_rows_per_file(sum(widths.values()))
    folder = Path(arguments.output_dir)
    files = FeatureFiles(folder, arguments.format, source.columns)
    with only_process(folder):
        facts = describe_run(asdict(arguments), source.revision) | {"model_revision": encoder.digest}
        used = {"onnxruntime": arguments.backend == "onnx", "av": isinstance(source, VideoSource)}
        facts["versions"] |= {name: importlib.metadata.version(name) for name, is_used in used.items() if is_used}
        record = begin_record(folder / "embed.json", facts)
        files.remove_damaged(files.is_readable)
        if "files" in record and files.count_shards() == len(record["files"]):
            return record
        write_shards(arguments, source, encoder, files, rows_per_file)
        rows = files.count_rows()
        if rows == 0:
            raise ValueError(f"Not one image of `{arguments.corpus}` decodes. The first: {source.broken[0]}")
        record |= {
            "image_size": size_px,
            "shapes": {name: [rows, width] for name, width in widths.items()},
            "files": [files.shard_path(number).name for number in range(files.count_shards())],
            "broken": source.broken,
        }
        write_json(folder / "embed.json", record)
        return record
