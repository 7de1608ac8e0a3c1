"""Divide the rows of a stream among readers, and shuffle them."""

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from datasets import IterableDataset

OPEN_SHARDS = 4  # Rows of one shard often show one person or video, so the rows of several shards are mixed.
ROWS_AT_ONCE = 16  # Undecoded rows that are read together and held in memory for each open shard.


class StreamRow(NamedTuple):
    """An undecoded image of a stream.

    Args:
        image: Encoded image as `datasets.Image(decode=False)` returns it; None if the row has no image.
        name: Shard and number of the row, the same in every pass.
    """

    image: dict | None
    name: str


def read_shuffled_rows(
    corpus: IterableDataset, epoch: int, seed: int, reader: int, readers: int, buffer_size: int
) -> Iterator[StreamRow]:
    """Read one reader's rows of one pass over a stream. They depend on the arguments alone.

    The shards are shuffled, and every reader gets the same number of them. The rows of the remaining shards are divided
    among all readers. A reader interleaves a few of its shards at a time, and draws their rows at random from a buffer.

    The shuffle of `datasets` is not used, because its order changes between versions, and from version 5 on it waits
    five seconds at the end of a pass over parquet.

    Args:
        corpus: Stream with a column `image`.
        epoch: Number of the pass.
        seed: Seed of the order.
        reader: Index of this reader, in [0, `readers`).
        readers: Number of readers. Together they read every row once.
        buffer_size: Number of undecoded rows in the buffer.
    """
    corpus = corpus.select_columns("image")
    shards = np.random.default_rng([seed, epoch]).permutation(corpus.num_shards).tolist()
    evenly_divided = len(shards) - len(shards) % readers
    shared_rows = _interleave(_read_shard(corpus, shard) for shard in shards[evenly_divided:])
    own_shards = (_read_shard(corpus, shard) for shard in shards[reader:evenly_divided:readers])
    rows = _interleave(chain([islice(shared_rows, reader, None, readers)], own_shards))
    return _draw_from_buffer(rows, buffer_size, np.random.default_rng([seed, epoch, reader]))


def _read_shard(corpus: IterableDataset, shard: int) -> Iterator[StreamRow]:
    # `iter(corpus)` would divide the rows among the workers of torch a second time.
    blocks = corpus.shard(corpus.num_shards, shard).iter(ROWS_AT_ONCE)
    images = (image for block in blocks for image in block["image"])
    for number, image in enumerate(images):
        yield StreamRow(image, f"row {number} of shard {shard}")


def _interleave(streams: Iterator[Iterator[StreamRow]]) -> Iterator[StreamRow]:
    """Yield one row of each open stream in turn. When a stream ends, the next one is opened."""
    open_streams = deque(islice(streams, OPEN_SHARDS))
    while open_streams:
        stream = open_streams.popleft()
        row = next(stream, None)
        if row is not None:
            yield row
        successor = stream if row is not None else next(streams, None)
        if successor is not None:
            open_streams.append(successor)


def _draw_from_buffer(
    rows: Iterator[StreamRow], buffer_size: int, generator: np.random.Generator
) -> Iterator[StreamRow]:
    """Shuffle rows with a buffer: yield a random row of it, and put the next row in its place."""
    buffer = list(islice(rows, buffer_size))
    for row in rows:
        slot = generator.integers(len(buffer))
        yield buffer[slot]
        buffer[slot] = row
    yield from (buffer[slot] for slot in generator.permutation(len(buffer)))
