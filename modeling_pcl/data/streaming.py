"""Which rows of a stream each reader takes, and in which order."""

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from datasets import IterableDataset

OPEN_SHARDS = 4  # Rows of one shard are often alike, of one person or video: several are mixed from the start.
ROWS_AT_ONCE = 16  # What `datasets` hands out together, held undecoded for each open shard.


class StreamRow(NamedTuple):
    """An undecoded image of a stream.

    Args:
        image: As `datasets.Image(decode=False)` gives it; None if the row has none.
        name: Where it stands in the corpus, the same in every pass.
    """

    image: dict | None
    name: str


def shuffled_rows(
    corpus: IterableDataset, epoch: int, seed: int, reader: int, readers: int, buffer_size: int
) -> Iterator[StreamRow]:
    """One reader's rows of one pass over a stream, a function of the arguments alone.

    Shards are put in random order and dealt out to the readers, as many to each; of those left over, every reader takes
    its turn in rows. It reads a few shards at a time side by side, and draws their rows at random from a buffer.
    `datasets` has a shuffle of its own, but its order changes between versions, and from version 5 it waits five
    seconds at the end of a pass over parquet.

    Args:
        corpus: Rows with a column `image`.
        epoch: Number of the pass.
        seed: Of the order.
        reader: Index of this reader, in [0, `readers`).
        readers: How many share the pass out, without overlap or omission.
        buffer_size: Rows that the buffer holds, undecoded.
    """
    corpus = corpus.select_columns("image")
    shards = np.random.default_rng([seed, epoch]).permutation(corpus.num_shards).tolist()
    dealt = len(shards) - len(shards) % readers
    shared = _side_by_side(_read(corpus, shard) for shard in shards[dealt:])
    dealt_shards = (_read(corpus, shard) for shard in shards[reader:dealt:readers])
    rows = _side_by_side(chain([islice(shared, reader, None, readers)], dealt_shards))
    return _draw(rows, buffer_size, np.random.default_rng([seed, epoch, reader]))


def _read(corpus: IterableDataset, shard: int) -> Iterator[StreamRow]:
    # Not by `iter(corpus)`: in a worker of torch it would deal the rows out to the workers a second time.
    blocks = corpus.shard(corpus.num_shards, shard).iter(ROWS_AT_ONCE)
    images = (image for block in blocks for image in block["image"])
    for number, image in enumerate(images):
        yield StreamRow(image, f"row {number} of shard {shard}")


def _side_by_side(streams: Iterator[Iterator[StreamRow]]) -> Iterator[StreamRow]:
    """One row of each open stream in turn; one that ends makes room for the next."""
    opened = deque(islice(streams, OPEN_SHARDS))
    while opened:
        stream = opened.popleft()
        row = next(stream, None)
        if row is not None:
            yield row
        successor = stream if row is not None else next(streams, None)
        if successor is not None:
            opened.append(successor)


def _draw(rows: Iterator[StreamRow], buffer_size: int, generator: np.random.Generator) -> Iterator[StreamRow]:
    buffer = list(islice(rows, buffer_size))
    for row in rows:
        slot = generator.integers(len(buffer))
        yield buffer[slot]
        buffer[slot] = row
    yield from (buffer[slot] for slot in generator.permutation(len(buffer)))
