"""Frozen encoders, run by torch or onnxruntime, and their features of batches and of corpora."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import torch
from datasets import Dataset
from huggingface_hub.constants import HF_HOME

from ..data.corpora import corpus_revision
from ..data.image_decoder import CorpusImages
from ..features_pcl import FEATURES
from ..hub.models import model_digest, open_encoder
from ..precision import has_fast_bfloat16
from ..progress import progress
from .feature_cache import FeatureTable, load_or_compute_features

BATCH_SIZE = 128

Precision = Literal["bf16", "float32"]
Item, Loaded, Result = TypeVar("Item"), TypeVar("Loaded"), TypeVar("Result")


@torch.no_grad()
def encode(model, images: torch.Tensor, precision: Precision = "bf16") -> dict[str, torch.Tensor]:
    """Encode a batch of images with a frozen encoder.

    Args:
        model: A `PCLModel`, on any device. It is set to eval mode and channels-last order.
        images: `(batch, 3, height, width)` uint8, or float in [0, 1].
        precision: `"bf16"` returns bfloat16, and computes in it by autocast if the device has instructions for it;
            `"float32"` returns the same as the model's `forward`.

    Returns:
        `trunk`, `face` and `pose`, each `(batch, dim)` on the CPU.
    """
    model.eval().to(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    is_autocast = precision == "bf16" and has_fast_bfloat16(model.device.type)
    images = images.to(model.device, memory_format=torch.channels_last)
    pixel_values = images.float() / 255 if images.dtype == torch.uint8 else images
    with torch.autocast(model.device.type, torch.bfloat16, enabled=is_autocast):
        outputs = model(pixel_values, return_dict=True)
    return {name: outputs[output_name].to(dtype).cpu() for name, output_name in FEATURES.items()}


def extract_features(
    model, batches: Sequence[torch.Tensor], precision: Precision = "float32"
) -> dict[str, torch.Tensor]:
    """Encode images with a frozen encoder, and keep all features in memory.

    Args:
        model: As for `encode`.
        batches: At least one batch of images, as for `encode`.
        precision: As for `encode`.

    Returns:
        `trunk`, `face` and `pose`, each `(images, dim)` on the CPU, in the order of the images.
    """
    encoded = [
        encode(model, images, precision) for images in progress(batches, desc="features", unit="part", leave=False)
    ]
    return {name: torch.cat([rows[name] for rows in encoded]) for name in FEATURES}


def map_on_cores(work: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
    """Yield `work(item)` for each item, in order, with one item per core at a time.

    For decoding and encoding batches, this is faster than all cores working on one batch. Items are taken as they are
    needed, in the caller's thread.
    """
    # Measured on two cores and 12,000 images: 1.05 times the speed of the bare forward pass, 0.72 times with all cores
    # on one batch.
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores) as pool:
            futures = deque(pool.submit(work, item) for item in islice(items, cores + 1))
            while futures:
                yield futures.popleft().result()
                futures.extend(pool.submit(work, item) for item in islice(items, 1))
    finally:
        torch.set_num_threads(cores)


def load_and_encode(
    load: Callable[[Item], Loaded], encode: Callable[[Loaded], Result], items: Iterator[Item], device: torch.device
) -> Iterator[Result]:
    """Decode and encode items, in order.

    On a CPU, each core decodes and encodes items of its own. Otherwise all cores decode, and the accelerator encodes
    one item at a time, to save its memory.
    """
    if device.type == "cpu":
        return map_on_cores(lambda item: encode(load(item)), items)
    return map(encode, map_on_cores(load, items))


class BatchEncoder(Protocol):
    """Maps images `(batch, 3, size, size)` uint8 to `trunk`, `face` and `pose`, each `(batch, dim)` on the CPU.

    Attributes:
        image_size: Side in px of the images that the model was made for.
        digest: Identifier of the weights, and of options that change the features.
        device: Device on which it computes.
    """

    image_size: int
    digest: str
    device: torch.device

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]: ...


class TorchEncoder:
    """A `BatchEncoder` by torch, on a GPU if there is one.

    Args:
        name: Folder or Hub id.
        precision: As for `encode`.

    Raises:
        ValueError: If the model cannot be opened.
    """

    def __init__(self, name: str, precision: Precision):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = open_encoder(name).to(self.device, memory_format=torch.channels_last).eval()
        self.name, self.precision = name, precision
        self.image_size = self.model.config.image_size
        # Face features of the same weights differ by this option.
        option = " mirror_invariant_face" if self.model.config.mirror_invariant_face else ""
        self.digest = model_digest(self.model) + option

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return encode(self.model, images, self.precision)


class Encoder(TorchEncoder):
    """A frozen model that extracts the features of a corpus once and caches them.

    Args:
        name: Folder or Hub id.
        cache_dir: Folder of the cache; None is `modeling_pcl/features` in the Hugging Face home folder.
        batch_size: Images that all cores together encode at a time; None is 128.

    Raises:
        ValueError: If the model cannot be opened.
    """

    def __init__(self, name: str, cache_dir: str | None = None, batch_size: int | None = None):
        super().__init__(name, "float32")
        self.batch_size = batch_size or BATCH_SIZE
        self.cache_dir = Path(cache_dir or Path(HF_HOME) / "modeling_pcl" / "features").expanduser()

    def extract(self, corpus: Dataset, image_size: int, precision: Precision, name: str) -> FeatureTable:
        """Extract the features of every row of a corpus, or read them from the cache.

        Args:
            corpus: Corpus with a column `image`.
            image_size: Side of the images, in px.
            precision: As for `encode`.
            name: Name of the corpus in error messages.
        """
        images, count = CorpusImages(corpus, image_size, name), len(corpus)
        # The cores share one batch, so that memory does not depend on their number.
        size = max(1, self.batch_size // torch.get_num_threads()) if self.device.type == "cpu" else self.batch_size

        def encode_from(start: int) -> Iterator[dict[str, torch.Tensor]]:
            parts = (range(first, min(first + size, count)) for first in range(start, count, size))
            return load_and_encode(images.load, partial(encode, self.model, precision=precision), parts, self.device)

        # The revision covers the content of some rows only, so the fingerprint of the dataset's history is added.
        identity = f"{corpus_revision(corpus)} {corpus._fingerprint}"
        key = {"model": self.digest, "corpus": identity, "image_size": image_size, "precision": precision}
        return load_or_compute_features(self.cache_dir, key, count, encode_from, images.broken)


def open_backend(name: str, backend: str, precision: Precision) -> BatchEncoder:
    """Open the encoder of a model folder, a Hub id or an ONNX file.

    Raises:
        ValueError: If it cannot be opened, or is not for this backend.
    """
    is_file = name.endswith(".onnx")
    if is_file != (backend == "onnx"):
        raise ValueError(
            f"`--backend {backend}` runs {'a folder or a Hub id' if is_file else 'an .onnx file'}, got `{name}`; "
            + ("add `--backend onnx`." if is_file else "`pcl export` writes one.")
        )
    if backend == "torch":
        return TorchEncoder(name, precision)
    if precision != "float32":
        raise ValueError(
            f"`--precision` must be float32 with `--backend onnx`, got {precision}: the file determines the precision."
        )
    try:
        from ..hub.onnx_encoder import OnnxEncoder  # Not at the top: only this backend needs onnxruntime.

        return OnnxEncoder(name, threads=1)
    except (ImportError, OSError) as error:
        raise ValueError(f"The model `{name}` does not open: {error}") from error
