"""Rows of a corpus to decoded images, with an account of the broken ones."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from datasets import Dataset

from modeling_pcl.data.images import BrokenImageError, decode_image

logger = logging.getLogger(__name__)

MAX_BROKEN_SHARE, JUDGED_AFTER = 0.05, 200


class CorpusImages:
    """Decoded images of a corpus.

    Those of `batches` are decoded on all cores, while an accelerator works on the last ones.

    Args:
        corpus: With an undecoded column `image`.
        size_px: Side of the images.
        name: What to call the corpus in errors.
    """

    def __init__(self, corpus: Dataset, size_px: int, name: str):
        self.rows = corpus.select_columns("image").with_format(None)
        self.size_px, self.name = size_px, name
        self.broken: dict[int, str] = {}

    def batches(self, batch_size: int, start: int = 0) -> Iterator[torch.Tensor]:
        """All images from a row on, in order, `(batch, 3, size_px, size_px)` uint8; broken ones are black."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for first in range(start, len(self.rows), batch_size):
                yield self.load(range(first, min(first + batch_size, len(self.rows))), pool)

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, rows: Sequence[int], pool: ThreadPoolExecutor | None = None) -> torch.Tensor:
        """Some images, `(rows, 3, size_px, size_px)` uint8, decoded one by one if there is no pool.

        Raises:
            ValueError: If too many images of the corpus do not decode.
        """
        records = self.rows[list(rows)]["image"]
        images = torch.stack(list((pool.map if pool else map)(self._decode, rows, records)))
        if len(self.broken) > max(1, MAX_BROKEN_SHARE * max(len(self.rows), JUDGED_AFTER)):
            examples = "".join(f"\n  {reason}" for reason in list(self.broken.values())[:3])
            raise ValueError(
                f"{len(self.broken)} of the {len(self.rows)} images of `{self.name}` do not decode; mend the corpus or "
                f"prepare it again with scripts/prepare_corpus.py.{examples}"
            )
        return images

    def _decode(self, row: int, record: dict) -> torch.Tensor:
        try:
            return decode_image(record, self.size_px, name=f"row {row}")
        except BrokenImageError as error:
            if row not in self.broken:
                logger.warning("left out %s of %s", error, self.name)
            self.broken[row] = str(error)
            return torch.zeros(3, self.size_px, self.size_px, dtype=torch.uint8)
