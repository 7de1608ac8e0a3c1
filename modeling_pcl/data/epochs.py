"""Choose and order the rows of an epoch of a map-style corpus, and share them among processes."""

from collections.abc import Iterator

import numpy as np
from datasets import Dataset
from torch.utils.data import Sampler

from .subjects import encode_column


class EpochPlan:
    """The rows of every epoch of a map-style corpus. Its length is the number of rows in an epoch.

    Args:
        corpus: Map-style dataset; with `by_subject` it needs a column `subject`, and `video` if subjects have several.
        by_subject: Whether an epoch is one random frame of one random video of each subject, instead of every row.

    Raises:
        ValueError: If `by_subject` and there is no `subject` column, or `subject` or `video` has missing values.
    """

    def __init__(self, corpus: Dataset, by_subject: bool = False):
        self.rows, self.by_subject = len(corpus), by_subject
        if by_subject:
            self._index_videos(corpus)

    def __len__(self) -> int:
        return len(self.videos_of_subject) if self.by_subject else self.rows

    def draw_order(self, seed: int, epoch: int) -> np.ndarray:
        """Draw the row numbers of one epoch in random order. It depends only on `seed` and `epoch`, at least 0."""
        generator = np.random.default_rng([seed, epoch])
        if not self.by_subject:
            return generator.permutation(self.rows)
        videos = self.first_video + _draw_indices(generator, self.videos_of_subject)
        frames = self.first_frame[videos] + _draw_indices(generator, self.frames_of_video[videos])
        return generator.permutation(self.frames[frames])

    def _index_videos(self, corpus: Dataset):
        """Sort the rows by subject and video, and store where each video and each subject begins."""
        subjects, _ = encode_column(corpus, "subject")
        videos, names = encode_column(corpus, "video") if "video" in corpus.column_names else (0, [None])
        # A video belongs to its subject: two subjects may both have a video 0.
        keys = subjects.astype(np.int64) * len(names) + videos
        self.frames = np.argsort(keys, kind="stable")
        keys, self.first_frame, self.frames_of_video = np.unique(
            keys[self.frames], return_index=True, return_counts=True
        )
        _, self.first_video, self.videos_of_subject = np.unique(
            keys // len(names), return_index=True, return_counts=True
        )


def _draw_indices(generator: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """Draw one index in [0, count) for each count."""
    return (generator.random(len(counts)) * counts).astype(np.int64)


class EpochBatchSampler(Sampler[list[int]]):
    """Endless batches of row numbers. Every process takes another slice of the same order.

    An incomplete batch at the end of an epoch is dropped.

    Args:
        plan: Rows of every epoch.
        batch_size: Rows per batch in each process.
        seed: Seed of the order, at least 0.
        rank: Index of this process, in [0, `world_size`).
        world_size: Number of processes.
        start_batch: Number of batches to skip, counted from the first epoch. Their images are not read.

    Raises:
        ValueError: If an epoch has fewer rows than one batch of every process together.
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
            order = self.plan.draw_order(self.seed, epoch)
            for batch in range(first, self.batches_per_epoch):
                start = (batch * self.world_size + self.rank) * self.batch_size
                yield order[start : start + self.batch_size].tolist()
            epoch, first = epoch + 1, 0
