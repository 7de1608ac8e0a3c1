import io
import json
import logging
import random
from itertools import islice

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from PIL import Image

from modeling_pcl.data.batches import Batch
from modeling_pcl.data.broken_images import BrokenImageCounter
from modeling_pcl.data.loading import make_loader

BROKEN = (3, 4, 11, 25)


def encode_png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), level).save(file, "PNG")
    return file.getvalue()


def make_corpus(count: int = 30, broken=(), **columns) -> Dataset:
    """Make a corpus in which image n has grey level n everywhere, and rows in `broken` are not images."""
    images = [{"bytes": b"broken" if row in broken else encode_png(row), "path": None} for row in range(count)]
    features = {"image": datasets.Image(decode=False)} | {name: Value("string") for name in columns}
    return Dataset.from_dict({"image": images, **columns}, features=Features(features))


def make_stream(*arguments, shards: int = 3, **columns) -> datasets.IterableDataset:
    return make_corpus(*arguments, **columns).to_iterable_dataset(shards)


def get_levels(batch: Batch) -> list[int]:
    return batch.images[:, 0, 0, 0].tolist()


def get_all_levels(batches: list[Batch]) -> list[int]:
    return [level for batch in batches for level in get_levels(batch)]


def are_same(first: Batch, second: Batch) -> bool:
    return torch.equal(first.images, second.images) and vars(first) | {"images": 0} == vars(second) | {"images": 0}


def take_batches(loader, count: int) -> list[Batch]:
    return list(islice(loader, count))


class TestRows:
    def test_an_epoch_shows_every_image_once(self):
        loader = make_loader(make_corpus(), 8, batch_size=10)
        assert loader.batches_per_epoch == 3
        epochs = [take_batches(loader, 3), take_batches(loader, 3)]
        for batches in epochs:
            assert all(batch.images.shape == (10, 3, 8, 8) and batch.images.dtype == torch.uint8 for batch in batches)
            assert sorted(get_all_levels(batches)) == list(range(30))
        assert get_levels(epochs[0][0]) != get_levels(epochs[1][0])

    def test_two_processes_make_the_batches_of_one_without_overlap(self):
        alone = take_batches(make_loader(make_corpus(), 8, 10), 6)
        parts = [take_batches(make_loader(make_corpus(), 8, 5, rank=rank, world_size=2), 6) for rank in range(2)]
        for all_batches, first, second in zip(alone, *parts):
            assert not set(get_levels(first)) & set(get_levels(second))
            assert torch.equal(all_batches.images, torch.cat([first.images, second.images]))

    def test_another_row_stands_in_for_a_broken_one_and_it_is_reported_once(self):
        all_batches = [get_levels(batch) for batch in take_batches(make_loader(make_corpus(), 8, 10), 3)]
        batches = take_batches(make_loader(make_corpus(broken=BROKEN), 8, 10), 3)
        for rows, batch in zip(all_batches, batches):
            assert not set(get_levels(batch)) & set(BROKEN)
            assert [level for row, level in zip(rows, get_levels(batch)) if row not in BROKEN] == [
                row for row in rows if row not in BROKEN
            ]
        assert [batch.attempted for batch in batches] == [10, 10, 10]
        assert sorted(name for batch in batches for name, _ in batch.broken) == ["row 11", "row 25", "row 3", "row 4"]

    def test_many_broken_rows_side_by_side_count_by_their_share_and_have_several_stand_ins(self):
        batches = take_batches(make_loader(make_corpus(200, broken=range(150)), 8, 50), 4)
        assert sum(len(batch.broken) for batch in batches) == 150
        assert len(set(get_all_levels(batches))) > 40

    @pytest.mark.parametrize("num_workers", [0, 1])
    def test_a_corpus_without_good_images_is_refused(self, num_workers):
        with pytest.raises(
            ValueError, match=r"row \d cannot be decoded \(no image format.*nor can any of 100 other rows"
        ):
            next(iter(make_loader(make_corpus(7, broken=range(7)), 8, 2, num_workers=num_workers)))

    @pytest.mark.parametrize(("subjects", "size"), [("auto", 6), ("on", 6), ("off", 30)])
    def test_subjects_make_the_epoch_where_they_are_known(self, subjects, size):
        faces = make_corpus(subject=[str(row // 5) for row in range(30)])
        loader = make_loader(faces, 8, 3, subjects=subjects)
        assert loader.batches_per_epoch == size // 3
        epoch = get_all_levels(take_batches(loader, size // 3))
        assert len(epoch) == size
        assert {level // 5 for level in epoch} == set(range(6))

    def test_too_few_subjects_for_a_batch_take_every_image_unless_told_otherwise(self):
        faces = make_corpus(subject=[str(row // 5) for row in range(30)])
        assert make_loader(faces, 8, 10).batches_per_epoch == 3
        with pytest.raises(ValueError, match="each of 6 subjects, is smaller than one batch"):
            make_loader(faces, 8, 10, subjects="on")

    def test_without_a_subject_column_auto_takes_every_image(self):
        assert make_loader(make_corpus(), 8, 3).batches_per_epoch == 10
        with pytest.raises(ValueError, match="needs a column `subject`"):
            make_loader(make_corpus(), 8, 3, subjects="on")


KINDS = {"rows": make_corpus, "stream": make_stream}


@pytest.mark.parametrize("kind", KINDS)
class TestBothKinds:
    @pytest.mark.parametrize("num_workers", [0, 1, 2])
    def test_a_resumed_loader_gives_exactly_the_batches_that_would_have_followed(self, kind, num_workers):
        options = {"load_size_px": 8, "batch_size": 4, "seed": 3, "num_workers": num_workers}
        all_batches = take_batches(make_loader(KINDS[kind](30, BROKEN), **options), 18)  # over two epochs
        assert sum(len(batch.broken) for batch in all_batches) > 4
        for stop in (1, 5, 7, 16):
            stopped = make_loader(KINDS[kind](30, BROKEN), **options)
            take_batches(stopped, stop)
            position = json.loads(json.dumps(stopped.position()))
            resumed = make_loader(KINDS[kind](30, BROKEN), **options, position=position)
            assert resumed.position() == position
            assert all(map(are_same, take_batches(resumed, 18 - stop), all_batches[stop:]))

    def test_position_is_that_of_the_last_batch_taken_whatever_workers_read_ahead(self, kind):
        loader = make_loader(KINDS[kind](30, BROKEN), 8, 4, num_workers=1)
        for batch in islice(loader, 3):
            assert loader.position() == batch.position
        assert are_same(next(iter(loader)), take_batches(make_loader(KINDS[kind](30, BROKEN), 8, 4), 4)[3])

    def test_a_worker_changes_nothing(self, kind):
        batches_of_process = take_batches(make_loader(KINDS[kind](30, BROKEN), 8, 4), 12)
        batches_of_worker = take_batches(make_loader(KINDS[kind](30, BROKEN), 8, 4, num_workers=1), 12)
        assert all(map(are_same, batches_of_process, batches_of_worker))

    def test_the_seed_decides_the_order_and_global_random_states_are_left_alone(self, kind):
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        first, second = (take_batches(make_loader(KINDS[kind](), 8, 6, seed=seed), 5) for seed in (0, 1))
        assert [get_levels(batch) for batch in first] != [get_levels(batch) for batch in second]
        assert torch.equal(states[0], torch.get_rng_state())
        assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())

    def test_options_out_of_range_are_refused(self, kind):
        good = {"load_size_px": 8, "batch_size": 4}
        bad = {"load_size_px": 0, "batch_size": 0, "seed": -1, "num_workers": -1}
        for name, value in bad.items():
            with pytest.raises(ValueError, match=f"`{name}` must be"):
                make_loader(KINDS[kind](), **good | {name: value})


class TestOtherFrames:
    """Rows 0 to 4 are one video, 5 and 6 another, 7 to 9 none; 10 is the only frame of its video."""

    VIDEOS = ["a"] * 5 + ["b"] * 2 + [None] * 3 + ["c"]

    def make(self, other_frames: int, broken=(), **options):
        frames = make_corpus(11, broken, video=self.VIDEOS)
        return make_loader(frames, 8, 11, subjects="off", other_frames=other_frames, **options)

    def of_levels(self, batch: Batch) -> dict[int, list[int]]:
        """Return the grey levels of the other frames by the grey level of the image."""
        frames, images = {}, get_levels(batch)
        for index, level in zip(batch.frames.image_of.tolist(), batch.frames.images[:, 0, 0, 0].tolist()):
            frames.setdefault(images[index], []).append(level)
        return frames

    def test_they_are_of_the_same_video_and_never_the_image_itself(self):
        for batch in take_batches(self.make(3), 4):
            frames = self.of_levels(batch)
            assert set(frames) == {0, 1, 2, 3, 4, 5, 6}
            for level, others in frames.items():
                video = range(5) if level < 5 else range(5, 7)
                assert set(others) < set(video) - {level} or set(others) == set(video) - {level}
                assert len(others) == len(set(others)) == min(3, len(video) - 1)

    def test_other_epochs_show_other_frames(self):
        shown = [self.of_levels(batch)[0] for batch in take_batches(self.make(1), 12)]
        assert len({tuple(levels) for levels in shown}) > 1

    def test_they_do_not_depend_on_workers_or_on_where_the_loader_began(self):
        all_batches = take_batches(self.make(2), 4)
        for loader, expected in (
            (self.make(2, num_workers=1), all_batches),
            (self.make(2, position={"batch": 2}), all_batches[2:]),
        ):
            for ours, theirs in zip(loader, expected):
                assert torch.equal(ours.frames.images, theirs.frames.images)
                assert ours.frames.image_of.tolist() == theirs.frames.image_of.tolist()

    def test_broken_frames_are_left_out(self):
        (batch,) = take_batches(self.make(4, broken=(1, 5)), 1)
        shown = {level for others in self.of_levels(batch).values() for level in others}
        assert not shown & {1, 5}

    def test_a_batch_without_videos_has_no_frames_and_keeps_the_shape(self):
        loader = make_loader(make_corpus(11, video=self.VIDEOS), 8, 1, subjects="off", other_frames=2)
        sizes = {get_levels(batch)[0]: batch.frames.images.shape for batch in take_batches(loader, 11)}
        assert sizes[7] == (0, 3, 8, 8)
        assert sizes[5] == (1, 3, 8, 8)

    @pytest.mark.parametrize(
        ("columns", "message"),
        [({}, "need a column `video`"), ({"video": ["a", "b", None, None]}, "No video of the corpus has two frames")],
    )
    def test_a_corpus_without_videos_is_refused(self, columns, message):
        with pytest.raises(ValueError, match=message):
            make_loader(make_corpus(4, **columns), 8, 2, other_frames=1)

    def test_a_stream_is_refused(self):
        with pytest.raises(ValueError, match="without streaming"):
            make_loader(make_stream(), 8, 2, other_frames=1)


class TestStream:
    @pytest.mark.parametrize("shards", [1, 3, 4, 6])
    @pytest.mark.parametrize(("num_workers", "world_size"), [(0, 2), (2, 1), (3, 1), (1, 2), (2, 2)])
    def test_all_workers_of_all_processes_share_a_pass_without_overlap(self, shards, num_workers, world_size):
        options = {"num_workers": num_workers, "world_size": world_size}
        batches_of_a_worker = 12 // (max(1, num_workers) * world_size)
        parts = [
            take_batches(make_loader(make_stream(24, shards=shards), 8, 2, rank=rank, **options), 12 // world_size)
            for rank in range(world_size)
        ]
        last = [reader for part in parts for reader in part[-1].position["readers"]]
        assert last == [{"epoch": 0, "row": 2 * batches_of_a_worker}] * len(last)
        assert sorted(level for part in parts for level in get_all_levels(part)) == list(range(24))

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_a_pass_shows_every_image_once_and_leaves_an_incomplete_batch_out(self, num_workers):
        readers = max(1, num_workers)
        loader = make_loader(make_stream(), 8, 7, num_workers=num_workers)
        assert loader.batches_per_epoch is None
        batches = take_batches(loader, 8)
        # 30 rows are 4 batches and 2 rows over, or twice 15: 2 batches and 1 row over.
        epochs = [batch.position["readers"][number % readers]["epoch"] for number, batch in enumerate(batches)]
        assert epochs == [0] * 4 + [1] * 4
        for half in (batches[:4], batches[4:]):
            assert len(set(get_all_levels(half))) == 28

    @pytest.mark.parametrize(("num_workers", "world_size"), [(0, 1), (1, 1), (2, 1), (3, 1), (0, 2), (2, 2)])
    def test_a_loader_resumes_behind_every_batch_of_two_passes(self, num_workers, world_size):
        options = {"load_size_px": 8, "batch_size": 4, "num_workers": num_workers, "world_size": world_size}
        batches = 16 // world_size
        for rank in range(world_size):
            all_batches = take_batches(make_loader(make_stream(30, BROKEN), rank=rank, **options), batches + 4)
            assert max(reader["epoch"] for reader in all_batches[-1].position["readers"]) >= 2
            # Every fifth batch with workers, which take long to start: any worker may have had the last turn.
            for stop in range(1, batches + 1, 5 if num_workers else 1):
                position = json.loads(json.dumps(all_batches[stop - 1].position))
                resumed = make_loader(make_stream(30, BROKEN), rank=rank, **options, position=position)
                assert all(map(are_same, take_batches(resumed, 4), all_batches[stop : stop + 4]))

    def test_no_worker_and_one_go_on_from_each_others_positions(self):
        all_batches = take_batches(make_loader(make_stream(), 8, 4), 9)
        for first, second in ((0, 1), (1, 0)):
            begun = make_loader(make_stream(), 8, 4, num_workers=first)
            take_batches(begun, 5)
            resumed = make_loader(make_stream(), 8, 4, num_workers=second, position=begun.position())
            assert all(map(are_same, take_batches(resumed, 4), all_batches[5:]))

    @pytest.mark.parametrize(("then", "now"), [(2, 0), (2, 3), (0, 2)])
    def test_another_number_of_workers_cannot_resume_a_stream_but_rows(self, then, now):
        position = make_loader(make_stream(), 8, 4, num_workers=then).position()
        message = f"`num_workers` was {max(1, then)} for the loader of `position`, but is {max(1, now)}"
        with pytest.raises(ValueError, match=message):
            make_loader(make_stream(), 8, 4, num_workers=now, position=position)
        begun = make_loader(make_corpus(), 8, 4, num_workers=then)
        take_batches(begun, 2)
        resumed = make_loader(make_corpus(), 8, 4, num_workers=now, position=begun.position())
        assert are_same(next(iter(resumed)), take_batches(make_loader(make_corpus(), 8, 4), 3)[2])

    def test_another_number_of_processes_cannot_resume_a_stream(self):
        position = make_loader(make_stream(), 8, 4, world_size=2).position()
        with pytest.raises(ValueError, match="`world_size` was 2 for the loader of `position`, but is 1"):
            make_loader(make_stream(), 8, 4, position=position)

    def test_the_workers_of_a_process_divide_its_shuffle_buffer(self):
        # A buffer of one row gives the rows in the order of the shard.
        loader = make_loader(make_stream(shards=1), 8, 5, num_workers=2, shuffle_buffer=3)
        assert [get_levels(batch) for batch in take_batches(loader, 2)] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
        wider = take_batches(make_loader(make_stream(shards=1), 8, 5, num_workers=2, shuffle_buffer=30), 2)
        assert [sorted(get_levels(batch)) == get_levels(batch) for batch in wider] == [False, False]

    def test_broken_images_are_skipped_and_each_attempt_is_counted_once(self):
        batches = take_batches(make_loader(make_stream(30, BROKEN), 8, 6), 12)
        assert not any(set(get_levels(batch)) & set(BROKEN) for batch in batches)
        assert all(len(batch.images) == 6 for batch in batches)
        (reader,) = batches[-1].position["readers"]
        assert sum(batch.attempted for batch in batches) == 30 * reader["epoch"] + reader["row"]

    def test_a_broken_image_has_one_name_in_all_passes_and_workers(self):
        files = BrokenImageCounter(max_broken_share=1)
        for num_workers in (0, 2):
            for batch in take_batches(make_loader(make_stream(30, BROKEN), 8, 6, num_workers=num_workers), 12):
                files.add(batch.attempted, batch.broken)
        assert files.count > 8
        assert sorted(files.reasons) == ["row 1 of shard 1", "row 3 of shard 0", "row 4 of shard 0", "row 5 of shard 2"]

    def test_a_stream_without_a_good_image_is_refused(self):
        message = r"(?s)it got 0 images, `batch_size` is 2, and 5 images were broken.*\n  row 0 of shard 0: no image"
        with pytest.raises(ValueError, match=message):
            next(iter(make_loader(make_stream(5, range(5), shards=1), 8, 2)))

    @pytest.mark.parametrize(("world_size", "batch_size", "images"), [(1, 6, 5), (2, 3, 2)])
    def test_a_share_smaller_than_a_batch_is_refused(self, world_size, batch_size, images):
        message = f"it got {images} images, `batch_size` is {batch_size}.*Lower `batch_size` or `num_workers`"
        with pytest.raises(ValueError, match=message):
            next(iter(make_loader(make_stream(5, shards=1), 8, batch_size, rank=world_size - 1, world_size=world_size)))

    def test_a_small_shard_is_passed_over_by_the_reader_that_a_pass_gives_it_to(self):
        faces = datasets.concatenate_datasets(
            [make_stream(20, shards=2), make_stream(2, shards=1), make_stream(10, shards=1)]
        )
        loaders = [make_loader(faces, 8, 5, rank=rank, world_size=4) for rank in range(4)]
        assert [len(take_batches(loader, 20)) for loader in loaders] == [20] * 4

    def test_parquet_is_streamed_from_disk(self, tmp_path):
        for part in range(2):
            make_corpus().select(range(15 * part, 15 * part + 15)).to_parquet(tmp_path / f"{part}.parquet")
        files = str(tmp_path / "*.parquet")
        faces = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
        faces = faces.cast_column("image", datasets.Image(decode=False))
        for num_workers in (1, 2, 3):
            batches = take_batches(make_loader(faces, 8, 5, num_workers=num_workers), 6)
            assert sorted(get_all_levels(batches)) == list(range(30))

    def test_subjects_are_refused(self):
        faces = make_stream(subject=[str(row // 5) for row in range(30)])
        with pytest.raises(ValueError, match=r'`subjects="on"` needs an index'):
            make_loader(faces, 8, 3, subjects="on")
        assert make_loader(faces, 8, 3, subjects="auto").batches_per_epoch is None


class TestBrokenImageCounter:
    def add(self, files: BrokenImageCounter, attempted: int, *broken: str):
        files.add(attempted, [(name, "the file is empty") for name in broken])

    def test_each_file_is_logged_once_and_counted_every_time(self, caplog):
        files = BrokenImageCounter()
        with caplog.at_level(logging.WARNING):
            self.add(files, 50, "a.jpg", "b.jpg")
            self.add(files, 50, "a.jpg")
        assert [record.getMessage() for record in caplog.records] == [
            "skipped a.jpg: the file is empty",
            "skipped b.jpg: the file is empty",
        ]
        assert (files.attempted, files.count, list(files.reasons)) == (100, 3, ["a.jpg", "b.jpg"])

    def test_too_large_a_share_stops_the_run_and_names_files(self):
        files = BrokenImageCounter(max_broken_share=0.1)
        self.add(files, 199, *(f"{n}.jpg" for n in range(50)))  # Too few images to check the share.
        with pytest.raises(
            ValueError, match=r"(?s)50 of 200.*0\.250.*`max_broken_share` allows 0\.1.*0\.jpg: the file"
        ):
            self.add(files, 1)

    def test_an_epoch_is_enough_to_judge(self):
        with pytest.raises(ValueError, match="2 of 20"):
            self.add(BrokenImageCounter(images_per_epoch=20), 20, "a.jpg", "b.jpg")

    def test_the_share_itself_is_allowed(self):
        few, all_of_them = BrokenImageCounter(max_broken_share=0.01), BrokenImageCounter(max_broken_share=1)
        self.add(few, 200, "a.jpg", "b.jpg")
        self.add(all_of_them, 200, *map(str, range(200)))
        assert (few.count, all_of_them.count) == (2, 200)

    @pytest.mark.parametrize("share", [-0.1, 1.1])
    def test_a_share_outside_0_to_1_is_refused(self, share):
        with pytest.raises(ValueError, match=r"`max_broken_share` must be in \[0, 1\]"):
            BrokenImageCounter(share)
