"""Detect and cut out the faces of one unit of work, some photos or a video, and write them to one parquet file."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

import numpy as np
from datasets import Dataset
from PIL import Image

from ...crop_pcl import FaceCrop
from ...detection_pcl import FaceDetector
from ...faces_pcl import CutFace, cut_found_faces, draw_faces, shared_detector
from ...head_pose_pcl import ANGLES, turn_back
from ...images_pcl import BrokenImageError, open_bytes, to_rgb
from ...progress import progress
from ..images import image_bytes
from ..parts import PartWriter, make_printable
from ..video import BrokenVideoError, Frame, estimate_frame_count, read_frames
from .arguments import AlignmentArguments
from .tracking import FaceTracker

PHOTOS_AT_ONCE = 8  # Photos are held in memory: 8 of 12 megapixels take 300 MB per process.
SAMPLES_PER_UNIT, SAMPLE_PX = 3, 360


@dataclass(frozen=True)
class Unit:
    """Consecutive photos of one split, or one video.

    Args:
        number: Position in the order of the corpus.
        split: Split of the faces in the new corpus.
        start: Number of the first row, for photos.
        stop: Number of the row after the last one, for photos.
        video: Path of the video; None for photos.
        name: Name of the video, relative to the input.
    """

    table: ClassVar[str] = "data"
    number: int
    split: str
    start: int = 0
    stop: int = 0
    video: Path | None = None
    name: str = ""

    @property
    def stem(self) -> str:
        """Name of the files of this unit, without suffix."""
        return f"{self.split}-{self.number:05d}"

    @property
    def size(self) -> int:
        """Number of photos, or 1 for a video. Progress is counted in it."""
        return self.stop - self.start if self.video is None else 1


@dataclass
class Account:
    """Record of what happened to the photos and faces of a unit.

    Args:
        photos: Number of photos, or frames of the video, that were searched.
        several: Number of them with more than one face.
        kept: Name and digest of each face, in the order of the file.
        missed: Name and reason of each photo without a face, and of each photo or video that cannot be decoded.
        thinned: Number of faces of a video that were left out as near-duplicates.
        people: Number of people in a video, counted anew in each shot.
        shots: Number of shots in a video.
    """

    photos: int = 0
    several: int = 0
    thinned: int = 0
    people: int = 0
    shots: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)
    missed: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: "Account"):
        """Add the counts and lists of another account."""
        for entry in fields(self):
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))


@dataclass(frozen=True)
class FaceWriter(PartWriter):
    """Writer of units.

    Args:
        folder: Folder of the parts until the corpus is complete.
        root: Folder of the input, to which names of photos are relative.
        features: Features of the table `data`.
        corpora: Photos by split.
        crop: How faces are cut out.
        options: How faces are detected and stored.
        shows_frames: Whether to show a progress bar for each video; only useful if one video is read at a time.
    """

    corpora: dict[str, Dataset]
    crop: FaceCrop
    options: AlignmentArguments
    shows_frames: bool = False
    account_type = Account

    def make_records(self, unit: Unit, account: Account) -> Iterator[dict]:
        """Make the rows of the faces of a unit, and save a few sample pictures."""
        samples: list[Image.Image] = []
        yield from (self._read_photos if unit.video is None else self._read_video)(unit, account, samples)
        for number, sample in enumerate(samples):
            sample.thumbnail((SAMPLE_PX, SAMPLE_PX))
            sample.save(self.folder / f"{unit.stem}-{number}.jpg")

    def _read_photos(self, unit: Unit, account: Account, samples: list[Image.Image]) -> Iterator[dict]:
        corpus = self.corpora[unit.split]
        for first in range(unit.start, unit.stop, PHOTOS_AT_ONCE):
            rows = range(first, min(first + PHOTOS_AT_ONCE, unit.stop))
            photos = [photo for row in rows if (photo := self._open(corpus[row], row, account))]
            for (name, labels, photo), faces in zip(photos, self._detect([photo for _, _, photo in photos])):
                account.photos += 1
                if not len(faces):
                    account.missed.append((name, "no face is found"))
                account.several += len(faces) > 1
                self._add_sample(samples, photo, faces)
                for number, face in enumerate(cut_found_faces(photo, faces, self.crop)):
                    stem = str(Path(name).with_suffix(""))
                    yield self._make_record(face, f"{stem}_{number}", unit.split, labels, account)

    def _open(self, row: dict, number: int, account: Account) -> tuple[str, dict, Image.Image] | None:
        """Open a photo; returns its name, labels and image, or None if it is broken."""
        record = row["image"]
        name = make_printable((record or {}).get("path") or f"{number:07d}")
        if Path(name).is_absolute():  # Names are relative to the input; of paths elsewhere only the file name is kept.
            is_inside = Path(name).is_relative_to(self.root.absolute())
            name = Path(name).relative_to(self.root.absolute()).as_posix() if is_inside else Path(name).name
        try:
            with open_bytes(image_bytes(record), self.options.max_pixels) as image:
                return (
                    name,
                    {key: row[key] for key in row if key in self.features["data"] and key != "image"},
                    to_rgb(image),
                )
        except Exception as error:  # Decoders raise errors of any class for broken files.
            account.missed.append((name, BrokenImageError.from_error(name, error).reason))
            return None

    def _read_video(self, unit: Unit, account: Account, samples: list[Image.Image]) -> Iterator[dict]:
        tracker, people = FaceTracker(), 0
        try:
            for frame in self._read_frames(unit):
                (faces,) = self._detect([frame.photo])
                account.photos += 1
                account.several += len(faces) > 1
                tracks = tracker.follow(frame.photo, faces, frame.time_s)
                if tracker.count > people:  # Samples are frames in which a new person appears.
                    self._add_sample(samples, frame.photo, faces)
                people = tracker.count
                for track, face in zip(tracks, cut_found_faces(frame.photo, faces, self.crop)):
                    if track.is_near_duplicate(face.image, self.options.min_difference):
                        account.thinned += 1
                        continue
                    person = f"{unit.name}#{track.number}"
                    labels = {"subject": person, "video": unit.name, "frame": frame.number}
                    name = f"{unit.name}/{frame.number:06d}_{track.number}"
                    yield self._make_record(face, name, unit.split, labels, account)
        except (BrokenVideoError, OSError) as error:
            account.missed.append((unit.name, str(error)))
        if not account.kept and not account.missed:
            account.missed.append((unit.name, "no face is found in any frame"))
        account.people, account.shots = tracker.count, tracker.shots

    def _read_frames(self, unit: Unit) -> Iterator[Frame]:
        frames = read_frames(unit.video, self.options.every_s)
        if not self.shows_frames:
            return frames
        total = estimate_frame_count(unit.video, self.options.every_s)
        return progress(frames, total=total, unit="frame", desc=unit.name, leave=False)

    def _detect(self, photos: list[Image.Image]):
        # One thread per process: with one thread per core, the threads of the processes would wait for each other.
        detector: FaceDetector = shared_detector(threads=1, **self.options.detector())
        return [faces[: self.options.most_faces] for faces in detector(photos)]

    def _add_sample(self, samples: list[Image.Image], photo: Image.Image, faces):
        if len(samples) < SAMPLES_PER_UNIT and len(faces):
            squares = [self.crop.square(*pair) for pair in zip(faces.boxes, faces.points)]
            samples.append(draw_faces(photo, faces, squares))

    def _make_record(self, face: CutFace, name: str, split: str, labels: dict, account: Account) -> dict:
        image, file = face.image, io.BytesIO()
        if self.options.size is not None and image.width > self.options.size:
            image = image.resize((self.options.size, self.options.size), Image.Resampling.BILINEAR)
        quality = self.options.jpeg_quality
        if quality is None:
            image.save(file, "PNG")
        else:
            image.save(file, "JPEG", quality=quality)
        content, name = file.getvalue(), f"{name}.{'png' if quality is None else 'jpg'}"
        account.kept.append((name, hashlib.sha256(content).hexdigest()))
        if face.square.angle_deg and all(labels.get(angle) is not None for angle in ANGLES):
            # The pose in the crop differs from the pose in the photo by the rotation of the crop.
            pose = turn_back(*(labels[angle] for angle in ANGLES), -face.square.angle_deg)
            labels = labels | dict(zip(ANGLES, pose))
        numbers = {"box": face.box, "points": np.ravel(face.points), "score": face.score}
        numbers = {key: np.round(value, 2).tolist() for key, value in numbers.items()}
        return {"image": {"bytes": content, "path": name}, "split": split, **labels, **numbers}
