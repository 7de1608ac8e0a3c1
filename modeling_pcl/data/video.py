"""Video files to frames so many seconds apart."""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

try:
    import av
except ImportError:
    av = None  # Which files are videos can be said all the same.

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
REVISION_BYTES = 2**16  # At either end, where the header and the index are: videos are too large to read whole.
SAME_TIME_S = 1e-6  # Time stamps are multiples of a fraction, kept as floats.


class BrokenVideoError(ValueError):
    """A video of which something does not decode."""


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Args:
        number: Its place among all frames, from 0.
        time_s: Seconds after the first frame.
        photo: The whole of it, RGB, upright.
    """

    number: int
    time_s: float
    photo: PIL.Image.Image


def find_videos(path: Path) -> list[Path]:
    """The file itself, or all video files in a folder and below, by name; hidden ones are left out."""
    if not path.is_dir():
        return [path] if _is_video(path.name) and path.exists() else []
    videos = []
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = (name for name in subfolders if not name.startswith("."))
        videos += (Path(folder, name) for name in files if _is_video(name) and not name.startswith("."))
    return sorted(videos)


def _is_video(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def videos_revision(files: Sequence[Path], root: Path) -> str:
    """A digest of names, sizes, beginnings and ends of video files, the same wherever their folder lies."""
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(root).as_posix()} {size} ".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(REVISION_BYTES))
            opened.seek(max(0, size - REVISION_BYTES))
            digest.update(opened.read())
    return f"{len(files)} videos, sha256:{digest.hexdigest()[:16]}"


def expected_frames(file: Path, every_s: float) -> int | None:
    """How many frames `read_frames` will give, by what the file says of its length; None where it says nothing."""
    if av is None:
        return None  # Reading it will say how to install it.
    try:
        with av.open(str(file)) as container:
            if not every_s:
                return container.streams.video[0].frames or None
            return math.ceil(container.duration / av.time_base / every_s) if container.duration else None
    except (av.FFmpegError, IndexError):
        return None  # Reading it will say why.


def read_frames(file: Path, every_s: float, after: int = -1) -> Iterator[Frame]:
    """Decode a video's frames in order.

    Args:
        file: Anything that FFmpeg opens; its first video stream counts.
        every_s: Seconds between two frames; time is cut into steps of this length, and the first frame in each is
            taken. 0 takes every frame.
        after: Frames up to this number are passed over.

    Raises:
        BrokenVideoError: If the file does not open, or, after the last frame that decodes, if some did not.
        ImportError: If the package av is not installed.
    """
    if av is None:
        raise ImportError("Videos need the package av: `pip install modeling_pcl[video]`.")
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise BrokenVideoError("there is no video in it")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            errors: list[str] = []
            for number, time_s, frame in _sampled(_timed(_decoded(container, stream, errors), stream), every_s):
                if number > after:
                    yield Frame(number, time_s, _shown(frame, stream.sample_aspect_ratio))
    except av.FFmpegError as error:
        raise BrokenVideoError(_reason(error)) from error
    if errors:
        raise BrokenVideoError(f"{len(errors)} packets or frames do not decode, the first: {errors[0]}")


def _decoded(container, stream, errors: list[str]) -> Iterator:
    """Whole frames of all packets that decode; the others' errors are noted."""
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            errors.append(_reason(error))
            continue
        for frame in frames:
            if frame.is_corrupt:
                errors.append("a frame is corrupt")
            else:
                yield frame


def _reason(error) -> str:
    """FFmpeg's words, without the path, which a shard is not to depend on."""
    return error.strerror or str(error)


def _timed(frames: Iterator, stream) -> Iterator[tuple[int, float, object]]:
    """Number, seconds after the first frame, frame. A file without time stamps has its frame rate."""
    start_s = None
    for number, frame in enumerate(frames):
        time_s = number / float(stream.average_rate or 25) if frame.time is None else frame.time
        start_s = time_s if start_s is None else start_s
        yield number, time_s - start_s, frame


def _sampled(frames: Iterator[tuple[int, float, object]], every_s: float) -> Iterator[tuple[int, float, object]]:
    due_s = 0.0
    for number, time_s, frame in frames:
        if time_s < due_s - SAME_TIME_S:
            continue
        if every_s:
            due_s = every_s * (math.floor((time_s + SAME_TIME_S) / every_s) + 1)
        yield number, time_s, frame


def _shown(frame, aspect_ratio) -> PIL.Image.Image:
    """A frame whose pixels may be wider than high, and which may lie on its side, as it is to be seen."""
    width = round(frame.width * (aspect_ratio or 1))
    pixels = frame.reformat(width=width, format="rgb24").to_ndarray()  # (h, w, 3)
    return PIL.Image.fromarray(np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90))))
