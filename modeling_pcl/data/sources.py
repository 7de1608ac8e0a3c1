"""Where faces come from: corpora of images, and video files. Both are rows in an order that never changes.

A source has `columns`, names and types of what a row has beside its image; `count`, how many rows there are, None if
only reading tells; `revision`, what identifies them; `unit`, what to call a row; and `broken`, what does not decode,
each with its `reason`, and with `row`, the number of rows before it.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Audio, Features, Image, IterableDataset, Value, Video

from .corpora import Corpus, corpus_revision
from .image_decoder import ImageDecoder
from .images import central_square
from .video import BrokenVideoError, find_videos, read_frames, videos_revision

logger = logging.getLogger(__name__)

MEDIA = (Image, Audio, Video)


class CorpusSource:
    """What `load_corpus` opens. Columns are its own but for images, `row`, and, where files have names,
    `path`.

    Args:
        corpus: A dataset or a stream.
        name: What it was opened by; paths below it are kept without it.
        size_px: Side of the images.
        max_broken_share: Share of the images that may fail to decode.

    Raises:
        ValueError: If there is no row, or a column of its own is called `row`.
    """

    unit = "image"

    def __init__(self, corpus: Corpus, name: str, size_px: int, max_broken_share: float):
        kept = {key: kind for key, kind in corpus.features.items() if key != "image" and not isinstance(kind, MEDIA)}
        if "row" in kept:
            raise ValueError(
                f"The corpus `{name}` has a column `row`, which is to be the number of its rows: rename it."
            )
        first = next(iter(corpus.take(1)), None)
        if first is None:
            raise ValueError(f"The corpus `{name}` holds no row.")
        named = {} if "path" in kept or not (first["image"] or {}).get("path") else {"path": Value("string")}
        self.corpus, self.kept = corpus.select_columns(["image", *kept]), list(kept)
        self.columns = Features({"row": Value("int64"), **named, **kept})
        self.root = Path(name).expanduser().absolute()
        self.count = None if isinstance(corpus, IterableDataset) else len(corpus)
        self.revision = corpus_revision(corpus)
        way_out = "mend the corpus, prepare it with `pcl prepare`, or raise `--max_broken_share`"
        self.decoder = ImageDecoder(size_px, name, self.count, max_broken_share, way_out)

    @property
    def broken(self) -> list[dict]:
        return [{"row": row, "reason": reason} for row, reason in sorted(self.decoder.broken.items())]

    @broken.setter
    def broken(self, entries: list[dict]):
        self.decoder.broken = {entry["row"]: entry["reason"] for entry in entries}

    def rows(self, start: int, last: dict | None) -> Iterator[dict]:
        """Rows from a number on; `last` has the columns of the last row that was kept, None if there was none."""
        rest = [] if start == self.count else self.corpus.skip(start)  # A dataset cannot skip all of its rows.
        for number, row in enumerate(rest, start):
            kept = {key: row[key] for key in self.kept}
            yield {"image": row["image"], "row": number, "path": self._path(row["image"]), **kept}

    def _path(self, record: dict | None) -> str | None:
        path = (record or {}).get("path")
        if path is None or not Path(path).is_absolute() or not Path(path).is_relative_to(self.root):
            return path
        return Path(path).relative_to(self.root).as_posix()

    def images(self, first: int, rows: Sequence[dict]) -> tuple[torch.Tensor, list[bool]]:
        """`(rows, 3, size_px, size_px)` uint8 of rows from `first` on, and which of them are images."""
        numbers = range(first, first + len(rows))
        images = self.decoder.decode(numbers, [row["image"] for row in rows])
        return images, [number not in self.decoder.broken for number in numbers]


class VideoSource:
    """Frames of video files, one file after the other. Columns are `video`, `frame` and `time_s`.

    Args:
        path: A video file, or a folder with such files in it or below.
        every_s: Seconds between two frames of a video; 0 takes every frame.
        size_px: Side of the images.

    Raises:
        OSError: If a file cannot be read.
    """

    unit, count = "frame", None

    def __init__(self, path: Path, every_s: float, size_px: int):
        self.files, self.every_s, self.size_px = find_videos(path), every_s, size_px
        self.root = path if path.is_dir() else path.parent
        self.revision = videos_revision(self.files, self.root)
        self.columns = Features({"video": Value("string"), "frame": Value("int64"), "time_s": Value("float64")})
        self.broken: list[dict] = []

    def rows(self, start: int, last: dict | None) -> Iterator[dict]:
        names = [file.relative_to(self.root).as_posix() for file in self.files]
        begin, after = (names.index(last["video"]), last["frame"]) if last else (0, -1)
        number = start
        for file, name in zip(self.files[begin:], names[begin:]):
            try:
                for frame in read_frames(file, self.every_s, after):
                    pixels = torch.from_numpy(np.array(frame.photo)).permute(2, 0, 1)  # (h, w, 3) -> (3, h, w)
                    image = central_square(pixels, self.size_px)
                    yield {"image": image, "video": name, "frame": frame.number, "time_s": frame.time_s}
                    number += 1
            except (BrokenVideoError, OSError) as error:
                logger.warning("not all of %s: %s", name, error)
                self.broken.append({"row": number, "video": name, "reason": str(error)})
            after = -1

    def images(self, first: int, rows: Sequence[dict]) -> tuple[torch.Tensor, list[bool]]:
        return torch.stack([row["image"] for row in rows]), [True] * len(rows)


Source = CorpusSource | VideoSource
