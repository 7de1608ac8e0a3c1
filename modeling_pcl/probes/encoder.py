"""Frozen encoders and their features: of batches of images, by torch or onnxruntime, and of corpora."""

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
from ..progress import progress
from .feature_cache import FeatureTable, load_or_compute_features

BATCH_SIZE = 128

Precision = Literal["bf16", "float32"]
Item, Loaded, Result = TypeVar("Item"), TypeVar("Loaded"), TypeVar("Result")


@torch.no_grad()
def encode(model, images: torch.Tensor, precision: Precision = "bf16") -> dict[str, torch.Tensor]:
    """Encode a batch of images with a frozen encoder.

    Args:
        model: A `PCLModel`; put into eval mode and channels-last order, on any device.
        images: `(batch, 3, height, width)` uint8 or float in [0, 1].
        precision: `"bf16"` computes by autocast and gives bfloat16; `"float32"` is what the model's `forward` gives.

    Returns:
        `trunk`, `face` and `pose`, each `(batch, dim)` on the CPU.
    """
    model.eval().to(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    images = images.to(model.device, memory_format=torch.channels_last)
    pixel_values = images.float() / 255 if images.dtype == torch.uint8 else images
    with torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = model(pixel_values, return_dict=True)
    return {name: outputs[output_name].to(dtype).cpu() for name, output_name in FEATURES.items()}


def extract_features(
    model, batches: Sequence[torch.Tensor], precision: Precision = "float32"
) -> dict[str, torch.Tensor]:
    """Encode images with a frozen encoder, all features kept in memory.

    Args:
        model: As for `encode`.
        batches: Of images, as for `encode`, at least one.
        precision: As for `encode`.

    Returns:
        `trunk`, `face` and `pose`, each `(images, dim)` on the CPU, in the order of the images.
    """
    encoded = [
        encode(model, images, precision) for images in progress(batches, desc="features", unit="batch", leave=False)
    ]
    return {name: torch.cat([rows[name] for rows in encoded]) for name in FEATURES}


def map_on_cores(work: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
    """What `work` makes of each item, in order, each core at an item of its own.

    For decoding and encoding batches this is faster than all cores together on one batch. Items are taken as they are
    needed, in the caller's thread.
    """
    # On two cores, 12,000 images: 1.05 times as fast as the bare forward pass; all cores on one batch 0.72 times.
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores) as pool:
            running = deque(pool.submit(work, item) for item in islice(items, cores + 1))
            while running:
                yield running.popleft().result()
                running.extend(pool.submit(work, item) for item in islice(items, 1))
    finally:
        torch.set_num_threads(cores)


def load_and_encode(
    load: Callable[[Item], Loaded], encode: Callable[[Loaded], Result], items: Iterator[Item], device: torch.device
) -> Iterator[Result]:
    """Decode and encode items, in order: on a CPU every core an item of its own; else all cores decode, and the
    accelerator has one item at a time in its memory."""
    if device.type == "cpu":
        return map_on_cores(lambda item: encode(load(item)), items)
    return map(encode, map_on_cores(load, items))


class BatchEncoder(Protocol):
    """Images `(batch, 3, size, size)` uint8 to `trunk`, `face` and `pose`, each `(batch, dim)` on the CPU.

    Attributes:
        image_size: Side in px that the model is made for.
        digest: What identifies the weights.
        device: Where it computes.
    """

    image_size: int
    digest: str
    device: torch.device

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]: ...


class TorchEncoder:
    """A `BatchEncoder` by torch, on a GPU where there is one.

    Args:
        name: Folder or Hub id.
        precision: As for `encode`.

    Raises:
        ValueError: If the model does not open.
    """

    def __init__(self, name: str, precision: Precision):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = open_encoder(name).to(self.device, memory_format=torch.channels_last).eval()
        self.name, self.precision = name, precision
        self.image_size, self.digest = self.model.config.image_size, model_digest(self.model)

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return encode(self.model, images, self.precision)


class Encoder(TorchEncoder):
    """A frozen model with its features of corpora, extracted once.

    Args:
        name: Folder or Hub id.
        cache_dir: Folder of the features; None is `modeling_pcl/features` in the Hugging Face home folder.
        batch_size: Images encoded at once, by all cores together.

    Raises:
        ValueError: If the model does not open.
    """

    def __init__(self, name: str, cache_dir: str | None = None, batch_size: int | None = None):
        super().__init__(name, "float32")
        self.batch_size = batch_size or BATCH_SIZE
        self.cache_dir = Path(cache_dir or Path(HF_HOME) / "modeling_pcl" / "features").expanduser()

    def extract(self, corpus: Dataset, image_size: int, precision: Precision, name: str) -> FeatureTable:
        """Give the features of every row of a corpus, extracted or from the cache.

        Args:
            corpus: With a column `image`.
            image_size: Side of the images, in px.
            precision: As for `encode`.
            name: What to call the corpus in errors.
        """
        images, count = CorpusImages(corpus, image_size, name), len(corpus)
        # All cores together have one batch in memory, as an accelerator has.
        size = max(1, self.batch_size // torch.get_num_threads()) if self.device.type == "cpu" else self.batch_size

        def encode_from(start: int) -> Iterator[dict[str, torch.Tensor]]:
            parts = (range(first, min(first + size, count)) for first in range(start, count, size))
            return load_and_encode(images.load, partial(encode, self.model, precision=precision), parts, self.device)

        # The revision is of the content, but looks at some rows only; the fingerprint is of how it was made.
        identity = f"{corpus_revision(corpus)} {corpus._fingerprint}"
        key = {"model": self.digest, "corpus": identity, "image_size": image_size, "precision": precision}
        return load_or_compute_features(self.cache_dir, key, count, encode_from, images.broken)


def open_backend(name: str, backend: str, precision: Precision) -> BatchEncoder:
    """The encoder of a model folder, a Hub id or an ONNX file.

    Raises:
        ValueError: If it does not open, or is not for this backend.
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
        raise ValueError(f"`--precision` must be float32 with `--backend onnx`, got {precision}: the file decides.")
    try:
        from ..hub.onnx_encoder import OnnxEncoder  # It needs packages that torch does not.

        return OnnxEncoder(name, threads=1)
    except (ImportError, OSError) as error:
        raise ValueError(f"The model `{name}` does not open: {error}") from error
