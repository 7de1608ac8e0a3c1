"""A corpus to endless batches of decoded images that resume at any batch, with an account of broken files."""

import gc
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Literal

import fsspec.asyn
import numpy as np
import torch
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader

from .corpora import Corpus
from .epochs import EpochBatchSampler, EpochPlan
from .images import BrokenImageError, decode_image
from .streaming import StreamRow, shuffled_rows
from .video_index import VideoIndex
from .views import VideoFrames

logger = logging.getLogger(__name__)

STAND_INS = 100  # Rows to try in place of a broken one.
JUDGED_AFTER = 200  # Fewer attempts say little about a share.
SHUFFLE_BUFFER = 1000
FRUITLESS_PASSES = 10  # Shards differ in size: one pass may give a reader small ones only.


@dataclass
class Batch:
    """Decoded images, and what became of the others that were tried for them.

    Args:
        images: `(batch, 3, load_size_px, load_size_px)`, uint8.
        attempted: How many rows were drawn for it, broken ones included.
        broken: Name and reason of each broken one.
        frames: Other frames of the images' videos, where they were asked for.
        position: Where a loader that is to give the next batch starts; JSON-serialisable.
    """

    images: torch.Tensor
    attempted: int
    broken: list[tuple[str, str]] = field(default_factory=list)
    frames: VideoFrames | None = None
    position: dict = field(default_factory=dict)

    def pin_memory(self) -> "Batch":
        """Called by torch's DataLoader."""
        self.images = self.images.pin_memory()
        if self.frames is not None:
            self.frames = replace(self.frames, images=self.frames.images.pin_memory())
        return self


class BrokenFiles:
    """Counts and names images that do not decode, and stops a run that has too many.

    Args:
        max_broken_share: Share of the attempted images that may be broken, in [0, 1].
        images_per_epoch: Of this process, if known; the share is first judged after as many attempts, at most 200.
    """

    def __init__(self, max_broken_share: float = 0.05, images_per_epoch: int | None = None):
        if not 0 <= max_broken_share <= 1:
            raise ValueError(f"`max_broken_share` must be in [0, 1], got {max_broken_share}.")
        self.max_broken_share = max_broken_share
        self.first_judged_at = min(JUDGED_AFTER, images_per_epoch or JUDGED_AFTER)
        self.attempted, self.count = 0, 0
        self.reasons: dict[str, str] = {}

    def add(self, batch: Batch):
        """Take the account of one batch; each file is logged once.

        Raises:
            ValueError: If the share of broken images is above `max_broken_share`.
        """
        self.attempted += batch.attempted
        self.count += len(batch.broken)
        for name, reason in batch.broken:
            if name not in self.reasons:
                logger.warning("skipped %s: %s", name, reason)
                self.reasons[name] = reason
        if self.attempted >= self.first_judged_at and self.count > self.max_broken_share * self.attempted:
            raise ValueError(
                f"{self.count} of {self.attempted} images do not decode, a share of {self.count / self.attempted:.3f}; "
                f"`max_broken_share` allows {self.max_broken_share}. Mend or remove the broken files, or raise "
                f"`max_broken_share`.{_examples(list(self.reasons.items()))}"
            )


def _examples(broken: list[tuple[str, str]]) -> str:
    return "".join(f"\n  {name}: {reason}" for name, reason in broken[:3])


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
        ValueError: If an epoch is smaller than a batch, or an option does not fit the kind of corpus or `position`. A
            stream's share that is smaller than a batch is seen when it is read.
    """
    at_least_one = {"load_size_px": load_size_px, "batch_size": batch_size, "shuffle_buffer": shuffle_buffer}
    _check_options(at_least_one, {"seed": seed, "num_workers": num_workers}, subjects, rank, world_size)
    options = {"num_workers": num_workers, "pin_memory": pin_memory}
    if isinstance(corpus, IterableDataset):
        workers = max(1, num_workers)
        start = {"readers": [{"epoch": 0, "row": 0}] * workers, "turn": 0, "world_size": world_size}
        position = _check_position(position, start)
        _check_stream(subjects, position, workers, world_size, other_frames)
        buffer_size = max(1, shuffle_buffer // workers)
        rows = partial(shuffled_rows, corpus, seed=seed, readers=world_size * workers, buffer_size=buffer_size)
        batches = partial(StreamBatches, rows, load_size_px, batch_size, rank)
        return Loader(partial(_read_stream, batches, options), position, None)
    position = _check_position(position, {"batch": 0})
    by_subject = subjects == "on" or (subjects == "auto" and "subject" in corpus.column_names)
    plan = EpochPlan(corpus, by_subject)
    if subjects == "auto" and by_subject and len(plan) < batch_size * world_size:
        logger.info("%d subjects do not fill a batch: an epoch is every image", len(plan))
        plan = EpochPlan(corpus)
    sampler = partial(EpochBatchSampler, plan, batch_size, seed, rank, world_size)
    images = RowImages(corpus, load_size_px, other_frames)
    return Loader(partial(_read_rows, images, sampler, options), position, sampler().batches_per_epoch)


def _check_options(at_least_one: dict, at_least_zero: dict, subjects: str, rank: int, world_size: int):
    for least, values in enumerate((at_least_zero, at_least_one)):
        for name, value in values.items():
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    if not 0 <= rank < world_size:
        raise ValueError(f"`rank` must be in [0, `world_size`), got {rank} of {world_size}.")
    if subjects not in ("auto", "on", "off"):
        raise ValueError(f"`subjects` must be auto, on or off, got {subjects}.")


def _check_position(position: dict | None, start: dict) -> dict:
    if position is not None and set(position) != set(start):
        raise ValueError(f"`position` must have the entries {list(start)} here, got {position}.")
    return start if position is None else position


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


def _stack(images: list[torch.Tensor]) -> torch.Tensor:
    # By numpy: torch.stack wakes its threads for every image, and took a thousand times as long on busy cores.
    return torch.from_numpy(np.stack([image.numpy() for image in images]))


def _start_worker(worker: int):
    gc.freeze()  # A full collection would write to every page that is shared with the parent, and so copy it.
    fsspec.asyn.reset_lock()  # A forked worker has no event loop thread: without this, reading addresses hangs.


def _load(dataset, **options) -> DataLoader:
    # torch seeds workers from this generator, or else from the global one, which a resumed run could not match.
    return DataLoader(
        dataset, collate_fn=_collate, worker_init_fn=_start_worker, generator=torch.Generator(), **options
    )


def _read_rows(
    images: "RowImages", sampler: Callable[..., EpochBatchSampler], options: dict, position: dict
) -> Iterator[Batch]:
    start = position["batch"]
    batches = _load(images, batch_sampler=sampler(start_batch=start), **options)
    for number, batch in enumerate(batches, start + 1):
        batch.position = {"batch": number}
        yield batch


def _read_stream(batches: Callable[[dict], "StreamBatches"], options: dict, position: dict) -> Iterator[Batch]:
    """Merge the readers' own positions as their batches are taken: what they read ahead does not count."""
    readers, turn = list(position["readers"]), position["turn"]
    for batch in _load(batches(position), batch_size=None, **options):
        readers[turn] = batch.position
        turn = (turn + 1) % len(readers)
        batch.position = position | {"readers": list(readers), "turn": turn}
        yield batch


class RowImages(torch.utils.data.Dataset):
    """Rows of a map-style corpus, decoded a batch at a time.

    Args:
        corpus: With an undecoded column `image`.
        load_size_px: Side of the images.
        other_frames: Frames of the same video to decode beside each image, at most.
    """

    def __init__(self, corpus: Dataset, load_size_px: int, other_frames: int = 0):
        self.rows, self.load_size_px = corpus.select_columns("image").with_format(None), load_size_px
        self.other_frames, self.videos = other_frames, VideoIndex(corpus) if other_frames else None

    def __getitems__(self, rows: list[int]) -> Batch:
        """Called by torch's DataLoader with the rows of one batch."""
        images, broken = [], []
        for row, record in zip(rows, self.rows[rows]["image"]):
            try:
                images.append(self._decode(row, record))
            except BrokenImageError as error:
                broken.append((error.name, error.reason))
                images.append(self._stand_in(row, error))
        return Batch(_stack(images), len(rows), broken, self._frames(rows) if self.other_frames else None)

    def _frames(self, rows: list[int]) -> VideoFrames:
        """Other frames of the rows' videos; one that does not decode is left out, as it is reported as an image."""
        generator, images, image_of = np.random.default_rng(rows), [], []
        for index, row in enumerate(rows):
            for other in generator.permutation(self.videos.others(row))[: self.other_frames].tolist():
                try:
                    images.append(self._decode(other, self.rows[other]["image"]))
                    image_of.append(index)
                except BrokenImageError:
                    continue
        side = self.load_size_px
        stacked = _stack(images) if images else torch.empty(0, 3, side, side, dtype=torch.uint8)
        return VideoFrames(stacked, np.array(image_of, dtype=np.int64))

    def _decode(self, row: int, record: dict) -> torch.Tensor:
        return decode_image(record, self.load_size_px, name=f"row {row}")

    def _stand_in(self, row: int, broken: BrokenImageError) -> torch.Tensor:
        """Another row's image, the same one in every run. Broken rows often lie together, so it is not the next one."""
        for other in np.random.default_rng(row).integers(len(self.rows), size=STAND_INS).tolist():
            try:
                return self._decode(other, self.rows[other]["image"])
            except BrokenImageError:
                continue  # It is reported when it is drawn itself.
        raise ValueError(
            f"{broken.name} does not decode ({broken.reason}), nor does any of {STAND_INS} other rows. Mend the corpus."
        )


class StreamBatches(torch.utils.data.IterableDataset):
    """Endless batches of one reader of a stream: this process, or each of its workers.

    Torch takes a batch of each worker in turn. The first worker takes over the reader whose turn it is, so that the
    batches go on in their order.

    Args:
        rows: From a pass's number and the index `reader` to that reader's rows, always the same.
        load_size_px: Side of the images.
        batch_size: Images a batch has; what remains of a pass after the last whole one is left out.
        rank: Index of this process.
        position: For each reader of this process the pass, and how many of its rows to read over without decoding them;
            and whose turn it is.
    """

    def __init__(
        self, rows: Callable[..., Iterator[StreamRow]], load_size_px: int, batch_size: int, rank: int, position: dict
    ):
        self.rows, self.load_size_px, self.batch_size = rows, load_size_px, batch_size
        self.rank, self.position = rank, position

    def __iter__(self) -> Iterator[Batch]:
        worker, readers = torch.utils.data.get_worker_info(), self.position["readers"]
        turn = (self.position["turn"] + (worker.id if worker else 0)) % len(readers)
        rows = partial(self.rows, reader=self.rank * len(readers) + turn)
        return self._batches(rows, readers[turn]["epoch"], readers[turn]["row"])

    def _batches(self, rows: Callable[[int], Iterator[StreamRow]], epoch: int, start: int) -> Iterator[Batch]:
        attempted, broken, fruitless = 0, [], 0
        while True:
            images, batches = [], 0
            for number, row in enumerate(islice(rows(epoch), start, None), start + 1):
                attempted += 1
                try:
                    images.append(decode_image(row.image, self.load_size_px, name=row.name))
                except BrokenImageError as error:
                    broken.append((error.name, error.reason))
                if len(images) == self.batch_size:
                    yield Batch(_stack(images), attempted, broken, position={"epoch": epoch, "row": number})
                    images, attempted, broken, batches = [], 0, [], batches + 1
            fruitless = 0 if start or batches else fruitless + 1
            if fruitless == FRUITLESS_PASSES:
                self._refuse(len(images), sorted(set(broken)))
            epoch, start = epoch + 1, 0

    def _refuse(self, images: int, broken: list[tuple[str, str]]):
        raise ValueError(
            f"A reader's share of the stream is smaller than one batch: the last of {FRUITLESS_PASSES} passes gave it "
            f"{images} images, `batch_size` is {self.batch_size}, and {len(broken)} were broken. Lower `batch_size` or "
            f"`num_workers`, or mend the corpus.{_examples(broken)}"
        )
