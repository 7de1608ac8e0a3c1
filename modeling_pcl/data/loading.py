"""A corpus to endless batches of decoded images that resume at any batch, with an account of broken files."""

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
from .child_processes import end_with_parent, ignore_stops
from .corpora import Corpus
from .epochs import EpochBatchSampler, EpochPlan
from .streaming import shuffled_rows

logger = logging.getLogger(__name__)

SHUFFLE_BUFFER = 1000  # Undecoded rows: tens of MB of JPEG files, and several batches of 256.


class Loader:
    """Endless batches; `iter` goes on behind the last batch that was taken.

    Args:
        read: From a position to the batches that follow it.
        position: Where to start.
        batches_per_epoch: None if that is not known.
    """

    def __init__(self, read: Callable[[dict], Iterable[Batch]], position: dict, batches_per_epoch: int | None):
        self._read, self._position, self.batches_per_epoch = read, dict(position), batches_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._read(self._position):
            self._position = batch.position
            yield batch

    def position(self) -> dict:
        """Where to start again so that the batch behind the last one taken comes first, whatever is read ahead."""
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
    """Read a corpus in batches. Workers read, decode and resize; torch's global random state is not used.

    Of a map-style corpus another row, always the same, stands in for one that does not decode, so an epoch keeps its
    batches; they do not depend on the number of workers. A stream skips it. Its passes are shared out, without overlap,
    to all workers of all processes: each makes whole batches of its own share, from its own shuffle buffer, and a
    process takes them from its workers in turn. What remains of a share after its last whole batch is left out.

    Args:
        corpus: As `load_corpus` returns it.
        load_size_px: Side of the images, at least 1.
        batch_size: Images a batch has in each process.
        seed: Of the order, at least 0.
        subjects: Whether an epoch is one random frame of one random video of each subject. `"auto"` does so where a
            map-style corpus has a column `subject` and subjects enough to fill a batch; a stream takes every image.
        rank: Index of this process, in [0, `world_size`).
        world_size: Number of processes.
        position: Of a loader with the same corpus, sizes, seed and number of processes, to go on where it stood; for a
            stream with the same number of workers too, where 0 and 1 are the same.
        num_workers: Processes that decode; 0 decodes in this one.
        pin_memory: Copy batches to pinned memory, for a GPU.
        shuffle_buffer: Undecoded rows of a stream that a process holds, at least 1; a worker draws its next one among
            its part of them.
        other_frames: Frames to read beside each image that are of the same video and not the image itself, at most;
            fewer where the video has fewer. Which, depends on the rows of the batch alone.

    Raises:
        ValueError: If an epoch is smaller than a batch, or an option does not fit the kind of corpus or the `position`
            of a stream. A stream's share that is smaller than a batch is seen when it is read.
    """
    least = {"load_size_px": 1, "batch_size": 1, "seed": 0, "num_workers": 0}
    for name, number in zip(least, (load_size_px, batch_size, seed, num_workers)):
        if number < least[name]:
            raise ValueError(f"`{name}` must be at least {least[name]}, got {number}.")
    options = {"num_workers": num_workers, "pin_memory": pin_memory}
    if isinstance(corpus, IterableDataset):
        workers = max(1, num_workers)
        start = {"readers": [{"epoch": 0, "row": 0}] * workers, "turn": 0, "world_size": world_size}
        position = position or start
        _check_stream(subjects, position, workers, world_size, other_frames)
        buffer_size = max(1, shuffle_buffer // workers)
        rows = partial(shuffled_rows, corpus, seed=seed, readers=world_size * workers, buffer_size=buffer_size)
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
    for name, (then, now) in counts.items():
        if then != now:
            raise ValueError(
                f"`{name}` was {then} where `position` was taken, is {now}: a stream goes on with the number that it "
                "was shared out to."
            )


def _collate(batch: Batch) -> Batch:
    return batch


def _start_worker(worker: int):
    end_with_parent(os.getppid())
    ignore_stops()  # They come to all processes of a session; the batches for the last step must still arrive.
    gc.freeze()  # A full collection would write to every page that is shared with the parent, and so copy it.
    fsspec.asyn.reset_lock()  # A forked worker has no event loop thread: without this, reading addresses hangs.


def _load(dataset, **options) -> DataLoader:
    # torch seeds workers from this generator, or else from the global one, which a resumed run could not match.
    return DataLoader(
        dataset, collate_fn=_collate, worker_init_fn=_start_worker, generator=torch.Generator(), **options
    )


def _read_rows(
    images: RowImages, sampler: Callable[..., EpochBatchSampler], options: dict, position: dict
) -> Iterator[Batch]:
    start = position["batch"]
    batches = _load(images, batch_sampler=sampler(start_batch=start), **options)
    for number, batch in enumerate(batches, start + 1):
        batch.position = {"batch": number}
        yield batch


def _read_stream(batches: Callable[[dict], StreamBatches], options: dict, position: dict) -> Iterator[Batch]:
    """Merge the readers' own positions as their batches are taken: what they read ahead does not count."""
    readers, turn = list(position["readers"]), position["turn"]
    for batch in _load(batches(position), batch_size=None, **options):
        readers[turn] = batch.position
        turn = (turn + 1) % len(readers)
        batch.position = position | {"readers": list(readers), "turn": turn}
        yield batch
