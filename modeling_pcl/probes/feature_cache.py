"""Features extracted once and reused by every probe, in the same files that `pcl embed` writes.

One folder for each model, corpus, image size and precision:

    3f9a…/
      key.json                     what they are of
      features-00000.safetensors   `trunk`, `face`, `pose`, each (rows, dim), opened memory-mapped
      rows-00000.parquet           the rows' numbers, and those whose image does not decode
      hashes.json                  SHA-256 of both files of every shard; what no longer has its own is computed again
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Features as Columns
from datasets import Value
from filelock import FileLock
from safetensors.torch import load_file

from ..features_pcl import FEATURES, READABLE_FEATURES, feature_parts
from ..files import file_digest, write_json
from ..progress import progress
from .feature_files import FeatureFiles, choose_rows_per_file

HASHES = "hashes.json"

Batches = Iterator[Mapping[str, torch.Tensor]]


class ShardedFeatures:
    """Rows of several tensors that are read as one.

    They are put together when they are taken: the tensors are memory-mapped, and a copy of all rows would have to fit
    into memory, for face and pose of 61,225 images at 256 px 8 GB in bfloat16.

    Args:
        shards: Of rows that follow each other: tensors `(rows, dim)`, whose entries follow each other.
    """

    def __init__(self, shards: Sequence[Sequence[torch.Tensor]]):
        self.shards = shards
        self.ends = torch.tensor([len(parts[0]) for parts in shards]).cumsum(0)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), sum(part.shape[1] for part in self.shards[0])))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """`(taken rows, sum of the dims)`."""
        rows = torch.arange(len(self))[rows]
        taken = torch.empty(len(rows), self.shape[1], dtype=self.shards[0][0].dtype)
        shard_of_row = torch.bucketize(rows, self.ends, right=True)
        for number, parts in enumerate(self.shards):
            is_here = shard_of_row == number
            places = rows[is_here] - (self.ends[number] - len(parts[0]))
            taken[is_here] = torch.cat([part[places] for part in parts], dim=1)
        return taken


@dataclass(frozen=True)
class FeatureTable:
    """Features of a corpus, row by row.

    Args:
        features: `trunk`, `face`, `pose` and `face+pose`, which reads two of them, each `(rows, dim)`.
        broken: Rows whose image does not decode, with the reason; what stands there means nothing.
    """

    features: Mapping[str, ShardedFeatures]
    broken: Mapping[int, str]


def load_or_compute_features(
    folder: Path,
    key: dict[str, str | int],
    rows: int,
    encode_from: Callable[[int], Batches],
    broken: MutableMapping[int, str],
) -> FeatureTable:
    """Give the features of a key, from disk or, as far as they are not there, computed.

    Args:
        folder: Of all keys. It may be deleted at any time; everything in it can be computed again.
        key: What the features are of: `model` and `corpus`, digests of weights and rows, `image_size` in px and
            `precision`. Another value anywhere means other features.
        rows: How many rows the table has, at least 1.
        encode_from: From a row's number to the features of the batches from there on, as `encoder.encode` gives them.
        broken: Filled by `encode_from` as it goes; what was found before a stop is put in first.

    Raises:
        OSError: If the disk is full; the same call goes on where this one stopped.
    """
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    files = FeatureFiles(folder / name, "safetensors", Columns({"row": Value("int64")}))
    files.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(files.folder / ".lock"):  # Another probe of the same images waits, and finds them.
        hashes = _read_hashes(files.folder / HASHES)
        # 0.7 s a GB; a probe that learns from features of another face would say nothing.
        files.remove_damaged(lambda n: all(hashes.get(file.name) == file_digest(file) for file in files.shard_paths(n)))
        for number in range(files.count_shards()):
            broken.update({int(row): reason for row, reason in files.read_notes(number)["broken"].items()})
        if files.count_rows() < rows:
            write_json(files.folder / "key.json", key)
            _write_missing_shards(files, rows, encode_from, broken, hashes)
    shards = [load_file(files.shard_path(number)) for number in range(files.count_shards())]
    features = {
        name: ShardedFeatures([[shard[part] for part in feature_parts(name)] for shard in shards])
        for name in READABLE_FEATURES
    }
    return FeatureTable(features, dict(broken))


def _read_hashes(path: Path) -> dict[str, str]:
    """The hashes of the shards' files, by name; none if the file is damaged itself, or from before there were any."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _write_missing_shards(
    files: FeatureFiles,
    rows: int,
    encode_from: Callable[[int], Batches],
    broken: Mapping[int, str],
    hashes: dict[str, str],
):
    """Write shards of one size, but for the last, from the first row on that is not there."""
    first, waiting, count = files.count_rows(), [], 0

    def write_shard(size: int):
        nonlocal first, waiting, count
        features = {name: torch.cat([batch[name] for batch in waiting]) for name in FEATURES}
        numbers = range(first, first + size)
        notes = {str(row): reason for row, reason in list(broken.items()) if row in numbers}
        number = files.count_shards()
        shard = {name: tensor[:size] for name, tensor in features.items()}
        files.write(number, [{"row": row} for row in numbers], shard, {"broken": notes})
        hashes.update({file.name: file_digest(file) for file in files.shard_paths(number)})
        write_json(files.folder / HASHES, hashes)
        waiting = [{name: tensor[size:] for name, tensor in features.items()}]
        first, count = first + size, count - size

    with progress(total=rows, initial=first, desc="Features", unit="image", leave=False) as bar:
        for batch in encode_from(first):
            waiting.append(batch)
            count += len(batch["trunk"])
            bar.update(len(batch["trunk"]))
            size = choose_rows_per_file(sum(batch[name].shape[1] for name in FEATURES))
            while count >= size:
                write_shard(size)
    if count:
        write_shard(count)
