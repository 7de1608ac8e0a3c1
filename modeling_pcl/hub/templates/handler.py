"""Handler for Inference Endpoints, which answers requests with images of faces in JSON.

    {"inputs": "<base64 of an image file>"}
    {"inputs": ["<base64>", "<base64>"], "parameters": {"draw": true}}
    {"inputs": {"image": "<base64>", "other": "<base64>"}, "parameters": {"task": "face-verification"}}

An image is the base64 text of a file in any format that the model's code opens, also as a data URI, or the raw bytes of
a request. URLs are not fetched, and nothing is stored. A request may hold at most 64 images, with 32 MiB and 40 million
pixels in total. The parameter `task` selects a task that the model supports; the default is the first one in this list:

    features                `PCLModel`, `PCLForPreTraining`: {"trunk": [...], "face": [...], "pose": [...]}
    image-classification    `PCLForImageClassification`: [{"label": ..., "score": ...}]; parameter `top_k`
    head-pose-estimation    {"yaw": ..., "pitch": ..., "roll": ...} in degrees; parameter `draw`
    face-verification       {"similarity": ..., "threshold": ..., "same": ...}; parameters `feature` (trunk, face, pose
    or
                            face+pose, the two concatenated) and `threshold`
    face-swap-pose          {"image": "<base64 of a PNG>"} for {"face": ..., "pose": ...}; only if `task` selects it;
                            parameter `exchange` (pose or turn)

An image is a face crop. With the parameter `detect` it is a photo: its largest face is cut out as in training, and the
answer holds its position in px, `box`, or `boxes` for a pair.

A request that cannot be answered raises `RequestError`. Its text begins with an HTTP status and says what to change;
the service sends it as the `error` of its answer.
"""

import base64
import io
import math
import reprlib
import textwrap
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module

MOST_IMAGES, MOST_BYTES, MOST_PIXELS = 64, 32 * 2**20, 40_000_000  # Limits for all images of a request together.
FEATURES = {"trunk": "pooler_output", "face": "face_features", "pose": "pose_features"}
PAIRS = {"face-verification": ("image", "other"), "face-swap-pose": ("face", "pose")}
NUMBER, FLAG, TEXT = "a number from -1 to 1", "true or false", "a text"
# Parameters of each task, besides `task`, with the values that they take.
PARAMETERS = {
    "features": {"detect": FLAG},
    "image-classification": {"detect": FLAG, "top_k": "an integer of at least 1"},
    "head-pose-estimation": {"detect": FLAG, "draw": FLAG},
    "face-verification": {"detect": FLAG, "feature": TEXT, "threshold": NUMBER},
    "face-swap-pose": {"detect": FLAG, "exchange": TEXT},
}
IS_VALID = {
    "an integer of at least 1": lambda value: type(value) is int and value >= 1,
    FLAG: lambda value: isinstance(value, bool),
    TEXT: lambda value: isinstance(value, str),
    NUMBER: lambda value: type(value) in (int, float) and -1 <= value <= 1,  # False for NaN.
}


class RequestError(ValueError):
    """Raised for a request that the client has to change.

    Args:
        status: HTTP status, 400 to 499.
        message: What is wrong and what to send instead.
    """

    def __init__(self, status: int, message: str):
        super().__init__(f"{status}: {message}")
        self.status = status


class EndpointHandler:
    """Answer requests with one model.

    Args:
        path: Folder of the repository.
    """

    def __init__(self, path: str = "."):
        self.path = str(path)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        config = AutoConfig.from_pretrained(self.path, trust_remote_code=True)
        self.tasks = list_tasks(config)
        self.runners = {self.tasks[0]: self._open(self.tasks[0])}

    def __call__(self, data: dict[str, Any]) -> Any:
        """Answer one request.

        Args:
            data: `inputs`: an image, a pair, or a list of either; `parameters`: `task` and the parameters of that task.

        Returns:
            JSON-serialisable answer, or for a list the answers in the same order.

        Raises:
            RequestError: 400 if the request does not have the expected form, 413 if it is too large, 415 if an image
                cannot be decoded, 422 if a parameter has a wrong value or the model gives no finite number.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise RequestError(400, 'the request must be {"inputs": ..., "parameters": {...}}')
        task, parameters = self._check_parameters(data.get("parameters"))
        inputs, reader = data["inputs"], RequestReader(self.path)
        if not isinstance(inputs, list):
            return self._answer(task, [reader.read(inputs, task, "the image")], parameters)[0]
        if not inputs:
            raise RequestError(400, f"`inputs` must hold 1 to {MOST_IMAGES} images, got an empty list")
        opened = [reader.read(value, task, f"input {number}") for number, value in enumerate(inputs)]
        return self._answer(task, opened, parameters)

    def _check_parameters(self, parameters: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
        """Check the parameters of a request, and split them into the task and its parameters."""
        if not isinstance(parameters, dict | None):
            raise RequestError(422, "`parameters` must be an object")
        parameters = dict(parameters or {})
        task = parameters.pop("task", self.tasks[0])
        if task not in self.tasks:
            raise RequestError(
                422, f"`task` must be one of {', '.join(self.tasks)}, which this model does; got {shorten(task)}"
            )
        for name, value in parameters.items():
            kind = PARAMETERS[task].get(name)
            if kind is None:
                names = ", ".join(["task", *PARAMETERS[task]])
                raise RequestError(422, f"{task} has no parameter {shorten(name)}; it has {names}")
            if not IS_VALID[kind](value):
                raise RequestError(422, f"`{name}` must be {kind}, got {shorten(value)}")
        return task, parameters

    def _open(self, task: str):
        options = {"trust_remote_code": True, "device": self.device}
        return FeatureExtractor(self.path, self.device) if task == "features" else pipeline(task, self.path, **options)

    def _answer(self, task: str, inputs: list, parameters: dict[str, Any]) -> list:
        if task not in self.runners:
            self.runners[task] = self._open(task)
        try:
            with torch.inference_mode():
                answers = self.runners[task](inputs, batch_size=len(inputs), **parameters)
        # The images are already decoded: a parameter is wrong, a photo has no face, or the detector is not installed.
        except (ValueError, ImportError) as error:
            raise RequestError(422, str(error)) from error
        for number, answer in enumerate(answers):
            if not is_finite(answer):  # JSON cannot represent NaN and infinity.
                raise RequestError(422, f"the model gives no finite number for input {number}")
        return [encode_pictures(answer) for answer in answers]


class RequestReader:
    """Open the images of one request, and count their number, bytes and pixels against the limits.

    Args:
        path: Folder of the repository, whose `images_pcl.py` opens images as training did.
    """

    def __init__(self, path: str):
        self.open_bytes, self.to_rgb, self.decode_base64 = (
            get_class_from_dynamic_module(f"images_pcl.{name}", path)
            for name in ("open_bytes", "to_rgb", "decode_base64")
        )
        self.images = self.bytes = self.pixels = 0

    def read(self, value: Any, task: str, name: str) -> Image.Image | dict[str, Image.Image]:
        """Open an image, or the two images of a pair if the task takes pairs."""
        pair = PAIRS.get(task)
        if pair is None:
            return self.open_image(value, name)
        if not isinstance(value, dict) or set(value) != set(pair):
            raise RequestError(400, f'{name}: {task} takes {{"{pair[0]}": ..., "{pair[1]}": ...}}')
        return {key: self.open_image(value[key], f"{name}, `{key}`") for key in pair}

    def open_image(self, value: Any, name: str) -> Image.Image:
        """Open an image as RGB without fetching URLs, and check the limits before it is decoded."""
        self.images += 1
        if self.images > MOST_IMAGES:
            raise RequestError(413, f"a request takes at most {MOST_IMAGES} images")
        try:
            # The service itself opens a request whose body is an image.
            if not isinstance(value, Image.Image):
                image = self.open_bytes(self._content(value, name), math.inf)
            else:
                image = value
            self._count_pixels(image, name)  # Uses the size in the header, before the pixels are decoded.
            size, image = image.size, self.to_rgb(image)
            if (
                image.width * image.height > size[0] * size[1]
            ):  # Icon files may hold larger images than the header says.
                self._count_pixels(image, name)
            return image
        except RequestError:
            raise
        except Image.DecompressionBombError as error:
            raise RequestError(413, f"{name} has more than {MOST_PIXELS:,} pixels") from error
        except Exception as error:  # For broken bytes, decoders raise exceptions of any class.
            raise RequestError(415, f"{name} is not a whole image: {shorten(str(error))}") from error

    def _content(self, value: Any, name: str) -> bytes:
        is_text = isinstance(value, str)
        if not is_text and not isinstance(value, bytes | bytearray):
            raise RequestError(400, f"{name} must be base64 text or bytes, got {type(value).__name__}")
        if is_text and value[:8].lower().startswith(("http://", "https://")):
            raise RequestError(400, f"{name} is a URL, and none is fetched: send the image itself, in base64")
        self.bytes += len(value) * 3 // 4 if is_text else len(value)  # For base64, the largest possible decoded size.
        if self.bytes > MOST_BYTES:
            raise RequestError(
                413, f"{name} is beyond the {MOST_BYTES:,} bytes of a request: send fewer or smaller ones"
            )
        try:
            return self.decode_base64(value) if is_text else bytes(value)
        except ValueError as error:
            raise RequestError(400, f"{name} is not base64 text") from error

    def _count_pixels(self, image: Image.Image, name: str):
        self.pixels += image.width * image.height
        if self.pixels > MOST_PIXELS:
            raise RequestError(
                413,
                f"{name}, {image.width} x {image.height} px, is beyond the {MOST_PIXELS:,} pixels of a request: send "
                "fewer or smaller ones",
            )


class FeatureExtractor:
    """Compute the three features of images, as lists."""

    def __init__(self, path: str, device: torch.device):
        self.model = AutoModel.from_pretrained(path, trust_remote_code=True).eval().to(device)
        self.processor = AutoImageProcessor.from_pretrained(path, trust_remote_code=True)

    def __call__(
        self, images: list[Image.Image], batch_size: int, detect: bool = False
    ) -> list[dict[str, list[float]]]:
        inputs = self.processor(images, detect=detect, most_faces=1, return_tensors="pt")
        outputs = self.model(inputs["pixel_values"].to(self.model.device, self.model.dtype))
        columns = {name: outputs[key].float().tolist() for name, key in FEATURES.items()}
        columns |= {"box": inputs["boxes"].tolist()} if detect else {}
        return [dict(zip(columns, row)) for row in zip(*columns.values())]


def list_tasks(config) -> list[str]:
    """List the tasks that a model supports, the default one first."""
    pipelines = [task for task in config.custom_pipelines if task != "image-feature-extraction"]
    is_head = any(name.startswith("PCLFor") and name != "PCLForPreTraining" for name in config.architectures or [])
    return pipelines if is_head else ["features", *pipelines]


def is_finite(answer: Any) -> bool:
    """Return whether all numbers in an answer are finite."""
    if isinstance(answer, dict):
        return all(map(is_finite, answer.values()))
    if isinstance(answer, list):
        return all(map(is_finite, answer))
    return not isinstance(answer, float) or math.isfinite(answer)


def shorten(value: Any) -> str:
    """Represent a value from the client, shortened for an error message."""
    return textwrap.shorten(reprlib.repr(value), 80, placeholder="...")


def encode_pictures(answer: Any) -> Any:
    """Replace the pictures in an answer by the base64 text of PNG files."""
    if isinstance(answer, Image.Image):
        return {"image": to_png(answer)}
    if isinstance(answer, dict):
        return {key: to_png(value) if isinstance(value, Image.Image) else value for key, value in answer.items()}
    return answer


def to_png(image: Image.Image) -> str:
    """Encode an image as a PNG file in base64."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
