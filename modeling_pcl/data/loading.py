"""A corpus to endless batches of decoded images that resume at any batch, with an account of broken files."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader

from .corpora import Corpus
from .epochs import EpochBatchSampler, EpochPlan, shuffled_rows
from .images import BrokenImageError, decode_image

logger = logging.getLogger(__name__)

STAND_INS = 100  # Rows to try in place of a broken one.
JUDGED_AFTER = 200  # Fewer attempts say little about a share.
SHUFFLE_BUFFER = 1000
START = {"map": {"batch": 0}, "stream": {"epoch": 0, "row": 0}}


@dataclass
class Batch:
    """Decoded images, and what became of the others that were tried for them.

    Args:
        images: `(batch, 3, load_size_px, load_size_px)`, uint8.
        attempted: How many rows were drawn for it, broken ones included.
        broken: Name and reason of each broken one.
        position: Where a loader that is to give the next batch starts; JSON-serialisable.
    """

    images: torch.Tensor
    attempted: int
    broken: list[tuple[str, str]] = field(default_factory=list)
    position: dict[str, int] = field(default_factory=dict)

    def pin_memory(self) -> "Batch":
        """Called by torch's DataLoader."""
        self.images = self.images.pin_memory()
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

    def position(self) -> dict[str, int]:
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
) -> Loader:
    """Read a corpus in batches. Workers decode and resize, nothing else; torch's global random state is not used.

    Another row, always the same, stands in for one that does not decode, so batches keep their size; a stream skips it.

    Args:
        corpus: As `load_corpus` returns it.
        load_size_px: Side of the images, at least 1.
        batch_size: Images a batch has in each process.
        seed: Of the order, at least 0.
        subjects: Whether an epoch is one random frame of one random video of each subject. `"auto"` does so where a
            map-style corpus has a column `subject` and subjects enough to fill a batch; a stream takes every image.
        rank: Index of this process, in [0, `world_size`).
        world_size: Number of processes.
        position: Of a loader with the same corpus, sizes, seed and number of processes, to go on where it stood.
        num_workers: Processes that decode; 0 decodes in this one. A stream has at most 1.
        pin_memory: Copy batches to pinned memory, for a GPU.
        shuffle_buffer: Rows of a stream among which the next one is drawn.

    Raises:
        ValueError: If an epoch is smaller than a batch, or an option does not fit the kind of corpus.
    """
    _check_options(load_size_px, batch_size, seed, subjects, rank, world_size)
    kind = "stream" if isinstance(corpus, IterableDataset) else "map"
    position = START[kind] if position is None else position
    if set(position) != set(START[kind]):
        raise ValueError(f"`position` must have the entries {list(START[kind])} here, got {position}.")
    options = {"num_workers": num_workers, "pin_memory": pin_memory}
    if kind == "stream":
        _check_stream(subjects, num_workers)
        rows = partial(shuffled_rows, corpus, seed=seed, rank=rank, world_size=world_size, buffer_size=shuffle_buffer)
        return Loader(partial(_read_stream, rows, load_size_px, batch_size, options), position, None)
    by_subject = subjects == "on" or (subjects == "auto" and "subject" in corpus.column_names)
    plan = EpochPlan(corpus, by_subject)
    if subjects == "auto" and by_subject and len(plan) < batch_size * world_size:
        logger.info("%d subjects do not fill a batch: an epoch is every image", len(plan))
        plan = EpochPlan(corpus)
    sampler = partial(EpochBatchSampler, plan, batch_size, seed, rank, world_size)
    images = RowImages(corpus, load_size_px)
    return Loader(partial(_read_rows, images, sampler, options), position, sampler().batches_per_epoch)


def _check_options(load_size_px: int, batch_size: int, seed: int, subjects: str, rank: int, world_size: int):
    at_least = {"load_size_px": (load_size_px, 1), "batch_size": (batch_size, 1), "seed": (seed, 0)}
    for name, (value, least) in at_least.items():
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    if not 0 <= rank < world_size:
        raise ValueError(f"`rank` must be in [0, `world_size`), got {rank} of {world_size}.")
    if subjects not in ("auto", "on", "off"):
        raise ValueError(f"`subjects` must be auto, on or off, got {subjects}.")


def _check_stream(subjects: str, num_workers: int):
    if subjects == "on":
        raise ValueError('`subjects="on"` needs an index of the rows: open the corpus without streaming.')
    if num_workers > 1:
        raise ValueError(f"`num_workers` must be 0 or 1 for a stream, got {num_workers}.")


def _collate(batch: Batch) -> Batch:
    return batch


def _stack(images: list[torch.Tensor]) -> torch.Tensor:
    # By numpy: torch.stack wakes its threads for every image, and took a thousand times as long on busy cores.
    return torch.from_numpy(np.stack([image.numpy() for image in images]))


def _load(dataset, **options) -> DataLoader:
    # torch seeds workers from this generator, or else from the global one, which a resumed run could not match.
    return DataLoader(dataset, collate_fn=_collate, generator=torch.Generator(), **options)


def _read_rows(
    images: "RowImages", sampler: Callable[..., EpochBatchSampler], options: dict, position: dict
) -> Iterator[Batch]:
    start = position["batch"]
    batches = _load(images, batch_sampler=sampler(start_batch=start), **options)
    for number, batch in enumerate(batches, start + 1):
        batch.position = {"batch": number}
        yield batch


def _read_stream(rows, load_size_px: int, batch_size: int, options: dict, position: dict) -> Iterable[Batch]:
    return _load(StreamBatches(rows, load_size_px, batch_size, position), batch_size=None, **options)


class RowImages(torch.utils.data.Dataset):
    """Rows of a map-style corpus, decoded a batch at a time.

    Args:
        corpus: With an undecoded column `image`.
        load_size_px: Side of the images.
    """

    def __init__(self, corpus: Dataset, load_size_px: int):
        self.rows, self.load_size_px = corpus.select_columns("image").with_format(None), load_size_px

    def __getitems__(self, rows: list[int]) -> Batch:
        """Called by torch's DataLoader with the rows of one batch."""
        images, broken = [], []
        for row, record in zip(rows, self.rows[rows]["image"]):
            try:
                images.append(self._decode(row, record))
            except BrokenImageError as error:
                broken.append((error.name, error.reason))
                images.append(self._stand_in(row, error))
        return Batch(_stack(images), len(rows), broken)

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
    """Endless batches of a stream; what remains of a pass after the last whole batch is left out.

    Args:
        rows: From a pass's number to its rows, always the same.
        load_size_px: Side of the images.
        batch_size: Images a batch has.
        position: The pass, and how many of its rows to read over without decoding them.
    """

    def __init__(self, rows: Callable[[int], Iterator[dict]], load_size_px: int, batch_size: int, position: dict):
        self.rows, self.load_size_px, self.batch_size, self.position = rows, load_size_px, batch_size, position

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self.position["epoch"], self.position["row"]
        attempted, broken = 0, []
        while True:
            images, batches = [], 0
            for row, record in enumerate(islice(self.rows(epoch), start, None), start + 1):
                attempted += 1
                try:
                    images.append(decode_image(record["image"], self.load_size_px, name=f"row {row} of pass {epoch}"))
                except BrokenImageError as error:
                    broken.append((error.name, error.reason))
                if len(images) == self.batch_size:
                    yield Batch(_stack(images), attempted, broken, {"epoch": epoch, "row": row})
                    images, attempted, broken, batches = [], 0, [], batches + 1
            if start == batches == 0:
                self._refuse(attempted, broken)
            epoch, start = epoch + 1, 0

    def _refuse(self, attempted: int, broken: list[tuple[str, str]]):
        raise ValueError(
            f"One pass over the stream gave this process {attempted - len(broken)} images, fewer than `batch_size` "
            f"{self.batch_size}, and {len(broken)} broken ones. Lower it or mend the corpus.{_examples(broken)}"
        )
