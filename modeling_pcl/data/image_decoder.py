"""Rows of a corpus to decoded images, with an account of the broken ones."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from datasets import Dataset

from ..images_pcl import BrokenImageError
from .broken_images import JUDGED_AFTER
from .images import decode_image

logger = logging.getLogger(__name__)

MAX_BROKEN_SHARE = 0.05  # More are no accident of single files: the corpus itself is at fault.


class ImageDecoder:
    """Encoded images to pixels, with an account of those that do not decode.

    Args:
        size_px: Side of the images.
        name: What to call the corpus in errors.
        count: Rows of the corpus; None if that is not known.
        max_broken_share: Share of the images that may fail to decode.
        way_out: What to do where more of them do, for the error.

    Attributes:
        broken: Reason by row.
    """

    def __init__(
        self,
        size_px: int,
        name: str,
        count: int | None,
        max_broken_share: float = MAX_BROKEN_SHARE,
        way_out: str = "mend the corpus or prepare it again with `pcl prepare`",
    ):
        self.size_px, self.name, self.count = size_px, name, count
        self.max_broken_share, self.way_out = max_broken_share, way_out
        self.broken: dict[int, str] = {}

    def decode(
        self, rows: Sequence[int], records: Sequence[dict], pool: ThreadPoolExecutor | None = None
    ) -> torch.Tensor:
        """The images of some rows, `(rows, 3, size_px, size_px)` uint8, one by one if there is no pool.

        Broken ones are black.

        Raises:
            ValueError: If too many images of the corpus do not decode.
        """
        images = torch.stack(list((pool.map if pool else map)(self._decode, rows, records)))
        count = self.count or rows[-1] + 1
        if len(self.broken) > max(1, self.max_broken_share * max(count, JUDGED_AFTER)):
            examples = "".join(f"\n  {reason}" for reason in list(self.broken.values())[:3])
            raise ValueError(
                f"{len(self.broken)} of the {count} images of `{self.name}` do not decode; {self.way_out}.{examples}"
            )
        return images

    def _decode(self, row: int, record: dict) -> torch.Tensor:
        try:
            return decode_image(record, self.size_px, name=f"row {row}")
        except BrokenImageError as error:
            if row not in self.broken:
                logger.warning("left out %s of %s", error, self.name)
            self.broken[row] = str(error)
            # Black, not left out: rows keep their numbers, and `broken` says which do not count.
            return torch.zeros(3, self.size_px, self.size_px, dtype=torch.uint8)


class CorpusImages(ImageDecoder):
    """Decoded images of a corpus.

    Those of `batches` are decoded on all cores, while an accelerator works on the last ones.

    Args:
        corpus: With an undecoded column `image`.
        size_px: Side of the images.
        name: What to call the corpus in errors.
    """

    def __init__(self, corpus: Dataset, size_px: int, name: str):
        super().__init__(size_px, name, len(corpus))
        self.rows = corpus.select_columns("image").with_format(None)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[torch.Tensor]:
        """All images from a row on, in order, `(batch, 3, size_px, size_px)` uint8; broken ones are black."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for first in range(start, len(self.rows), batch_size):
                yield self.load(range(first, min(first + batch_size, len(self.rows))), pool)

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, rows: Sequence[int], pool: ThreadPoolExecutor | None = None) -> torch.Tensor:
        """As `decode`, of rows of this corpus."""
        return self.decode(rows, self.rows[list(rows)]["image"], pool)
