"""Decode the images of a corpus, and record which of them are broken."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from datasets import Dataset

from ..images_pcl import BrokenImageError
from .broken_images import MIN_ATTEMPTS
from .images import decode_image

logger = logging.getLogger(__name__)

MAX_BROKEN_SHARE = 0.05  # A larger share means that the corpus itself is faulty, not single files.


class ImageDecoder:
    """Decode encoded images to pixels, and record those that cannot be decoded.

    Args:
        size_px: Side of the decoded images.
        name: Name of the corpus for messages.
        count: Number of rows in the corpus; None if it is not known.
        max_broken_share: Largest share of the images that may be broken.
        way_out: Advice for the user in the error for too many broken images.

    Attributes:
        broken: Reason why an image cannot be decoded, by row number.
    """

    def __init__(
        self,
        size_px: int,
        name: str,
        count: int | None,
        max_broken_share: float = MAX_BROKEN_SHARE,
        way_out: str = "repair the corpus or prepare it again with `pcl prepare`",
    ):
        self.size_px, self.name, self.count = size_px, name, count
        self.max_broken_share, self.way_out = max_broken_share, way_out
        self.broken: dict[int, str] = {}

    def decode(
        self, rows: Sequence[int], records: Sequence[dict], pool: ThreadPoolExecutor | None = None
    ) -> torch.Tensor:
        """Decode the images of some rows.

        Args:
            rows: Row numbers.
            records: Encoded images of these rows.
            pool: Threads that decode; None decodes one image after the other.

        Returns:
            `(rows, 3, size_px, size_px)`, uint8. Broken images are black.

        Raises:
            ValueError: If too many images of the corpus are broken.
        """
        images = torch.stack(list((pool.map if pool else map)(self._decode, rows, records)))
        count = self.count or rows[-1] + 1
        if len(self.broken) > max(1, self.max_broken_share * max(count, MIN_ATTEMPTS)):
            examples = "".join(f"\n  {reason}" for reason in list(self.broken.values())[:3])
            raise ValueError(
                f"{len(self.broken)} of the {count} images of `{self.name}` cannot be decoded; {self.way_out}."
                f"{examples}"
            )
        return images

    def _decode(self, row: int, record: dict) -> torch.Tensor:
        try:
            return decode_image(record, self.size_px, name=f"row {row}")
        except BrokenImageError as error:
            if row not in self.broken:
                logger.warning("left out %s of %s", error, self.name)
            self.broken[row] = str(error)
            # A black image keeps the row numbers intact; `broken` tells which rows to ignore.
            return torch.zeros(3, self.size_px, self.size_px, dtype=torch.uint8)


class CorpusImages(ImageDecoder):
    """The images of a map-style corpus, decoded on demand.

    Args:
        corpus: Dataset with an undecoded column `image`.
        size_px: Side of the decoded images.
        name: Name of the corpus for messages.
    """

    def __init__(self, corpus: Dataset, size_px: int, name: str):
        super().__init__(size_px, name, len(corpus))
        self.rows = corpus.select_columns("image").with_format(None)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[torch.Tensor]:
        """Iterate over all images from row `start` on, decoded on all cores while the caller works on the last batch.

        Yields:
            `(batch, 3, size_px, size_px)`, uint8, in the order of the rows. Broken images are black.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for first in range(start, len(self.rows), batch_size):
                yield self.load(range(first, min(first + batch_size, len(self.rows))), pool)

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, rows: Sequence[int], pool: ThreadPoolExecutor | None = None) -> torch.Tensor:
        """Decode the images of some rows of this corpus, as `decode` does."""
        return self.decode(rows, self.rows[list(rows)]["image"], pool)
