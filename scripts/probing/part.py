"""Some rows of a corpus with their labels."""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from modeling_pcl.data.images import image_bytes

from .labels import Labels

ROW = "row in its split"  # A column of what is opened, so that predictions can name their image.
NO_LABELS = Labels(torch.empty(0), np.empty(0), (), [])


@lru_cache(maxsize=4)  # Training and test set are compared more than once, in each fold anew.
def image_digests(corpus: Dataset) -> list[bytes | None]:
    """A SHA-256 of every image's bytes; None where they cannot be read, so that it is left out with the features."""
    rows = corpus.select_columns("image").with_format(None)
    return [_digest(row["image"]) for row in tqdm(rows, desc="comparing images", unit="image", leave=False)]


def _digest(record: dict) -> bytes | None:
    try:
        return hashlib.sha256(image_bytes(record)).digest()
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Part:
    """Some rows of a corpus with their labels.

    Args:
        corpus: All rows of which features are extracted together.
        rows: Those of the part, `(rows,)` int64.
        labels: Of the whole corpus.
        source: Where it is from, in words.
        revision: Of the split that was opened.
    """

    corpus: Dataset
    rows: np.ndarray
    labels: Labels
    source: str
    revision: str | None = None

    def keeping(self, rows: np.ndarray, source: str | None = None) -> "Part":
        return replace(self, rows=rows, source=source or self.source)

    def without(self, broken) -> "Part":
        return self.keeping(self.rows[~np.isin(self.rows, list(broken))])

    def without_images_of(self, other: "Part") -> "Part":
        """Without the images that are, byte for byte, in the other part.

        Raises:
            ValueError: If no image is left.
        """
        rows = self.rows_in(other)
        if len(rows) and len(rows) == len(self.rows):
            raise ValueError(
                f"Every image of {self.source} is also one of {other.source}; give another `--test` or `--validation`."
            )
        kept = np.setdiff1d(self.rows, rows)
        return self.keeping(kept, f"{self.source}, without {len(rows)} also in {other.source}") if len(rows) else self

    def rows_in(self, other: "Part") -> np.ndarray:
        """The rows whose image is byte for byte one of the other part's."""
        seen = set(other._digests()) - {None}
        return np.array([row for row, digest in zip(self.rows, self._digests()) if digest in seen], dtype=np.int64)

    def _digests(self) -> list[bytes | None]:
        digests = image_digests(self.corpus)
        return [digests[row] for row in self.rows]

    def targets(self) -> torch.Tensor:
        return self.labels.targets[torch.from_numpy(self.rows)]

    def subjects(self) -> list | None:
        """Who each row shows, if that is known of all."""
        if "subject" not in self.corpus.column_names:
            return None
        subjects = np.array(self.corpus.select_columns("subject")[:]["subject"], dtype=object)[self.rows].tolist()
        return None if None in subjects else subjects

    def numbers(self) -> list[int]:
        """Where each row stands in the split that was opened."""
        return np.array(self.corpus.select_columns(ROW)[:][ROW])[self.rows].tolist()

    def describe(self) -> dict:
        return {"source": self.source, "images": len(self.rows), "revision": self.revision}
