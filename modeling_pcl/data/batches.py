"""Batches of decoded images, read from a map-style corpus by row number or from a stream in its order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from datasets import Dataset

from ..images_pcl import BrokenImageError
from .broken_images import format_examples
from .images import decode_image
from .streaming import StreamRow
from .video_index import VideoIndex
from .views import VideoFrames

MAX_SUBSTITUTES = 100  # Rows that are tried in place of a broken one.
MAX_EMPTY_PASSES = 10  # Shards differ in size: in one pass a reader may get small shards only.


@dataclass
class Batch:
    """A batch of decoded images, with a report of the images that could not be decoded.

    Args:
        images: `(batch, 3, load_size_px, load_size_px)`, uint8.
        attempted: Number of rows that were read for this batch, broken ones included.
        broken: Name of each broken image and the reason why it cannot be decoded.
        frames: Other frames of the images' videos; None if none were requested.
        position: Position from which a loader continues with the next batch; JSON-serialisable.
    """

    images: torch.Tensor
    attempted: int
    broken: list[tuple[str, str]] = field(default_factory=list)
    frames: VideoFrames | None = None
    position: dict = field(default_factory=dict)

    def pin_memory(self) -> "Batch":
        """Copy the images to pinned memory. torch's `DataLoader` calls this method."""
        self.images = self.images.pin_memory()
        if self.frames is not None:
            self.frames = replace(self.frames, images=self.frames.images.pin_memory())
        return self


def stack_images(images: list[torch.Tensor]) -> torch.Tensor:
    """Stack images of one shape, `(batch, *shape)`."""
    # By numpy: torch.stack wakes its threads for every image, and took a thousand times as long on busy cores.
    return torch.from_numpy(np.stack([image.numpy() for image in images]))


class RowImages(torch.utils.data.Dataset):
    """Images of a map-style corpus, decoded one batch at a time.

    Args:
        corpus: Dataset with an undecoded column `image`.
        load_size_px: Side of the decoded images.
        other_frames: Maximum number of other frames of the same video to decode for each image.
    """

    def __init__(self, corpus: Dataset, load_size_px: int, other_frames: int = 0):
        self.rows, self.load_size_px = corpus.select_columns("image").with_format(None), load_size_px
        self.other_frames, self.videos = other_frames, VideoIndex(corpus) if other_frames else None

    def __getitems__(self, rows: list[int]) -> Batch:
        """Decode the rows of one batch. torch's `DataLoader` calls this method."""
        images, broken = [], []
        for row, record in zip(rows, self.rows[rows]["image"]):
            try:
                images.append(self._decode(row, record))
            except BrokenImageError as error:
                broken.append((error.name, error.reason))
                images.append(self._decode_substitute(row, error))
        return Batch(
            stack_images(images), len(rows), broken, self._decode_other_frames(rows) if self.other_frames else None
        )

    def _decode_other_frames(self, rows: list[int]) -> VideoFrames:
        """Decode other frames of the rows' videos.

        Broken frames are skipped without a report: each of them is reported when its own row is drawn.
        """
        # Seeded with the rows, so that resumed runs and runs with another number of workers read the same frames.
        generator, images, image_of = np.random.default_rng(rows), [], []
        for index, row in enumerate(rows):
            for other in generator.permutation(self.videos.find_other_frames(row))[: self.other_frames].tolist():
                try:
                    images.append(self._decode(other, self.rows[other]["image"]))
                    image_of.append(index)
                except BrokenImageError:
                    continue
        side = self.load_size_px
        stacked = stack_images(images) if images else torch.empty(0, 3, side, side, dtype=torch.uint8)
        return VideoFrames(stacked, np.array(image_of, dtype=np.int64))

    def _decode(self, row: int, record: dict) -> torch.Tensor:
        return decode_image(record, self.load_size_px, name=f"row {row}")

    def _decode_substitute(self, row: int, error: BrokenImageError) -> torch.Tensor:
        """Decode the image of another row instead of a broken one; the same row in every run."""
        # Broken rows are often neighbours, so the substitute is drawn at random and is not the next row.
        for other in np.random.default_rng(row).integers(len(self.rows), size=MAX_SUBSTITUTES).tolist():
            try:
                return self._decode(other, self.rows[other]["image"])
            except BrokenImageError:
                continue  # This row is reported when it is drawn itself.
        raise ValueError(
            f"{error.name} cannot be decoded ({error.reason}), nor can any of {MAX_SUBSTITUTES} other rows. Repair the "
            "corpus."
        )


class StreamBatches(torch.utils.data.IterableDataset):
    """Endless batches of one reader of a stream. A reader is this process, or one of its workers.

    torch takes one batch of each worker in turn. The first worker continues the reader whose turn it is, so that a
    resumed run has its batches in the same order.

    Args:
        rows: Function that returns the rows of a pass, given the number of the pass and the index `reader`; it must
            return the same rows every time.
        load_size_px: Side of the decoded images.
        batch_size: Images per batch; an incomplete batch at the end of a pass is dropped.
        rank: Index of this process.
        position: `readers`, with the number of the pass (`epoch`) and of the rows to skip without decoding them (`row`)
            for each reader of this process; and `turn`, the index of the reader that comes next.
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
        attempted, broken, empty_passes = 0, [], 0
        while True:
            images, batches = [], 0
            for number, row in enumerate(islice(rows(epoch), start, None), start + 1):
                attempted += 1
                try:
                    images.append(decode_image(row.image, self.load_size_px, name=row.name))
                except BrokenImageError as error:
                    broken.append((error.name, error.reason))
                if len(images) == self.batch_size:
                    yield Batch(stack_images(images), attempted, broken, position={"epoch": epoch, "row": number})
                    images, attempted, broken, batches = [], 0, [], batches + 1
            empty_passes = 0 if start or batches else empty_passes + 1
            if empty_passes == MAX_EMPTY_PASSES:
                reasons = dict(sorted(broken))
                raise ValueError(
                    f"A reader's share of the stream is smaller than one batch: in the last of {MAX_EMPTY_PASSES} "
                    f"passes it got {len(images)} images, `batch_size` is {self.batch_size}, and {len(reasons)} images "
                    f"were broken. Lower `batch_size` or `num_workers`, or repair the corpus.{format_examples(reasons)}"
                )
            epoch, start = epoch + 1, 0
