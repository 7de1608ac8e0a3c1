"""A frozen model and the features that it has been asked for."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from datasets import Dataset
from huggingface_hub.constants import HF_HOME

from modeling_pcl import (
    PCLConfig,
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLModel,
)
from modeling_pcl.data.corpora import corpus_revision
from modeling_pcl.modeling_pcl import PCLPreTrainedModel
from modeling_pcl.probes.feature_cache import FeatureCache, FeatureKey, FeatureTable
from modeling_pcl.probes.features import Precision, encode, model_digest

from .images import CorpusImages

BATCH_SIZE = 128
CLASSES = {
    kind.__name__: kind for kind in (PCLModel, PCLForPreTraining, PCLForImageClassification, PCLForHeadPoseEstimation)
}

Item, Result = TypeVar("Item"), TypeVar("Result")


def open_encoder(name: str, kind: type[PCLPreTrainedModel] = PCLModel) -> PCLPreTrainedModel:
    """The encoder of a folder or a Hub id, or the whole model, if `kind` is its class.

    Raises:
        ValueError: If it does not open, or holds another network.
    """
    try:
        model, loading = kind.from_pretrained(name, output_loading_info=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())  # transformers takes several lines.
        raise ValueError(f"The model `{name}` does not open: {reason}") from error
    if loading["missing_keys"] or loading["mismatched_keys"]:
        raise ValueError(f"`{name}` is no PCL model: it lacks {sorted(loading['missing_keys'])[:3]}.")
    return model


def open_model(name: str) -> PCLPreTrainedModel:
    """The model of a folder or a Hub id, of the class that was saved.

    Raises:
        ValueError: If it does not open, or is no PCL model.
    """
    try:
        saved = PCLConfig.from_pretrained(name).architectures or []
    except (OSError, ValueError):
        saved = []  # The next line will say why it does not open.
    return open_encoder(name, next((CLASSES[kind] for kind in saved if kind in CLASSES), PCLModel))


def on_every_core(work: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
    """What `work` makes of each item, in order, each core at an item of its own.

    For decoding and encoding batches this is faster than all cores together on one batch. Items are taken as they are
    needed, in the caller's thread.
    """
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


class Encoder:
    """A frozen model with its features of corpora, extracted once.

    Args:
        name: Folder or Hub id.
        cache_dir: Folder of the features; None is `modeling_pcl/features` in the Hugging Face home folder.
        batch_size: Images encoded at once, by all cores together.

    Raises:
        ValueError: If the model does not open.
    """

    def __init__(self, name: str, cache_dir: str | None = None, batch_size: int | None = None):
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = open_encoder(name).to(device, memory_format=torch.channels_last).eval()
        self.name, self.batch_size = name, batch_size or BATCH_SIZE
        self.digest = model_digest(self.model)
        self.cache = FeatureCache(cache_dir or Path(HF_HOME) / "modeling_pcl" / "features")

    def table(self, corpus: Dataset, image_size: int, precision: Precision, name: str) -> FeatureTable:
        """Features of every row of a corpus; `name` is what to call it in errors."""
        # The revision is of the content, but looks at some rows only; the fingerprint is of how it was made.
        identity = f"{corpus_revision(corpus)} {corpus._fingerprint}"
        images = CorpusImages(corpus, image_size, name)
        key = FeatureKey(self.digest, identity, image_size, precision)
        on_cpu = self.model.device.type == "cpu"
        encoded = partial(self._on_every_core if on_cpu else self._on_accelerator, images, precision)
        return self.cache.table(key, len(corpus), encoded, images.broken)

    def _on_accelerator(self, images: CorpusImages, precision: Precision, start: int) -> Iterator[dict]:
        return encode(self.model, images.batches(self.batch_size, start), precision)

    def _on_every_core(self, images: CorpusImages, precision: Precision, start: int) -> Iterator[dict]:
        def features(rows: range) -> dict[str, torch.Tensor]:
            return next(encode(self.model, [images.load(rows)], precision))

        count, size = len(images), max(1, self.batch_size // torch.get_num_threads())
        return on_every_core(features, (range(first, min(first + size, count)) for first in range(start, count, size)))
