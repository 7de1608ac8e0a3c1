"""For Inference Endpoints: faces in, JSON out.

    {"inputs": "<base64 of a JPEG, PNG or WebP>"}
    {"inputs": ["<base64>", "<base64>"], "parameters": {"draw": true}}
    {"inputs": {"image": "<base64>", "other": "<base64>"}, "parameters": {"task": "face-verification"}}

An image may also be the raw bytes of a request, or a data URI. No URL is fetched, nothing is stored. `task` chooses
among what the model can do; the first that is in this list is done without it:

    features                `PCLModel`, `PCLForPreTraining`: {"trunk": [...], "face": [...], "pose": [...]}
    image-classification    `PCLForImageClassification`: [{"label": ..., "score": ...}]; parameter `top_k`
    head-pose-estimation    {"yaw": ..., "pitch": ..., "roll": ...} in degrees; parameter `draw`
    face-verification       {"similarity": ..., "threshold": ..., "same": ...}; parameters `feature`, `threshold`;
                            a feature is trunk, face, pose, or face+pose, the last two side by side
    face-swap-pose          on request, {"face": ..., "pose": ...} in, {"image": "<base64 of a PNG>"} out

What cannot be answered raises `RequestError`, whose text begins with an HTTP status and says what to change; the
service sends it as the `error` of its answer.
"""

import base64
import binascii
import io
import warnings
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, pipeline

FORMATS = ("JPEG", "PNG", "WEBP")
MOST_IMAGES, MOST_BYTES, MOST_PIXELS = 64, 10 * 2**20, 40_000_000
FEATURES = {"trunk": "pooler_output", "face": "face_features", "pose": "pose_features"}
PAIRS = {"face-verification": ("image", "other"), "face-swap-pose": ("face", "pose")}
PARAMETERS = {
    "features": {},
    "image-classification": {"top_k": int},
    "head-pose-estimation": {"draw": bool},
    "face-verification": {"feature": str, "threshold": float | int},
    "face-swap-pose": {},
}


class RequestError(ValueError):
    """What a client can mend.

    Args:
        status: An HTTP status, 400 to 499.
        message: What is wrong and what to send instead.
    """

    def __init__(self, status: int, message: str):
        super().__init__(f"{status}: {message}")
        self.status = status


class EndpointHandler:
    """Answers requests with one model.

    Args:
        path: Folder of the repository.
    """

    def __init__(self, path: str = "."):
        self.path = str(path)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        config = AutoConfig.from_pretrained(self.path, trust_remote_code=True)
        self.tasks = served_tasks(config)
        self.runners = {self.tasks[0]: self._open(self.tasks[0])}

    def __call__(self, data: dict[str, Any]) -> Any:
        """Answer one request.

        Args:
            data: `inputs`: an image, a pair, or a list of either; `parameters`: `task` and that task's own.

        Returns:
            JSON-serialisable: an answer, or for a list as many answers in the same order.

        Raises:
            RequestError: 400 for what is no request of this model, 413 for what is too large, 415 for what is no image,
                422 for a parameter with a wrong value.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise RequestError(400, 'the request must be {"inputs": ..., "parameters": {...}}')
        task, parameters = self._checked(data.get("parameters") or {})
        inputs = data["inputs"]
        if not isinstance(inputs, list):
            return self._answer(task, [read(inputs, task, "the image")], parameters)[0]
        if not 1 <= len(inputs) <= MOST_IMAGES:
            raise RequestError(413, f"a request takes 1 to {MOST_IMAGES} inputs, got {len(inputs)}")
        opened = [read(value, task, f"input {number}") for number, value in enumerate(inputs)]
        return self._answer(task, opened, parameters)

    def _checked(self, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if not isinstance(parameters, dict):
            raise RequestError(422, "`parameters` must be an object")
        parameters = dict(parameters)
        task = parameters.pop("task", self.tasks[0])
        if task not in self.tasks:
            raise RequestError(
                422, f"`task` must be one of {', '.join(self.tasks)}, which this model does; got {task!r}"
            )
        for name, value in parameters.items():
            kind = PARAMETERS[task].get(name)
            if kind is None:
                known = ", ".join(["task", *PARAMETERS[task]])
                raise RequestError(422, f"{task} has no parameter `{name}`; it has {known}")
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise RequestError(422, f"`{name}` must be {getattr(kind, '__name__', 'a number')}, got {value!r}")
        return task, parameters

    def _open(self, task: str):
        options = {"trust_remote_code": True, "device": self.device}
        return Features(self.path, self.device) if task == "features" else pipeline(task, self.path, **options)

    def _answer(self, task: str, inputs: list, parameters: dict[str, Any]) -> list:
        if task not in self.runners:
            self.runners[task] = self._open(task)
        try:
            with torch.inference_mode():
                answers = self.runners[task](inputs, batch_size=len(inputs), **parameters)
        except ValueError as error:  # Of a parameter's value; the images are known to be good.
            raise RequestError(422, str(error)) from error
        return [encoded(answer) for answer in answers]


class Features:
    """The three features of images, as lists."""

    def __init__(self, path: str, device: torch.device):
        self.model = AutoModel.from_pretrained(path, trust_remote_code=True).eval().to(device)
        self.processor = AutoImageProcessor.from_pretrained(path, trust_remote_code=True)

    def __call__(self, images: list[Image.Image], batch_size: int) -> list[dict[str, list[float]]]:
        pixels = self.processor(images, return_tensors="pt").to(self.model.device, self.model.dtype)
        outputs = self.model(**pixels)
        rows = {name: outputs[key].float().tolist() for name, key in FEATURES.items()}
        return [dict(zip(rows, values)) for values in zip(*rows.values())]


def served_tasks(config) -> list[str]:
    """What a model can do, the one that it does unasked first."""
    pipelines = [task for task in config.custom_pipelines if task != "image-feature-extraction"]
    is_head = any(name.startswith("PCLFor") and name != "PCLForPreTraining" for name in config.architectures or [])
    return pipelines if is_head else ["features", *pipelines]


def read(value: Any, task: str, name: str) -> Image.Image | dict[str, Image.Image]:
    """Open what stands for an image, or for a task of pairs for two."""
    pair = PAIRS.get(task)
    if pair is None:
        return open_image(value, name)
    if not isinstance(value, dict) or set(value) != set(pair):
        raise RequestError(400, f'{name}: {task} takes {{"{pair[0]}": ..., "{pair[1]}": ...}}')
    return {key: open_image(value[key], f"{name}, `{key}`") for key in pair}


def open_image(value: Any, name: str) -> Image.Image:
    """Open an image without fetching or trusting anything; the model's own code makes pixels of it."""
    if isinstance(value, Image.Image):  # The service has opened a request whose content is an image.
        return loaded(value, name)
    content = value if isinstance(value, bytes) else from_base64(value, name)
    if len(content) > MOST_BYTES:
        raise RequestError(413, f"{name} has {len(content):,} bytes, at most {MOST_BYTES:,} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # The limit here is lower, and refused.
            return loaded(Image.open(io.BytesIO(content), formats=FORMATS), name)
    except RequestError:  # It is a ValueError too.
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RequestError(415, f"{name} is not a whole image in {', '.join(FORMATS)}") from error


def from_base64(value: Any, name: str) -> bytes:
    if not isinstance(value, str):
        raise RequestError(400, f"{name} must be base64 text or bytes, got {type(value).__name__}")
    if value.startswith(("http://", "https://")):
        raise RequestError(400, f"{name} is a URL, and none is fetched: send the image itself, in base64")
    if len(value) > MOST_BYTES * 4 // 3 + 100:
        raise RequestError(413, f"{name} is larger than {MOST_BYTES:,} bytes")
    try:
        return base64.b64decode(value.partition("base64,")[2] if value.startswith("data:") else value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, f"{name} is not base64 text") from error


def loaded(image: Image.Image, name: str) -> Image.Image:
    """Decode an image that is not too large."""
    if image.width * image.height > MOST_PIXELS:
        raise RequestError(413, f"{name} is {image.width} x {image.height} px, at most {MOST_PIXELS:,} pixels are read")
    image.load()
    return image


def encoded(answer: Any) -> Any:
    """An answer with its pictures as base64 of PNG files."""
    if isinstance(answer, Image.Image):
        return {"image": to_png(answer)}
    if isinstance(answer, dict):
        return {key: to_png(value) if isinstance(value, Image.Image) else value for key, value in answer.items()}
    return answer


def to_png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
