"""Batches of decoded images: of a table by row number, of a stream in its order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from datasets import Dataset

from ..images_pcl import BrokenImageError
from .broken_images import examples
from .images import decode_image
from .streaming import StreamRow
from .video_index import VideoIndex
from .views import VideoFrames

STAND_INS = 100  # Rows to try in place of a broken one.
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


def stack_images(images: list[torch.Tensor]) -> torch.Tensor:
    # By numpy: torch.stack wakes its threads for every image, and took a thousand times as long on busy cores.
    return torch.from_numpy(np.stack([image.numpy() for image in images]))


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
        return Batch(stack_images(images), len(rows), broken, self._frames(rows) if self.other_frames else None)

    def _frames(self, rows: list[int]) -> VideoFrames:
        """Other frames of the rows' videos; one that does not decode is left out, as it is reported as an image."""
        # Seeded by the rows: a resumed run, and one with other workers, reads the same frames.
        generator, images, image_of = np.random.default_rng(rows), [], []
        for index, row in enumerate(rows):
            for other in generator.permutation(self.videos.others(row))[: self.other_frames].tolist():
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
                    yield Batch(stack_images(images), attempted, broken, position={"epoch": epoch, "row": number})
                    images, attempted, broken, batches = [], 0, [], batches + 1
            fruitless = 0 if start or batches else fruitless + 1
            if fruitless == FRUITLESS_PASSES:
                reasons = dict(sorted(broken))
                raise ValueError(
                    f"A reader's share of the stream is smaller than one batch: the last of {FRUITLESS_PASSES} passes "
                    f"gave it {len(images)} images, `batch_size` is {self.batch_size}, and {len(reasons)} were broken. "
                    f"Lower `batch_size` or `num_workers`, or mend the corpus.{examples(reasons)}"
                )
            epoch, start = epoch + 1, 0
