"""A cache of features, which are extracted once and reused by every probe, in the files of `pcl embed`.

The cache has one folder for each model, corpus, image size and precision:

    3f9a…/
      key.json                     model, corpus, image size and precision
      features-00000.safetensors   `trunk`, `face`, `pose`, each (rows, dim), opened memory-mapped
      rows-00000.parquet           row numbers, and the rows whose images do not decode
      hashes.json                  SHA-256 of both files of every shard; shards with other hashes are computed again
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
    """Rows of several tensors that are indexed as one tensor.

    Only the rows that are read are concatenated. The tensors are memory-mapped, and a copy of all rows would have to
    fit into memory; for face and pose of 61,225 images at 256 px, it takes 8 GB in bfloat16.

    Args:
        shards: Consecutive ranges of rows; each is a sequence of tensors `(rows, dim)` that are concatenated along
            `dim`.
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
        """Read rows as one tensor, `(rows, sum of the dims)`."""
        rows = torch.arange(len(self))[rows]
        values = torch.empty(len(rows), self.shape[1], dtype=self.shards[0][0].dtype)
        shard_of_row = torch.bucketize(rows, self.ends, right=True)
        for number, parts in enumerate(self.shards):
            is_here = shard_of_row == number
            places = rows[is_here] - (self.ends[number] - len(parts[0]))
            values[is_here] = torch.cat([part[places] for part in parts], dim=1)
        return values


@dataclass(frozen=True)
class FeatureTable:
    """Features of every row of a corpus.

    Args:
        features: `trunk`, `face`, `pose` and `face+pose` (read from the two), each `(rows, dim)`.
        broken: Rows whose images do not decode, with the reason. Their features are meaningless.
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
    """Load the features of a key from the cache, and compute those that are missing.

    Args:
        folder: Folder of the cache. It can be deleted at any time, because everything in it can be computed again.
        key: Facts that determine the features: `model` and `corpus` (digests of weights and rows), `image_size` in px
            and `precision`.
        rows: Number of rows of the corpus, at least 1.
        encode_from: Maps a row number to the features of the batches from there on, as `encoder.encode` returns them.
        broken: Rows whose images do not decode, with the reason. `encode_from` adds to it as it proceeds; rows in the
            cache are added first.

    Raises:
        OSError: If the disk is full. The same call continues where this one stopped.
    """
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    files = FeatureFiles(folder / name, "safetensors", Columns({"row": Value("int64")}))
    files.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(files.folder / ".lock"):  # A second probe of the same images waits, and then reads them.
        hashes = _read_hashes(files.folder / HASHES)
        # Hashing takes 0.7 s per GB, and keeps probes from training on damaged features.
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
    """Read the hashes of the shards' files, by name; empty if the file is missing or damaged."""
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
    """Write shards of equal size (the last may be smaller), from the first missing row on."""
    first, batches, count = files.count_rows(), [], 0

    def write_shard(size: int):
        nonlocal first, batches, count
        features = {name: torch.cat([batch[name] for batch in batches]) for name in FEATURES}
        numbers = range(first, first + size)
        notes = {str(row): reason for row, reason in list(broken.items()) if row in numbers}
        number = files.count_shards()
        shard = {name: tensor[:size] for name, tensor in features.items()}
        files.write(number, [{"row": row} for row in numbers], shard, {"broken": notes})
        hashes.update({file.name: file_digest(file) for file in files.shard_paths(number)})
        write_json(files.folder / HASHES, hashes)
        batches = [{name: tensor[size:] for name, tensor in features.items()}]
        first, count = first + size, count - size

    with progress(total=rows, initial=first, desc="Features", unit="image", leave=False) as bar:
        for batch in encode_from(first):
            batches.append(batch)
            count += len(batch["trunk"])
            bar.update(len(batch["trunk"]))
            size = choose_rows_per_file(sum(batch[name].shape[1] for name in FEATURES))
            while count >= size:
                write_shard(size)
    if count:
        write_shard(count)
