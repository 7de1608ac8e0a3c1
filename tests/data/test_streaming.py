from collections import Counter
from itertools import product

import datasets
import numpy as np
import pytest
from datasets import Dataset, Features, IterableDataset, Value

from modeling_pcl.data.streaming import OPEN_SHARDS, ROWS_AT_ONCE, StreamRow, read_shuffled_rows

ROWS = 84


def make_corpus(count: int = ROWS, **columns) -> Dataset:
    """Make a corpus in which the path of every image is its row number."""
    images = [{"bytes": None, "path": str(row)} for row in range(count)]
    features = {"image": datasets.Image(decode=False)} | {name: Value("string") for name in columns}
    return Dataset.from_dict({"image": images, **columns}, features=Features(features))


def get_numbers(rows) -> list[int]:
    return [int(row.image["path"]) for row in rows]


def read_numbers(
    shards: int, epoch: int = 0, seed: int = 0, reader: int = 0, readers: int = 1, buffer_size: int = 8
) -> list[int]:
    stream = make_corpus().to_iterable_dataset(shards)
    return get_numbers(read_shuffled_rows(stream, epoch, seed, reader, readers, buffer_size))


def make_counted_stream(rows_of_shard: list[int], read: list) -> IterableDataset:
    """Make a stream that appends the shard of every row to `read` when the row is read."""

    def generate(shards):
        for shard in shards:
            for row in range(rows_of_shard[shard]):
                read.append(shard)
                yield {"image": {"bytes": None, "path": str(100 * shard + row)}}

    features = Features(image=datasets.Image(decode=False))
    shards = list(range(len(rows_of_shard)))
    return IterableDataset.from_generator(generate, features=features, gen_kwargs={"shards": shards})


class TestShares:
    # Fewer shards than readers, as many, a multiple, and neither.
    @pytest.mark.parametrize(("shards", "readers"), list(product([1, 2, 4, 6, 7, 12], [1, 2, 3, 4, 6, 12])))
    def test_readers_share_a_pass_out_evenly_without_overlap_or_omission(self, shards, readers):
        for epoch in (0, 1):
            parts = [read_numbers(shards, epoch, reader=reader, readers=readers) for reader in range(readers)]
            assert sorted(row for part in parts for row in part) == list(range(ROWS))
            sizes = [len(part) for part in parts]
            assert max(sizes) - min(sizes) <= 1

    def test_shards_of_any_size_are_shared_out_without_overlap_or_omission(self):
        sizes = [7, 0, 31, 1, 50, 3, 12]
        everything = [100 * shard + row for shard, size in enumerate(sizes) for row in range(size)]
        for readers in (1, 2, 3, 5, 7, 9):
            stream = make_counted_stream(sizes, [])
            parts = [get_numbers(read_shuffled_rows(stream, 2, 0, reader, readers, 8)) for reader in range(readers)]
            assert sorted(row for part in parts for row in part) == everything

    def test_only_shards_that_are_left_over_are_read_by_every_reader(self):
        read = []
        stream = make_counted_stream([10] * 13, read)
        for reader in range(6):
            list(read_shuffled_rows(stream, 0, 0, reader, 6, 8))
        assert sorted(Counter(read).values()) == [10] * 12 + [60]

    def test_a_filtered_stream_is_shared_out_too(self):
        faces = make_corpus(subject=[str(row % 3) for row in range(ROWS)]).to_iterable_dataset(5)
        kept = faces.filter(lambda subject: subject == "1", input_columns=["subject"])
        parts = [get_numbers(read_shuffled_rows(kept, 0, 0, reader, 2, 8)) for reader in range(2)]
        assert sorted(parts[0] + parts[1]) == list(range(1, ROWS, 3))


class TestOrder:
    @pytest.mark.parametrize("shards", [1, 3, 12])
    def test_the_order_is_a_function_of_seed_epoch_and_reader(self, shards):
        keys = list(product((0, 1), (0, 1), (0, 1)))
        orders = {key: read_numbers(shards, epoch=key[0], seed=key[1], reader=key[2], readers=2) for key in keys}
        for epoch, seed, reader in reversed(keys):
            assert read_numbers(shards, epoch, seed, reader, readers=2) == orders[epoch, seed, reader]
        assert len({tuple(order) for order in orders.values()}) == 8

    def test_rows_of_several_shards_come_side_by_side(self):
        shards = [row // 21 for row in read_numbers(4, buffer_size=1)]
        assert all(len(set(shards[start : start + 4])) == 4 for start in range(0, ROWS, 4))

    def test_a_buffer_larger_than_the_stream_shuffles_all_of_it(self):
        order = np.array(read_numbers(1, buffer_size=1000))
        assert sorted(order) == list(range(ROWS))
        assert abs(np.corrcoef(order, np.arange(ROWS))[0, 1]) < 0.33  # three standard deviations

    def test_a_row_has_the_same_name_in_every_pass_and_for_every_reader(self):
        stream = make_corpus().to_iterable_dataset(7)
        shares = [(epoch, reader, 3) for epoch in (0, 1) for reader in range(3)]
        shares.append((0, 0, 1))
        names = {(row.name, row.image["path"]) for share in shares for row in self.rows(stream, *share)}
        assert len(names) == ROWS
        assert ("row 2 of shard 1", "14") in names

    def rows(self, stream: IterableDataset, epoch: int, reader: int, readers: int) -> list[StreamRow]:
        return list(read_shuffled_rows(stream, epoch, 0, reader, readers, 8))

    def test_a_row_without_an_image_does_not_end_the_pass(self):
        images = [None if row == 3 else {"bytes": None, "path": str(row)} for row in range(20)]
        features = Features(image=datasets.Image(decode=False))
        stream = Dataset.from_dict({"image": images}, features=features).to_iterable_dataset(2)
        rows = self.rows(stream, 0, 0, 1)
        assert len(rows) == 20
        assert [row.name for row in rows if row.image is None] == ["row 3 of shard 0"]


@pytest.mark.parametrize("buffer_size", [1, 10, 100])
def test_no_more_rows_are_held_than_the_buffer_and_a_block_of_each_open_shard(buffer_size):
    read, most_ahead = [], 0
    stream = make_counted_stream([100] * 8, read)
    for row_count, _ in enumerate(read_shuffled_rows(stream, 0, 0, 0, 1, buffer_size)):
        most_ahead = max(most_ahead, len(read) - row_count)
    assert buffer_size <= most_ahead <= buffer_size + OPEN_SHARDS * ROWS_AT_ONCE + 1
