"""Load a corpus as endless batches of decoded images, which can be resumed after any batch."""

import gc
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal

import fsspec.asyn
import torch
from datasets import IterableDataset
from torch.utils.data import DataLoader

from .batches import Batch, RowImages, StreamBatches
from .child_processes import end_with_parent, ignore_stop_signals
from .corpora import Corpus
from .epochs import EpochBatchSampler, EpochPlan
from .streaming import read_shuffled_rows

logger = logging.getLogger(__name__)

SHUFFLE_BUFFER = 1000  # Undecoded rows: tens of MB of JPEG files, and several batches of 256.


class Loader:
    """Endless batches. A new iterator continues after the last batch that was taken.

    Args:
        read: Function that returns the batches after a position.
        position: Position to start from.
        batches_per_epoch: Number of batches in an epoch; None if it is not known.
    """

    def __init__(self, read: Callable[[dict], Iterable[Batch]], position: dict, batches_per_epoch: int | None):
        self._read, self._position, self.batches_per_epoch = read, dict(position), batches_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._read(self._position):
            self._position = batch.position
            yield batch

    def position(self) -> dict:
        """Return the position after the last batch that was taken. Batches that were read ahead do not count."""
        return dict(self._position)


def make_loader(
    corpus: Corpus,
    load_size_px: int,
    batch_size: int,
    seed: int = 0,
    subjects: Literal["auto", "on", "off"] = "auto",
    rank: int = 0,
    world_size: int = 1,
    position: dict | None = None,
    num_workers: int = 0,
    pin_memory: bool = False,
    shuffle_buffer: int = SHUFFLE_BUFFER,
    other_frames: int = 0,
) -> Loader:
    """Make a loader of batches of decoded images. torch's global random state is not used.

    In a map-style corpus, a broken image is replaced by the image of another row, the same one in every run, so that an
    epoch keeps its batches. The batches do not depend on the number of workers.

    In a stream, broken images are skipped. Each pass is divided among all workers of all processes without overlap.
    Every worker makes complete batches of its share, from its own shuffle buffer, and drops an incomplete batch at the
    end. A process takes batches from its workers in turn.

    Args:
        corpus: Corpus as `load_corpus` returns it.
        load_size_px: Side of the images, at least 1.
        batch_size: Images per batch in each process, at least 1.
        seed: Seed of the order, at least 0.
        subjects: Whether an epoch is one random frame of one random video of each subject, instead of every image.
            `"auto"` does so if a map-style corpus has a column `subject` and enough subjects to fill a batch. Streams
            always take every image.
        rank: Index of this process, in [0, `world_size`).
        world_size: Number of processes.
        position: Position of an earlier loader, to continue after its last batch; None starts at the beginning. The
            corpus, sizes, seed and number of processes must be the same, and for a stream the number of workers, where
            0 and 1 are equal.
        num_workers: Number of processes that decode; 0 decodes in this process.
        pin_memory: Whether to copy batches to pinned memory, for a GPU.
        shuffle_buffer: Number of undecoded rows of a stream that a process holds, at least 1. Its workers share them
            evenly, and each draws its next row from its share.
        other_frames: Maximum number of other frames of the same video to decode for each image. They depend only on the
            rows of the batch.

    Raises:
        ValueError: If an epoch is smaller than a batch, or an option does not fit the kind of corpus or the `position`.
            If a worker's share of a stream is smaller than a batch, the error is raised while reading.
    """
    minimums = {"load_size_px": 1, "batch_size": 1, "seed": 0, "num_workers": 0}
    for name, number in zip(minimums, (load_size_px, batch_size, seed, num_workers)):
        if number < minimums[name]:
            raise ValueError(f"`{name}` must be at least {minimums[name]}, got {number}.")
    options = {"num_workers": num_workers, "pin_memory": pin_memory}
    if isinstance(corpus, IterableDataset):
        workers = max(1, num_workers)
        start = {"readers": [{"epoch": 0, "row": 0}] * workers, "turn": 0, "world_size": world_size}
        position = position or start
        _check_stream(subjects, position, workers, world_size, other_frames)
        buffer_size = max(1, shuffle_buffer // workers)
        rows = partial(read_shuffled_rows, corpus, seed=seed, readers=world_size * workers, buffer_size=buffer_size)
        batches = partial(StreamBatches, rows, load_size_px, batch_size, rank)
        return Loader(partial(_read_stream, batches, options), position, None)
    by_subject = subjects == "on" or (subjects == "auto" and "subject" in corpus.column_names)
    plan = EpochPlan(corpus, by_subject)
    if subjects == "auto" and by_subject and len(plan) < batch_size * world_size:
        logger.info("%d subjects do not fill a batch: an epoch is every image", len(plan))
        plan = EpochPlan(corpus)
    sampler = partial(EpochBatchSampler, plan, batch_size, seed, rank, world_size)
    images = RowImages(corpus, load_size_px, other_frames)
    return Loader(partial(_read_rows, images, sampler, options), position or {"batch": 0}, sampler().batches_per_epoch)


def _check_stream(subjects: str, position: dict, workers: int, world_size: int, other_frames: int):
    if other_frames:
        raise ValueError("Other frames of a video need an index of the rows: open the corpus without streaming.")
    if subjects == "on":
        raise ValueError('`subjects="on"` needs an index of the rows: open the corpus without streaming.')
    counts = {"num_workers": (len(position["readers"]), workers), "world_size": (position["world_size"], world_size)}
    for name, (earlier, current) in counts.items():
        if earlier != current:
            raise ValueError(
                f"`{name}` was {earlier} for the loader of `position`, but is {current}: a stream can only be resumed "
                f"with the same `{name}`."
            )


def _collate(batch: Batch) -> Batch:
    return batch


def _start_worker(worker: int):
    end_with_parent(os.getppid())
    ignore_stop_signals()  # They reach all processes of a session, but the batches of the last step must still arrive.
    gc.freeze()  # A full collection would write to the memory pages that are shared with the parent, and so copy them.
    fsspec.asyn.reset_lock()  # A forked worker has no event loop thread: without this, reading `hf://` addresses hangs.


def _make_data_loader(dataset, **options) -> DataLoader:
    # torch seeds workers from this generator. The global one would have another state in a resumed run.
    return DataLoader(
        dataset, collate_fn=_collate, worker_init_fn=_start_worker, generator=torch.Generator(), **options
    )


def _read_rows(
    images: RowImages, sampler: Callable[..., EpochBatchSampler], options: dict, position: dict
) -> Iterator[Batch]:
    start = position["batch"]
    batches = _make_data_loader(images, batch_sampler=sampler(start_batch=start), **options)
    for number, batch in enumerate(batches, start + 1):
        batch.position = {"batch": number}
        yield batch


def _read_stream(batches: Callable[[dict], StreamBatches], options: dict, position: dict) -> Iterator[Batch]:
    """Read batches of all readers, and set the position of each batch. Batches that were read ahead do not count."""
    readers, turn = list(position["readers"]), position["turn"]
    for batch in _make_data_loader(batches(position), batch_size=None, **options):
        readers[turn] = batch.position
        turn = (turn + 1) % len(readers)
        batch.position = position | {"readers": list(readers), "turn": turn}
        yield batch
