"""Read frames of video files at regular intervals."""

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
    av = None  # `find_videos` works without the package.

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
REVISION_BYTES = 2**16  # Read at both ends, where header and index are. Videos are too large to read completely.
SAME_TIME_S = 1e-6  # Time stamps are multiples of a fraction, so as floats they have rounding errors.


class BrokenVideoError(ValueError):
    """Raised for a video that cannot be decoded completely."""


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Args:
        number: Index among all frames of the video, from 0.
        time_s: Time after the first frame, in seconds.
        photo: The complete frame, RGB, upright.
    """

    number: int
    time_s: float
    photo: PIL.Image.Image


def find_videos(path: Path) -> list[Path]:
    """List a video file, or all video files in a folder and its subfolders, by name and without hidden ones."""
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
    """Compute a digest of the names, sizes, beginnings and ends of video files, wherever `root` is."""
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(root).as_posix()} {size} ".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(REVISION_BYTES))
            opened.seek(max(0, size - REVISION_BYTES))
            digest.update(opened.read())
    return f"{len(files)} videos, sha256:{digest.hexdigest()[:16]}"


def estimate_frame_count(file: Path, every_s: float) -> int | None:
    """Estimate the number of frames of `read_frames` from the header of a file; None if the header does not tell."""
    if av is None:
        return None  # `read_frames` raises an error that tells how to install the package.
    try:
        with av.open(str(file)) as container:
            if not every_s:
                return container.streams.video[0].frames or None
            return math.ceil(container.duration / av.time_base / every_s) if container.duration else None
    except (av.FFmpegError, IndexError):
        return None  # `read_frames` raises an error with the reason.


def read_frames(file: Path, every_s: float, after: int = -1) -> Iterator[Frame]:
    """Decode frames of a video, in order.

    Args:
        file: File that FFmpeg can open. Its first video stream is decoded.
        every_s: Seconds between two frames. The first frame of each interval of this length is returned; 0 returns
            every frame.
        after: Number of the last frame to skip; -1 skips none.

    Raises:
        BrokenVideoError: If the file cannot be opened; or, after the last frame, if some frames could not be decoded.
        ImportError: If the package av is not installed.
    """
    if av is None:
        raise ImportError("Videos need the package av: `pip install modeling_pcl[video]`.")
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise BrokenVideoError("the file has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            errors: list[str] = []
            for number, time_s, frame in _sample(_add_times(_decode(container, stream, errors), stream), every_s):
                if number > after:
                    yield Frame(number, time_s, _make_upright(frame, stream.sample_aspect_ratio))
    except av.FFmpegError as error:
        raise BrokenVideoError(_get_reason(error)) from error
    if errors:
        raise BrokenVideoError(f"{len(errors)} packets or frames cannot be decoded, the first: {errors[0]}")


def _decode(container, stream, errors: list[str]) -> Iterator:
    """Decode all intact frames, and append the errors of the others to `errors`."""
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            errors.append(_get_reason(error))
            continue
        for frame in frames:
            if frame.is_corrupt:
                errors.append("a frame is corrupt")
            else:
                yield frame


def _get_reason(error) -> str:
    """Return the message of FFmpeg without the path: output files must not depend on where the videos are."""
    return error.strerror or str(error)


def _add_times(frames: Iterator, stream) -> Iterator[tuple[int, float, object]]:
    """Yield each frame with its number and its time in seconds after the first frame.

    Times come from the time stamps, or from the frame rate if a file has no time stamps.
    """
    start_s = None
    for number, frame in enumerate(frames):
        time_s = number / float(stream.average_rate or 25) if frame.time is None else frame.time
        start_s = time_s if start_s is None else start_s
        yield number, time_s - start_s, frame


def _sample(frames: Iterator[tuple[int, float, object]], every_s: float) -> Iterator[tuple[int, float, object]]:
    """Keep the first frame of each interval of `every_s` seconds."""
    next_s = 0.0
    for number, time_s, frame in frames:
        if time_s < next_s - SAME_TIME_S:
            continue
        if every_s:
            next_s = every_s * (math.floor((time_s + SAME_TIME_S) / every_s) + 1)
        yield number, time_s, frame


def _make_upright(frame, aspect_ratio) -> PIL.Image.Image:
    """Convert a frame to RGB with square pixels, and rotate it as its metadata say."""
    width = round(frame.width * (aspect_ratio or 1))
    pixels = frame.reformat(width=width, format="rgb24").to_ndarray()  # (h, w, 3)
    return PIL.Image.fromarray(np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90))))
