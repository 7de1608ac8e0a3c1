"""Which rows of a map-style corpus make an epoch, in which order, and which of them each process takes."""

from collections.abc import Iterator

import numpy as np
from datasets import Dataset
from torch.utils.data import Sampler

from .subjects import column_codes


class EpochPlan:
    """The rows of every epoch of a map-style corpus; its length is their number.

    Args:
        corpus: With a column `subject`, and `video` where subjects have several, if `by_subject`.
        by_subject: An epoch is one random frame of one random video of each subject, instead of every row.

    Raises:
        ValueError: If `by_subject` and there is no `subject` column, or `subject` or `video` has gaps.
    """

    def __init__(self, corpus: Dataset, by_subject: bool = False):
        self.rows, self.by_subject = len(corpus), by_subject
        if by_subject:
            self._index_videos(corpus)

    def __len__(self) -> int:
        return len(self.videos_of_subject) if self.by_subject else self.rows

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The rows of one epoch, shuffled: a function of `seed` and `epoch` alone, both at least 0."""
        generator = np.random.default_rng([seed, epoch])
        if not self.by_subject:
            return generator.permutation(self.rows)
        videos = self.first_video + _choose(generator, self.videos_of_subject)
        frames = self.first_frame[videos] + _choose(generator, self.frames_of_video[videos])
        return generator.permutation(self.frames[frames])

    def _index_videos(self, corpus: Dataset):
        """Sort the rows by subject and video, and note where each video's frames and each subject's videos begin."""
        subjects, _ = column_codes(corpus, "subject")
        videos, names = column_codes(corpus, "video") if "video" in corpus.column_names else (0, [None])
        # A video belongs to its subject: two subjects may both have a video 0.
        keys = subjects.astype(np.int64) * len(names) + videos
        self.frames = np.argsort(keys, kind="stable")
        keys, self.first_frame, self.frames_of_video = np.unique(
            keys[self.frames], return_index=True, return_counts=True
        )
        _, self.first_video, self.videos_of_subject = np.unique(
            keys // len(names), return_index=True, return_counts=True
        )


def _choose(generator: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """One index in [0, count) for each count."""
    return (generator.random(len(counts)) * counts).astype(np.int64)


class EpochBatchSampler(Sampler[list[int]]):
    """Endless batches of row numbers. Batch b of an epoch is the b-th stretch of its order, cut evenly over processes.

    What remains of an epoch after the last whole batch is left out.

    Args:
        plan: Gives every epoch's rows.
        batch_size: Rows a batch has in each process.
        seed: Of the order, at least 0.
        rank: Index of this process, in [0, `world_size`).
        world_size: Number of processes.
        start_batch: Batches to pass over, counted from the first epoch; nothing of them is read.

    Raises:
        ValueError: If an epoch is smaller than one batch in every process.
    """

    def __init__(
        self, plan: EpochPlan, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, start_batch: int = 0
    ):
        self.plan, self.batch_size, self.seed = plan, batch_size, seed
        self.rank, self.world_size, self.start_batch = rank, world_size, start_batch
        self.batches_per_epoch = len(plan) // (batch_size * world_size)
        if self.batches_per_epoch == 0:
            images = f"one image of each of {len(plan)} subjects" if plan.by_subject else f"{len(plan)} images"
            way_out = f", or switch subject sampling off to use all {plan.rows} images" if plan.by_subject else ""
            raise ValueError(
                f"An epoch, {images}, is smaller than one batch: `batch_size` {batch_size} in each of {world_size} "
                f"processes. Lower `batch_size` to at most {len(plan) // world_size}{way_out}."
            )

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first = divmod(self.start_batch, self.batches_per_epoch)
        while True:
            order = self.plan.order(self.seed, epoch)
            for batch in range(first, self.batches_per_epoch):
                start = (batch * self.world_size + self.rank) * self.batch_size
                yield order[start : start + self.batch_size].tolist()
            epoch, first = epoch + 1, 0
