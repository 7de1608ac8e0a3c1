"""Units of work in making a corpus of faces: photos or a video, whose faces become one parquet file."""

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
from ..video import BrokenVideoError, Frame, expected_frames, read_frames
from .arguments import AlignmentArguments
from .tracking import FaceTracker

PHOTOS_AT_ONCE = 8  # Whole photos are large: 8 of 12 megapixels are 300 MB in each process.
SAMPLES_PER_UNIT, SAMPLE_PX = 3, 360


@dataclass(frozen=True)
class Unit:
    """Consecutive photos of one split, or one video.

    Args:
        number: Place in the order of the corpus.
        split: Of the corpus that is made.
        start: First row, of photos.
        stop: Behind the last row.
        video: Path of a video; None for photos.
        name: Of the video, below the input.
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
        return f"{self.split}-{self.number:05d}"

    @property
    def size(self) -> int:
        """What its progress is counted in: photos, or one video."""
        return self.stop - self.start if self.video is None else 1


@dataclass
class Account:
    """What became of a unit.

    Args:
        photos: Photos, or frames of the video, that were searched.
        several: Of them, those with more than one face.
        kept: Name and digest of each face, in the order of the file.
        missed: Name and reason of each photo without a face and of what does not decode.
        thinned: Faces of a video that are too much like the one before.
        people: In the shots of a video.
        shots: Of a video.
    """

    photos: int = 0
    several: int = 0
    thinned: int = 0
    people: int = 0
    shots: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)
    missed: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: "Account"):
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name) + getattr(other, part.name))


@dataclass(frozen=True)
class FaceWriter(PartWriter):
    """Writes units.

    Args:
        folder: Where parts lie until the corpus is whole.
        root: Folder of the input, below which photos have their names.
        features: Of the table `data`.
        corpora: Photos, by split.
        crop: How faces are cut out.
        options: What to find, and how to store it.
        shows_frames: Whether to show the progress within each video, where videos are not searched side by side.
    """

    corpora: dict[str, Dataset]
    crop: FaceCrop
    options: AlignmentArguments
    shows_frames: bool = False
    account_type = Account

    def make_records(self, unit: Unit, account: Account) -> Iterator[dict]:
        samples: list[Image.Image] = []
        yield from (self._photos if unit.video is None else self._video)(unit, account, samples)
        for number, sample in enumerate(samples):
            sample.thumbnail((SAMPLE_PX, SAMPLE_PX))
            sample.save(self.folder / f"{unit.stem}-{number}.jpg")

    def _photos(self, unit: Unit, account: Account, samples: list[Image.Image]) -> Iterator[dict]:
        corpus = self.corpora[unit.split]
        for first in range(unit.start, unit.stop, PHOTOS_AT_ONCE):
            rows = range(first, min(first + PHOTOS_AT_ONCE, unit.stop))
            opened = [each for row in rows if (each := self._open(corpus[row], row, account))]
            for (name, labels, photo), faces in zip(opened, self._find([photo for _, _, photo in opened])):
                account.photos += 1
                if not len(faces):
                    account.missed.append((name, "no face is found"))
                account.several += len(faces) > 1
                self._add_sample(samples, photo, faces)
                for number, face in enumerate(cut_found_faces(photo, faces, self.crop)):
                    stem = str(Path(name).with_suffix(""))
                    yield self._record(face, f"{stem}_{number}", unit.split, labels, account)

    def _open(self, row: dict, number: int, account: Account) -> tuple[str, dict, Image.Image] | None:
        record = row["image"]
        name = make_printable((record or {}).get("path") or f"{number:07d}")
        if Path(name).is_absolute():  # Of a folder of photos; elsewhere nothing tells where names begin.
            inside = Path(name).is_relative_to(self.root.absolute())
            name = Path(name).relative_to(self.root.absolute()).as_posix() if inside else Path(name).name
        try:
            with open_bytes(image_bytes(record), self.options.max_pixels) as image:
                return (
                    name,
                    {key: row[key] for key in row if key in self.features["data"] and key != "image"},
                    to_rgb(image),
                )
        except Exception as error:  # Decoders raise whatever they stumble on in broken bytes.
            account.missed.append((name, BrokenImageError.from_error(name, error).reason))
            return None

    def _video(self, unit: Unit, account: Account, samples: list[Image.Image]) -> Iterator[dict]:
        tracker, people = FaceTracker(), 0
        try:
            for frame in self._frames(unit):
                (faces,) = self._find([frame.photo])
                account.photos += 1
                account.several += len(faces) > 1
                tracks = tracker.follow(frame.photo, faces, frame.time_s)
                if tracker.count > people:  # One of each new face.
                    self._add_sample(samples, frame.photo, faces)
                people = tracker.count
                for track, face in zip(tracks, cut_found_faces(frame.photo, faces, self.crop)):
                    if track.is_near_duplicate(face.image, self.options.min_difference):
                        account.thinned += 1
                        continue
                    person = f"{unit.name}#{track.number}"
                    labels = {"subject": person, "video": unit.name, "frame": frame.number}
                    name = f"{unit.name}/{frame.number:06d}_{track.number}"
                    yield self._record(face, name, unit.split, labels, account)
        except (BrokenVideoError, OSError) as error:
            account.missed.append((unit.name, str(error)))
        if not account.kept and not account.missed:
            account.missed.append((unit.name, "no face is found in any frame"))
        account.people, account.shots = tracker.count, tracker.shots

    def _frames(self, unit: Unit) -> Iterator[Frame]:
        frames = read_frames(unit.video, self.options.every_s)
        if not self.shows_frames:
            return frames
        total = expected_frames(unit.video, self.options.every_s)
        return progress(frames, total=total, unit="frame", desc=unit.name, leave=False)

    def _find(self, photos: list[Image.Image]):
        # One thread in each process: as many as there are cores would wait for each other.
        detector: FaceDetector = shared_detector(threads=1, **self.options.detector())
        return [faces[: self.options.most_faces] for faces in detector(photos)]

    def _add_sample(self, samples: list[Image.Image], photo: Image.Image, faces):
        if len(samples) < SAMPLES_PER_UNIT and len(faces):
            squares = [self.crop.square(*pair) for pair in zip(faces.boxes, faces.points)]
            samples.append(draw_faces(photo, faces, squares))

    def _record(self, face: CutFace, name: str, split: str, labels: dict, account: Account) -> dict:
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
            # The head is turned less in the square than in the photo.
            pose = turn_back(*(labels[angle] for angle in ANGLES), -face.square.angle_deg)
            labels = labels | dict(zip(ANGLES, pose))
        numbers = {"box": face.box, "points": np.ravel(face.points), "score": face.score}
        numbers = {key: np.round(value, 2).tolist() for key, value in numbers.items()}
        return {"image": {"bytes": content, "path": name}, "split": split, **labels, **numbers}
