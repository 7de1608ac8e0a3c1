"""Computing the features of many images, and writing them to files for other programs."""

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

# Options without effect on the features.
WITHOUT_EFFECT = ("model", "corpus", "output_dir", "batch_size", "max_broken_share")


def open_source(arguments: EmbeddingArguments, size_px: int) -> Source:
    """Open the images or videos of `--corpus`.

    Raises:
        ValueError: If the corpus cannot be opened, is empty, or has columns with names of features.
        OSError: If a video cannot be read.
    """
    path = Path(arguments.corpus).expanduser()
    if find_videos(path):
        if path.is_dir() and list_folder(path).images:
            raise ValueError(f"`--corpus` {path} contains images and videos: move one kind to a folder of its own.")
        return VideoSource(path, arguments.every_s, size_px)
    corpus = load_corpus(arguments.corpus, arguments.split, arguments.streaming, arguments.corpus_revision)
    source = CorpusSource(corpus, arguments.corpus, size_px, arguments.max_broken_share)
    name_clashes = [name for name in arguments.features if name in source.columns]
    if name_clashes:
        raise ValueError(f"The corpus has columns {name_clashes}, which are also names of features: rename them.")
    return source


def begin_record(path: Path, record: dict) -> dict:
    """Write embed.json, or read the existing one if it belongs to the same features.

    Raises:
        ValueError: If the folder holds other features.
    """
    if not path.exists():
        other_files = sorted(path.parent.glob("features-*"))
        if other_files:
            raise ValueError(f"`--output_dir` holds {other_files[0].name} without embed.json: choose another folder.")
        write_json(path, record)
        return record
    try:
        earlier = json.loads(path.read_text())
        before, now = (_select_feature_facts(entry) for entry in (earlier, record))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} was not written by `pcl embed`: choose another `--output_dir`.") from error
    changed = [f"`--{name}` ({before.get(name)}, now {now[name]})" for name in now if before.get(name) != now[name]]
    if changed:
        raise ValueError(
            f"`--output_dir` {path.parent} holds features with other values of {', '.join(changed)}: give the same, or "
            "choose another folder."
        )
    return earlier


def _select_feature_facts(record: dict) -> dict:
    """Select the facts that determine the features, by the option that sets them."""
    options = {name: value for name, value in record["options"].items() if name not in WITHOUT_EFFECT}
    return {"model": record["model_revision"], "corpus": record["data_revision"], **options}


@dataclass
class EncodedRows:
    """Rows whose images decode, with their features.

    Args:
        end: Number of the last row that was read, plus one.
        rows: The columns of the rows.
        features: Features by name, each `(rows, dim)`.
    """

    end: int
    rows: list[dict]
    features: dict[str, torch.Tensor]


def encode_rows(source: Source, encoder: BatchEncoder, names: list[str], read: Iterator) -> Iterator[EncodedRows]:
    """Yield rows with their features, in order.

    Args:
        source: Source of the rows.
        encoder: Encoder of the images.
        names: Features to keep.
        read: Yields batches: the number of the first row, and the rows.
    """

    def load(batch: tuple[int, list[dict]]):
        first, rows = batch
        images, is_image = source.images(first, rows)
        intact_rows = [{name: row[name] for name in source.columns} for row, decodes in zip(rows, is_image) if decodes]
        return first + len(rows), intact_rows, images, torch.tensor(is_image)

    def encode(loaded: tuple[int, list[dict], torch.Tensor, torch.Tensor]) -> EncodedRows:
        end, intact_rows, images, is_image = loaded
        features = encoder(images)
        return EncodedRows(end, intact_rows, {name: features[name][is_image] for name in names})

    return load_and_encode(load, encode, read, encoder.device)


def write_shards(
    arguments: EmbeddingArguments, source: Source, encoder: BatchEncoder, files: FeatureFiles, rows_per_file: int
):
    """Write all shards from the first missing one on.

    Args:
        arguments: Options.
        source: Source of the rows.
        encoder: Encoder of the images.
        files: The shards in the output folder.
        rows_per_file: Rows of the source per shard.
    """
    finished_shards = files.count_shards()
    notes = [files.read_notes(number) for number in range(finished_shards)]
    source.broken = [entry for note in notes for entry in note["broken"]]
    position, last = (notes[-1]["end"], files.read_last_row(finished_shards - 1)) if notes else (0, None)
    rows = source.rows(position, last)

    def read_batches() -> Iterator[tuple[int, list[dict]]]:
        # No batch spans two files. The batches of a file, and thus its bytes, then do not depend on where an earlier
        # run was stopped.
        first = position
        while batch := list(islice(rows, min(arguments.batch_size, rows_per_file - first % rows_per_file))):
            yield first, batch
            first += len(batch)

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
    """Write the features of a corpus or of videos to files. A call that was stopped is continued.

    Returns:
        Content of embed.json.

    Raises:
        ValueError, OSError: If an option, the input or the model is invalid, or the disk is full.
    """
    encoder = open_backend(arguments.model, arguments.backend, arguments.precision)
    size_px = arguments.image_size or encoder.image_size
    source = open_source(arguments, size_px)
    example = encoder(torch.zeros(1, 3, size_px, size_px, dtype=torch.uint8))
    # The features of one image, because the weights of ONNX files cannot be checked directly.
    if not all(features.isfinite().all() for features in example.values()):
        raise ValueError(
            f"The model `{arguments.model}` computes features that are not finite: its weights are damaged."
        )
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
            raise ValueError(f"No image of `{arguments.corpus}` decodes. The first error: {source.broken[0]}")
        record |= {
            "image_size": size_px,
            "shapes": {name: [rows, width] for name, width in widths.items()},
            "files": [files.shard_path(number).name for number in range(files.count_shards())],
            "broken": source.broken,
        }
        write_json(folder / "embed.json", record)
        return record
