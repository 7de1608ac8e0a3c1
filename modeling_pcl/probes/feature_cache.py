"""Features on disk: extracted once, reused by every probe, gone on with after a stop.

One folder for each model, corpus, image size and precision:

    3f9a…/
      features.json       what they are of, and the rows whose image does not decode
      trunk.safetensors   (rows, dim), opened memory-mapped
      face.safetensors
      pose.safetensors
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file
from tqdm.auto import tqdm

from ..features_pcl import FEATURES, READABLE_FEATURES, feature_parts
from .features import Precision

DTYPES = {torch.bfloat16: "BF16", torch.float32: "F32"}
UNFINISHED = ".part"


@dataclass(frozen=True)
class FeatureKey:
    """What features are of; another value anywhere means other features.

    Args:
        model: Digest of the encoder.
        corpus: Digest of the rows, in their order.
        image_size: Side of the square images that were encoded, in px.
        precision: Of the encoder's computation and of what is kept.
    """

    model: str
    corpus: str
    image_size: int
    precision: Precision

    @property
    def folder_name(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:24]


class JoinedFeatures:
    """Features that are read as one, the first one's entries first.

    Rows are joined when they are taken: the features are memory-mapped, and a joined copy of all rows would have to fit
    into memory, for face and pose of 61,225 images at 256 px 8 GB in bfloat16.

    Args:
        features: Each `(rows, dim)`, of the same rows.
    """

    def __init__(self, features: Sequence[torch.Tensor]):
        self.features = features

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), sum(each.shape[1] for each in self.features)))

    def __len__(self) -> int:
        return len(self.features[0])

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """`(taken rows, sum of the dims)`."""
        return torch.cat([each[rows] for each in self.features], dim=1)


class Features(dict):
    """Features by name, `(rows, dim)`; `face+pose` reads the two others."""

    def __missing__(self, name: str) -> JoinedFeatures:
        if name not in READABLE_FEATURES:
            raise KeyError(name)
        return JoinedFeatures([self[part] for part in feature_parts(name)])


@dataclass(frozen=True)
class FeatureTable:
    """Features of a corpus, row by row.

    Args:
        features: `trunk`, `face` and `pose`, each `(rows, dim)`, memory-mapped; `face+pose` reads two of them.
        broken: Rows whose image does not decode, with the reason; what stands there means nothing.
    """

    features: Mapping[str, torch.Tensor | JoinedFeatures]
    broken: Mapping[int, str]


class FeatureCache:
    """Feature tables in a folder.

    Args:
        folder: Made if it does not exist. It may be deleted at any time; everything in it can be computed again.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()

    def table(
        self,
        key: FeatureKey,
        rows: int,
        encoded: Callable[[int], Iterator[Mapping[str, torch.Tensor]]],
        broken: MutableMapping[int, str],
    ) -> FeatureTable:
        """The table of a key, from disk or, as far as it is not there, computed.

        Args:
            key: What the features are of.
            rows: How many rows the table has, at least 1.
            encoded: From a row's number to the features of the batches from there on, as `features.encode` gives them.
            broken: Filled by `encoded` as it goes; what was found before a stop is put in first.

        Raises:
            ValueError: If `encoded` ends before the last row, or goes on behind it.
            OSError: If the disk is full; the same call goes on where this one stopped.
        """
        folder = self.folder / key.folder_name
        paths = {name: folder / f"{name}.safetensors" for name in FEATURES}
        if not _all_exist(paths):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "lock"):  # Another probe of the same images waits, and finds them.
                if not _all_exist(paths):
                    _fill(_Unfinished(folder, key, rows), encoded, broken)
        record = json.loads((folder / "features.json").read_text())
        features = Features({name: load_file(path)[name] for name, path in paths.items()})
        return FeatureTable(features, {int(row): reason for row, reason in record["broken"].items()})


def _all_exist(paths: Mapping[str, Path]) -> bool:
    return all(path.exists() for path in paths.values())


class _Unfinished:
    """Tables that are being written. Their rows are appended, so that the files' lengths say how far they are."""

    def __init__(self, folder: Path, key: FeatureKey, rows: int):
        self.folder, self.key, self.rows = folder, key, rows
        self.paths = {name: folder / f"{name}.safetensors{UNFINISHED}" for name in FEATURES}
        self.record_path = folder / "features.json"
        self.broken: dict[str, str] = {}
        self.done = self._done()

    def _done(self) -> int:
        """Rows that all files hold. What only some of them hold is cut off."""
        if not self.record_path.exists() or not _all_exist(self.paths):
            self.record({})
            for path in self.paths.values():
                path.unlink(missing_ok=True)
            return 0
        self.broken = json.loads(self.record_path.read_text())["broken"]
        headers = {name: _read_header(path) for name, path in self.paths.items()}
        sizes = {name: self.paths[name].stat().st_size for name in FEATURES}
        done = min((sizes[name] - start) // row_bytes for name, (start, row_bytes) in headers.items())
        for name, (start, row_bytes) in headers.items():
            with self.paths[name].open("rb+") as file:
                file.truncate(start + done * row_bytes)
        return done

    def record(self, broken: Mapping[int, str]):
        """Keep what is known of broken rows, on disk before the rows themselves."""
        self.broken |= {str(row): reason for row, reason in dict(broken).items()}  # Threads may be adding to it.
        partial = self.record_path.with_suffix(UNFINISHED)
        partial.write_text(json.dumps({**asdict(self.key), "rows": self.rows, "broken": self.broken}, indent=2) + "\n")
        partial.replace(self.record_path)

    def append(self, features: Mapping[str, torch.Tensor]):
        for name, path in self.paths.items():
            block = features[name].contiguous()
            with path.open("ab") as file:
                if file.tell() == 0:
                    file.write(_header(name, (self.rows, block.shape[1]), block.dtype))
                file.write(block.view(torch.uint8).numpy())
        self.done += len(features["trunk"])

    def finish(self):
        for path in self.paths.values():
            path.replace(path.with_suffix(""))


def _fill(tables: _Unfinished, encoded: Callable[[int], Iterator[Mapping[str, torch.Tensor]]], broken: MutableMapping):
    broken.update({int(row): reason for row, reason in tables.broken.items()})
    known = len(broken)
    if tables.done < tables.rows:
        bar = tqdm(total=tables.rows, initial=tables.done, desc="features", unit="image", leave=False)
        for features in encoded(tables.done):
            if len(broken) > known:
                known = len(broken)
                tables.record(broken)
            tables.append(features)
            bar.update(len(features["trunk"]))
        bar.close()
    if tables.done != tables.rows:
        raise ValueError(f"The features must be of {tables.rows} rows, got {tables.done}.")
    tables.finish()


def _header(name: str, shape: tuple[int, int], dtype: torch.dtype) -> bytes:
    """The beginning of a safetensors file of one tensor, whose rows may be appended one by one."""
    size = shape[0] * shape[1] * dtype.itemsize
    text = json.dumps({name: {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [0, size]}}).encode()
    text += b" " * (-len(text) % 8)  # So that the numbers are aligned.
    return len(text).to_bytes(8, "little") + text


def _read_header(path: Path) -> tuple[int, int]:
    """Where the rows begin in a file, and the bytes of one row."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        (tensor,) = json.loads(file.read(length)).values()
    return 8 + length, tensor["data_offsets"][1] // tensor["shape"][0]
