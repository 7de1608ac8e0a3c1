from collections import Counter
from itertools import islice

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value

from modeling_pcl.data.epochs import EpochBatchSampler, EpochPlan


def make_rows(count: int, **columns) -> Dataset:
    return Dataset.from_dict({"image": [str(row) for row in range(count)], **columns})


def make_videos() -> Dataset:
    """Three subjects, shuffled: a has video 0 (one frame) and 1 (five), b has video 0 (three), c has video 7 (two)."""
    subjects = list("aaaaaabbbcc")
    numbers = [0, 1, 1, 1, 1, 1, 0, 0, 0, 7, 7]
    order = np.random.default_rng(0).permutation(len(subjects))
    return make_rows(len(subjects), subject=[subjects[i] for i in order], video=[numbers[i] for i in order])


class TestEpochPlan:
    def test_without_subjects_an_epoch_is_every_row_once(self):
        plan = EpochPlan(make_rows(50))
        assert len(plan) == 50
        assert sorted(plan.draw_order(0, 0)) == list(range(50))

    @pytest.mark.parametrize("by_subject", [False, True])
    def test_order_is_a_function_of_seed_and_epoch(self, by_subject):
        corpus = make_rows(300, subject=[str(row // 6) for row in range(300)])
        orders = {
            (seed, epoch): EpochPlan(corpus, by_subject).draw_order(seed, epoch).tolist()
            for seed in (0, 1)
            for epoch in (0, 1, 2)
        }
        plan = EpochPlan(corpus, by_subject)
        assert all(plan.draw_order(*key).tolist() == order for key, order in reversed(orders.items()))
        assert len({tuple(order) for order in orders.values()}) == 6

    def test_an_epoch_by_subject_has_each_subject_once(self):
        corpus = make_videos()
        plan = EpochPlan(corpus, by_subject=True)
        assert len(plan) == 3
        for epoch in range(20):
            assert sorted(corpus["subject"][row] for row in plan.draw_order(0, epoch)) == ["a", "b", "c"]

    def test_a_video_is_drawn_evenly_then_a_frame_of_it_evenly(self):
        corpus = make_videos()
        plan = EpochPlan(corpus, by_subject=True)
        drawn = Counter(row for epoch in range(3000) for row in plan.draw_order(0, epoch).tolist())
        columns = list(zip(corpus["subject"], corpus["video"]))
        shares = {("a", 0): 1 / 2, ("a", 1): 1 / 10, ("b", 0): 1 / 3, ("c", 7): 1 / 2}
        for row, video in enumerate(columns):
            # Five standard deviations of a share over 3000 draws are at most 0.046.
            assert drawn[row] / 3000 == pytest.approx(shares[video], abs=0.05)

    def test_without_a_video_column_a_subject_is_one_video(self):
        plan = EpochPlan(make_rows(6, subject=[1, 2, 1, 2, 1, 2]), by_subject=True)
        assert {row for epoch in range(50) for row in plan.draw_order(0, epoch)} == set(range(6))

    @pytest.mark.parametrize("selected", [False, True])
    def test_a_large_corpus_is_planned_by_its_labels_without_a_look_at_its_images(self, selected):
        people, frames = 20_000, 15
        subjects = np.repeat(np.arange(people), frames)
        columns = {"image": [f"/nowhere/{row}.jpg" for row in range(people * frames)], "subject": subjects.astype(str)}
        # These files do not exist, so decoding them on access would fail.
        corpus = Dataset.from_dict(columns, Features(image=Image(), subject=Value("string")))
        with pytest.raises(FileNotFoundError):
            corpus[0]
        if selected:  # With an index of rows, as `select_subjects` returns it.
            subjects = subjects[::-1]
            corpus = corpus.select(range(people * frames - 1, -1, -1))
        plan = EpochPlan(corpus, by_subject=True)
        assert sorted(subjects[plan.draw_order(0, 0)]) == list(range(people))
        assert sorted(EpochPlan(corpus).draw_order(0, 0)) == list(range(people * frames))

    def test_missing_columns_and_gaps_are_refused(self):
        with pytest.raises(ValueError, match=r"needs a column `subject`; its columns are \['image'\]"):
            EpochPlan(make_rows(3), by_subject=True)
        with pytest.raises(ValueError, match="`video` is empty in 1 of 3 rows"):
            EpochPlan(make_rows(3, subject=list("aab"), video=[0, None, 1]), by_subject=True)


class TestEpochBatchSampler:
    def batches(self, count: int, corpus: Dataset | None = None, **options) -> list[list[int]]:
        return list(islice(EpochBatchSampler(EpochPlan(corpus or make_rows(23)), seed=0, **options), count))

    def test_batches_are_stretches_of_the_epoch_and_the_rest_is_left_out(self):
        plan = EpochPlan(make_rows(23))
        expected = [
            plan.draw_order(0, epoch)[start : start + 5].tolist() for epoch in (0, 1) for start in (0, 5, 10, 15)
        ]
        assert self.batches(8, batch_size=5) == expected
        assert EpochBatchSampler(plan, 5, 0).batches_per_epoch == 4

    def test_the_processes_parts_make_the_batch_of_one_process(self):
        alone = self.batches(12, batch_size=6)
        parts = [self.batches(12, batch_size=2, rank=rank, world_size=3) for rank in range(3)]
        assert [[*first, *second, *third] for first, second, third in zip(*parts)] == alone

    @pytest.mark.parametrize("start", [0, 1, 4, 11, 400_000])
    def test_a_later_start_passes_over_batches(self, start):
        if start < 12:
            assert self.batches(5, batch_size=5, start_batch=start) == self.batches(start + 5, batch_size=5)[start:]
        else:  # This must be fast, without iterating over earlier epochs.
            plan = EpochPlan(make_rows(23))
            assert self.batches(1, batch_size=5, start_batch=start)[0] == plan.draw_order(0, start // 4)[:5].tolist()

    def test_an_epoch_smaller_than_a_batch_is_refused_with_the_way_out(self):
        with pytest.raises(ValueError, match=r"23 images, is smaller than one batch.*12 in each of 2.*at most 11"):
            EpochBatchSampler(EpochPlan(make_rows(23)), 12, 0, world_size=2)
        plan = EpochPlan(make_videos(), by_subject=True)
        with pytest.raises(ValueError, match=r"each of 3 subjects.*at most 3, or switch subject sampling off.*all 11"):
            EpochBatchSampler(plan, 4, 0)
