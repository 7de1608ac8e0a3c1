"""Pipelines of what PCL models can do, all of which open images as training did."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F
from transformers import ImageClassificationPipeline, ImageFeatureExtractionPipeline, Pipeline

from .features_pcl import READABLE_FEATURES, feature_parts, read_feature
from .head_pose_pcl import axes_in_image
from .images_pcl import open_image

AXIS_COLOURS = {"left": (214, 39, 40), "top": (44, 160, 44), "nose": (31, 119, 180)}  # Red, green, blue.
AXIS_SHARE, AXIS_WIDTH_SHARE, OVERSAMPLING, MOST_CANVAS_PX = 0.45, 0.02, 4, 4096


def draw_axes(image: Image.Image, yaw_deg: float, pitch_deg: float, roll_deg: float) -> Image.Image:
    """Draw on a face which way its head is turned.

    Args:
        image: The face; the axes stand in its middle.
        yaw_deg: The nose to the right of the image is positive.
        pitch_deg: The nose up is positive.
        roll_deg: Leaning clockwise is positive.

    Returns:
        An RGB picture of the same size: red out of the person's left ear, green out of the top of the head, blue out of
        the face, each as long as 0.45 of the shorter side where it lies in the image's plane.
    """
    shorter = min(image.size)
    finer = max(1, min(OVERSAMPLING, MOST_CANVAS_PX // max(image.size)))
    canvas = Image.new("RGBA", (image.width * finer, image.height * finer))
    pen = ImageDraw.Draw(canvas)
    middle = canvas.width / 2, canvas.height / 2
    width = max(finer, round(AXIS_WIDTH_SHARE * shorter * finer))
    for name, (right, down) in axes_in_image(yaw_deg, pitch_deg, roll_deg).items():
        length = AXIS_SHARE * shorter * finer
        end = middle[0] + length * right, middle[1] + length * down
        pen.line((*middle, *end), fill=(*AXIS_COLOURS[name], 255), width=width)
        pen.circle(end, width, fill=(*AXIS_COLOURS[name], 255))
    over = canvas.resize(image.size, Image.Resampling.LANCZOS)
    return Image.alpha_composite(image.convert("RGBA"), over).convert("RGB")


class ForPCLModels:
    """What all pipelines here have in common: a model that is none of theirs is refused before it answers nonsense.

    Attributes:
        models: Names of the classes of models that a pipeline can use. The classes themselves are others for code that
            comes from a saved folder.
    """

    models: tuple[str, ...]
    _load_video_processor = False  # To look for one transformers would ask to trust the folder's code.

    def __init__(self, model, *args, **kwargs):
        check_model(type(self).__name__, model, self.models)
        super().__init__(model, *args, **kwargs)


def check_model(pipeline: str, model: Any, names: tuple[str, ...]):
    """Refuse a model that is of none of the classes named, wrapped by torch.compile or PEFT or not.

    Raises:
        ValueError: If it is of another class.
    """
    model = getattr(model, "_orig_mod", model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not any(kind.__name__ in names for kind in type(model).__mro__):
        raise ValueError(f"`model` of a {pipeline} must be a {' or '.join(names)}, got a {type(model).__name__}.")


class FaceClassificationPipeline(ForPCLModels, ImageClassificationPipeline):
    """transformers' own for `image-classification`, which also takes bytes and `pathlib` paths.

    transformers itself opens a file before the processor sees it, and then 16-bit images are white, and what is
    transparent is black.

    Raises:
        ValueError: If the model has no head.
    """

    models = ("PCLForImageClassification", "PCLForHeadPoseEstimation")

    def preprocess(self, image: Any, timeout: float | None = None):
        is_array = isinstance(image, np.ndarray | torch.Tensor)
        return super().preprocess(image if is_array else open_image(image, timeout), timeout)


class FaceFeatureExtractionPipeline(ForPCLModels, ImageFeatureExtractionPipeline):
    """transformers' own for `image-feature-extraction`, of images opened as `FaceClassificationPipeline` does.

    Raises:
        ValueError: If the model is not the encoder alone; that of other models is their `base_model`.
    """

    models = ("PCLModel",)

    def preprocess(self, image: Any, timeout: float | None = None, **image_processor_kwargs):
        return super().preprocess(open_image(image, timeout), timeout, **image_processor_kwargs)


class PCLPipeline(ForPCLModels, Pipeline):
    """What the pipelines of one or two faces have in common: how images are opened, and one crop."""

    _load_tokenizer = False
    _load_image_processor = True
    _load_feature_extractor = False
    _load_processor = False

    def _open_pair(self, inputs: Any, names: tuple[str, str], timeout: float | None) -> list[Image.Image]:
        """Two images: a dict with these names, or a tuple in this order.

        Raises:
            ValueError: If they are not two.
        """
        if isinstance(inputs, dict) and set(inputs) == set(names):
            inputs = tuple(inputs[name] for name in names)
        if not isinstance(inputs, tuple) or len(inputs) != 2:
            raise ValueError(
                f"Give two images, as {{{names[0]!r}: ..., {names[1]!r}: ...}} or a tuple of them; several such pairs "
                "in a list."
            )
        return [open_image(image, timeout) for image in inputs]

    def _pixels(self, images: list[Image.Image]) -> dict[str, torch.Tensor]:
        return dict(self.image_processor(images, return_tensors="pt").to(self.dtype))


class HeadPoseEstimationPipeline(PCLPipeline):
    """Which way a head is turned, by a `PCLForHeadPoseEstimation`.

    Calling it with an image (as `open_image` takes it), or a list of them, gives for each a dict of `yaw`, `pitch` and
    `roll` in degrees: positive are the nose to the right of the image, the nose up, and leaning clockwise. With
    `draw=True` it also holds `image`, the face with the head's axes, see `draw_axes`.

    Example:
        ```python
        >>> estimate = pipeline("head-pose-estimation", "user/pcl-head-pose", trust_remote_code=True)
        >>> estimate("face.jpg")
        {'yaw': 12.4, 'pitch': -3.1, 'roll': 0.8}
        ```

    Raises:
        ValueError: If the model is another.
    """

    models = ("PCLForHeadPoseEstimation",)

    def _sanitize_parameters(self, draw: bool | None = None, timeout: float | None = None):
        before = {} if timeout is None else {"timeout": timeout}
        return before, {}, {} if draw is None else {"draw": draw}

    def preprocess(self, image: Any, timeout: float | None = None) -> dict:
        opened = open_image(image, timeout)
        return self._pixels([opened]) | {"image": opened}

    def _forward(self, inputs: dict) -> dict:
        return {"angles": self.model(inputs["pixel_values"]).logits, "image": inputs["image"]}

    def postprocess(self, outputs: dict, draw: bool = False) -> dict:
        yaw, pitch, roll = outputs["angles"][0].float().tolist()
        angles = {"yaw": yaw, "pitch": pitch, "roll": roll}
        return angles | {"image": draw_axes(outputs["image"], yaw, pitch, roll)} if draw else angles


class FaceVerificationPipeline(PCLPipeline):
    """Whether two images show the same person: the cosine of their features, or of their identity embeddings.

    Calling it with `{"image": ..., "other": ...}` or a tuple of two images, or a list of such, gives for each a dict of
    `similarity`, the cosine in [-1, 1], `threshold`, and `same`, whether the similarity is at least the threshold.

    Args:
        feature: `"trunk"`, `"face"`, `"pose"` or `"face+pose"`; by default the config's `verification_feature`. An
            identity embedding is compared as it is.
        threshold: By default the config's `verification_threshold`, which `pcl probe --task verification` finds
            and which holds for that feature. Where there is none, `threshold` and `same` are None.

    Raises:
        ValueError: If the model gives neither features nor an embedding: a head of classes, or of head pose.
    """

    models = ("PCLModel", "PCLForPreTraining", "PCLForImageClassification")

    def __init__(self, model, *args, **kwargs):
        super().__init__(model, *args, **kwargs)
        if hasattr(model, "classifier") and model.config.problem_type != "regression":
            raise ValueError(
                "`model` of a FaceVerificationPipeline must compare people, but this PCLForImageClassification tells "
                'classes apart: give its `base_model`, or an embedding, whose `problem_type` is "regression".'
            )

    def _sanitize_parameters(
        self, feature: str | None = None, threshold: float | None = None, timeout: float | None = None
    ):
        if feature is not None:
            feature_parts(feature)  # An unknown name is refused here, before an image is opened.
        before = {} if timeout is None else {"timeout": timeout}
        after = {name: value for name, value in (("feature", feature), ("threshold", threshold)) if value is not None}
        return before, {}, after

    def preprocess(self, pair: Any, timeout: float | None = None) -> dict:
        return self._pixels(self._open_pair(pair, ("image", "other"), timeout))

    def _forward(self, inputs: dict) -> dict:
        if hasattr(self.model, "classifier"):
            vectors = {"embedding": self.model(inputs["pixel_values"]).logits}
        else:
            outputs = self.model.base_model(inputs["pixel_values"])
            vectors = {name: read_feature(outputs, name) for name in READABLE_FEATURES}
        # Images of a pair follow each other, in batches too.
        pairs = {name: rows.float().unflatten(0, (-1, 2)) for name, rows in vectors.items()}
        return {name: F.cosine_similarity(pair[:, 0], pair[:, 1]) for name, pair in pairs.items()}

    def postprocess(self, outputs: dict, feature: str | None = None, threshold: float | None = None) -> dict:
        config = self.model.config
        if "embedding" in outputs:
            feature = "embedding"
        elif feature is None:
            feature = config.verification_feature
        if threshold is None and feature in ("embedding", config.verification_feature):
            threshold = config.verification_threshold
        similarity = outputs[feature].item()
        same = None if threshold is None else similarity >= threshold
        return {"similarity": similarity, "threshold": threshold, "same": same}


class FaceSwapPosePipeline(PCLPipeline):
    """The face of one image drawn in the pose of another, by a `PCLForPreTraining`.

    Calling it with `{"face": ..., "pose": ...}` or a tuple of two images, or a list of such, gives for each an image of
    `config.drawn_size` px. It shows what the model keeps apart, not a photo of anybody.

    Raises:
        ValueError: If the model is another.
    """

    models = ("PCLForPreTraining",)

    def _sanitize_parameters(self, timeout: float | None = None):
        return {} if timeout is None else {"timeout": timeout}, {}, {}

    def preprocess(self, pair: Any, timeout: float | None = None) -> dict:
        return self._pixels(self._open_pair(pair, ("face", "pose"), timeout))

    def _forward(self, inputs: dict) -> dict:
        outputs = self.model.pcl(inputs["pixel_values"])
        faces, poses = outputs.face_features[0::2], outputs.pose_features[1::2]
        return {"images": self.model.decode(faces, poses)}

    def postprocess(self, outputs: dict) -> Image.Image:
        pixels = outputs["images"][0].float().clamp(0, 1).permute(1, 2, 0).mul(255).round().byte()
        return Image.fromarray(pixels.cpu().numpy())


def saved_pipelines(**pipelines: str) -> dict[str, dict]:
    """How a config names them, by task, for `pipeline(task, folder, trust_remote_code=True)` without this package.

    Args:
        **pipelines: Name of the Auto class that opens the folder, by the name of the pipeline's class.
    """
    return {
        PIPELINES[name][0]: {"impl": f"pipelines_pcl.{name}", "pt": [auto_class], "type": "image"}
        for name, auto_class in pipelines.items()
    }


def for_all_models(ours: type, theirs: type) -> type:
    """A class of pipelines for a standard task, which makes `ours` for PCL models and `theirs` for all others."""

    def make(cls, model, *arguments, **options):
        is_ours = getattr(model.config, "model_type", None) == "pcl"
        return (ours if is_ours else theirs)(model, *arguments, **options)

    attributes = {"__new__": make, "__doc__": theirs.__doc__, "_load_video_processor": False}
    return type(theirs.__name__, (theirs,), attributes)


# By task, the pipelines of transformers that ours stand in for.
STANDARD = {
    "image-classification": ImageClassificationPipeline,
    "image-feature-extraction": ImageFeatureExtractionPipeline,
}
# By class: its task, and the Auto class that opens its model.
PIPELINES = {
    "FaceClassificationPipeline": ("image-classification", "AutoModelForImageClassification"),
    "FaceFeatureExtractionPipeline": ("image-feature-extraction", "AutoModel"),
    "FaceSwapPosePipeline": ("face-swap-pose", "AutoModelForPreTraining"),
    "FaceVerificationPipeline": ("face-verification", "AutoModel"),
    "HeadPoseEstimationPipeline": ("head-pose-estimation", "AutoModelForImageClassification"),
}

__all__ = [
    "FaceClassificationPipeline",
    "FaceFeatureExtractionPipeline",
    "FaceSwapPosePipeline",
    "FaceVerificationPipeline",
    "HeadPoseEstimationPipeline",
    "draw_axes",
]
