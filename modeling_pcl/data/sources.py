"""Sources of faces: corpora of images, and video files. Both return rows in an order that never changes.

A source has these attributes:

- `columns`: features of the columns of a row, without its image;
- `count`: number of rows; None if it is only known after reading all of them;
- `revision`: string that identifies the content;
- `unit`: word for a row;
- `broken`: images or videos that cannot be decoded, each with a `reason`, and with `row`, the number of rows before it.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Audio, Features, Image, IterableDataset, Value, Video

from .corpora import Corpus, corpus_revision
from .image_decoder import ImageDecoder
from .images import resize_to_central_square
from .video import BrokenVideoError, find_videos, read_frames, videos_revision

logger = logging.getLogger(__name__)

MEDIA = (Image, Audio, Video)


class CorpusSource:
    """Images of a corpus. The columns are those of the corpus without media, `row`, and `path` if images have paths.

    Args:
        corpus: Dataset or stream that `load_corpus` returned.
        name: Name of the corpus. If it is a folder, paths inside it are stored relative to it.
        size_px: Side of the decoded images.
        max_broken_share: Largest share of the images that may be broken.

    Raises:
        ValueError: If the corpus has no rows, or a column `row`.
    """

    unit = "image"

    def __init__(self, corpus: Corpus, name: str, size_px: int, max_broken_share: float):
        kept = {key: kind for key, kind in corpus.features.items() if key != "image" and not isinstance(kind, MEDIA)}
        if "row" in kept:
            raise ValueError(
                f"The corpus `{name}` has a column `row`, a name that is needed for the row numbers: rename it."
            )
        first = next(iter(corpus.take(1)), None)
        if first is None:
            raise ValueError(f"The corpus `{name}` has no rows.")
        path_column = {} if "path" in kept or not (first["image"] or {}).get("path") else {"path": Value("string")}
        self.corpus, self.kept = corpus.select_columns(["image", *kept]), list(kept)
        self.columns = Features({"row": Value("int64"), **path_column, **kept})
        self.root = Path(name).expanduser().absolute()
        self.count = None if isinstance(corpus, IterableDataset) else len(corpus)
        self.revision = corpus_revision(corpus)
        way_out = "repair the corpus, prepare it with `pcl prepare`, or raise `--max_broken_share`"
        self.decoder = ImageDecoder(size_px, name, self.count, max_broken_share, way_out)

    @property
    def broken(self) -> list[dict]:
        """Row number and reason of each broken image."""
        return [{"row": row, "reason": reason} for row, reason in sorted(self.decoder.broken.items())]

    @broken.setter
    def broken(self, entries: list[dict]):
        self.decoder.broken = {entry["row"]: entry["reason"] for entry in entries}

    def rows(self, start: int, last: dict | None) -> Iterator[dict]:
        """Iterate over the rows from number `start` on.

        Args:
            start: Number of the first row.
            last: Columns of the last row before `start` that was not broken; None if there is none. It is not used.
        """
        remaining = [] if start == self.count else self.corpus.skip(start)  # `skip` fails if no row remains.
        for number, row in enumerate(remaining, start):
            kept = {key: row[key] for key in self.kept}
            yield {"image": row["image"], "row": number, "path": self._get_path(row["image"]), **kept}

    def _get_path(self, record: dict | None) -> str | None:
        """Return the path of an image, relative to the folder of the corpus if it is inside."""
        path = (record or {}).get("path")
        if path is None or not Path(path).is_absolute() or not Path(path).is_relative_to(self.root):
            return path
        return Path(path).relative_to(self.root).as_posix()

    def images(self, first: int, rows: Sequence[dict]) -> tuple[torch.Tensor, list[bool]]:
        """Decode the images of consecutive rows.

        Args:
            first: Number of the first row.
            rows: Rows as `rows` yields them.

        Returns:
            Images `(rows, 3, size_px, size_px)`, uint8, and for each row whether its image could be decoded.
        """
        numbers = range(first, first + len(rows))
        images = self.decoder.decode(numbers, [row["image"] for row in rows])
        return images, [number not in self.decoder.broken for number in numbers]


class VideoSource:
    """Frames of video files, one file after the other. The columns are `video`, `frame` and `time_s`.

    Args:
        path: Video file, or folder with video files in it or its subfolders.
        every_s: Seconds between two frames of a video; 0 takes every frame.
        size_px: Side of the decoded images.

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
        """Iterate over the frames after the frame `last`; None starts with the first video.

        Args:
            start: Number of the first row.
            last: Columns of the row before it; None if there is none.
        """
        names = [file.relative_to(self.root).as_posix() for file in self.files]
        first_video, after = (names.index(last["video"]), last["frame"]) if last else (0, -1)
        number = start
        for file, name in zip(self.files[first_video:], names[first_video:]):
            try:
                for frame in read_frames(file, self.every_s, after):
                    pixels = torch.from_numpy(np.array(frame.photo)).permute(2, 0, 1)  # (h, w, 3) -> (3, h, w)
                    image = resize_to_central_square(pixels, self.size_px)
                    yield {"image": image, "video": name, "frame": frame.number, "time_s": frame.time_s}
                    number += 1
            except (BrokenVideoError, OSError) as error:
                logger.warning("%s was not read completely: %s", name, error)
                self.broken.append({"row": number, "video": name, "reason": str(error)})
            after = -1

    def images(self, first: int, rows: Sequence[dict]) -> tuple[torch.Tensor, list[bool]]:
        """Stack the images of some rows, as `CorpusSource.images` does. All of them are decoded."""
        return torch.stack([row["image"] for row in rows]), [True] * len(rows)


Source = CorpusSource | VideoSource
