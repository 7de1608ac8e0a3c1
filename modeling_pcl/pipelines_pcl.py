"""Pipelines of what PCL models can do, all of which open images as training did."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import ImageClassificationPipeline, ImageFeatureExtractionPipeline, Pipeline
from transformers.modeling_outputs import ImageClassifierOutput

from .faces_pcl import CutFace
from .features_pcl import READABLE_FEATURES, feature_parts, read_feature
from .head_pose_pcl import ANGLES, draw_axes, turn_back
from .images_pcl import open_image


class ForPCLModels:
    """What all pipelines here have in common: a model that is none of theirs is refused before it answers nonsense.

    Attributes:
        models: Names of the classes of models that a pipeline can use. The classes themselves are others for code that
            comes from a saved folder.
    """

    models: tuple[str, ...]
    photo_options = ("detect", "on_no_face", "timeout")  # What is said of the images, and not of the answer.
    _load_video_processor = False  # To look for one transformers would ask to trust the folder's code.

    def __init__(self, model, *args, **kwargs):
        check_model(type(self).__name__, model, self.models)
        super().__init__(model, *args, **kwargs)

    def _open_face(
        self, image: Any, timeout: float | None = None, detect: bool = False, on_no_face: str = "error"
    ) -> CutFace:
        """Open an image: a face crop, or with `detect` the largest face of a photo, cut out as the model's processor
        says; a photo without a face is an error, or with `on_no_face="whole"` a face crop."""
        opened = open_image(image, timeout)
        if not detect:
            return CutFace.whole(opened)
        if on_no_face not in ("error", "whole"):
            raise ValueError(f'`on_no_face` must be "error" or "whole": each image has an answer; got {on_no_face!r}.')
        (face,) = self.image_processor.cut_faces(opened, on_no_face=on_no_face, most_faces=1)
        return face


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
    transparent is black. With `detect=True` the image is a photo, of which the largest face is looked at, and each
    label also has its `box`. Of a head that tells a number, the `label` is its name and the `score` the number.

    Raises:
        ValueError: If the model has no head.
    """

    models = ("PCLForImageClassification", "PCLForHeadPoseEstimation")

    def _sanitize_parameters(self, **options):
        of_photo = {name: options.pop(name) for name in self.photo_options if name in options}
        before, during, after = super()._sanitize_parameters(**options)
        return before | of_photo, during, after

    def preprocess(self, image: Any, timeout: float | None = None, detect: bool = False, on_no_face: str = "error"):
        if isinstance(image, np.ndarray | torch.Tensor) and not detect:
            return super().preprocess(image, timeout)
        face = self._open_face(image, timeout, detect, on_no_face)
        return dict(super().preprocess(face.image, timeout)) | ({"face": face} if detect else {})

    def _forward(self, inputs: dict):
        face = inputs.pop("face", None)
        outputs = super()._forward(inputs)
        return outputs if face is None else {"logits": outputs.logits, "face": face}

    def postprocess(self, outputs, **options) -> list[dict]:
        if "face" not in outputs:
            return super().postprocess(outputs, **options)
        labels = super().postprocess(ImageClassifierOutput(logits=outputs["logits"]), **options)
        return [label | {"box": outputs["face"].box.tolist()} for label in labels]


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

    def _open_pair(self, inputs: Any, names: tuple[str, str], **options) -> list[CutFace]:
        """Two images, opened by `_open_face`: a dict with these names, or a tuple in this order.

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
        return [self._open_face(image, **options) for image in inputs]

    def _pixels(self, faces: list[CutFace]) -> dict[str, torch.Tensor]:
        return dict(self.image_processor([face.image for face in faces], return_tensors="pt").to(self.dtype))

    def _split(self, options: dict) -> tuple[dict, dict]:
        """Options of the images, and those of the answer."""
        return (
            {name: value for name, value in options.items() if name in self.photo_options},
            {name: value for name, value in options.items() if name not in self.photo_options},
        )


class HeadPoseEstimationPipeline(PCLPipeline):
    """Which way a head is turned, by a `PCLForHeadPoseEstimation`.

    Calling it with an image (as `open_image` takes it), or a list of them, gives for each a dict of `yaw`, `pitch` and
    `roll` in degrees: positive are the nose to the right of the image, the nose up, and leaning clockwise. With
    `draw=True` it also holds `image`, the image with the head's axes, see `draw_axes`. With `detect=True` the image is
    a photo, of which the largest face is looked at; the answer also holds its `box`, and says how the head is turned in
    the photo.

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

    def _sanitize_parameters(self, **options):
        before, after = self._split(options)
        return before, {}, after

    def preprocess(self, image: Any, **options) -> dict:
        opened = open_image(image, options.pop("timeout", None))
        face = self._open_face(opened, **options)
        return self._pixels([face]) | {"photo": opened, "face": face, "is_found": options.get("detect", False)}

    def _forward(self, inputs: dict) -> dict:
        return inputs | {"angles": self.model(inputs["pixel_values"]).logits}

    def postprocess(self, outputs: dict, draw: bool = False) -> dict:
        angles, square = outputs["angles"][0].float().tolist(), outputs["face"].square
        if square is not None and square.angle_deg:
            angles = turn_back(*angles, square.angle_deg)
        answer = dict(zip(ANGLES, angles))
        box = outputs["face"].box.tolist() if outputs["is_found"] else None
        if draw:
            answer["image"] = draw_axes(outputs["photo"], *angles, box=box)
        return answer | ({"box": box} if box else {})


class FaceVerificationPipeline(PCLPipeline):
    """Whether two images show the same person: the cosine of their features, or of their identity embeddings.

    Calling it with `{"image": ..., "other": ...}` or a tuple of two images, or a list of such, gives for each a dict of
    `similarity`, the cosine in [-1, 1], `threshold`, and `same`, whether the similarity is at least the threshold. With
    `detect=True` they are photos, of which the largest faces are compared; the answer also holds both `boxes`.

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
        if hasattr(model, "classifier") and not model.config.is_embedding:
            raise ValueError(
                "`model` of a FaceVerificationPipeline must compare people, but this PCLForImageClassification tells "
                "classes apart, or a number: give its `base_model`, or an embedding, whose `problem_type` is "
                '"regression".'
            )

    def _sanitize_parameters(self, **options):
        before, after = self._split(options)
        if after.get("feature") is not None:
            feature_parts(after["feature"])  # An unknown name is refused here, before an image is opened.
        return before, {}, after

    def preprocess(self, pair: Any, **options) -> dict:
        faces = self._open_pair(pair, ("image", "other"), **options)
        return self._pixels(faces) | ({"faces": faces} if options.get("detect") else {})

    def _forward(self, inputs: dict) -> dict:
        if hasattr(self.model, "classifier"):
            vectors = {"embedding": self.model(inputs["pixel_values"]).logits}
        else:
            outputs = self.model.base_model(inputs["pixel_values"])
            vectors = {name: read_feature(outputs, name) for name in READABLE_FEATURES}
        # Images of a pair follow each other, in batches too.
        pairs = {name: rows.float().unflatten(0, (-1, 2)) for name, rows in vectors.items()}
        cosines = {name: F.cosine_similarity(pair[:, 0], pair[:, 1]) for name, pair in pairs.items()}
        return cosines | ({"faces": inputs["faces"]} if "faces" in inputs else {})

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
        answer = {"similarity": similarity, "threshold": threshold, "same": same}
        if "faces" in outputs:
            answer["boxes"] = [face.box.tolist() for face in outputs["faces"]]
        return answer


class FaceSwapPosePipeline(PCLPipeline):
    """The face of one image drawn in the pose of another, by a `PCLForPreTraining`.

    Calling it with `{"face": ..., "pose": ...}` or a tuple of two images, or a list of such, gives for each an image of
    `config.drawn_size` px. It shows what the model keeps apart, not a photo of anybody. With `detect=True` they are
    photos, of which the largest faces are taken.

    Raises:
        ValueError: If the model is another.
    """

    models = ("PCLForPreTraining",)

    def _sanitize_parameters(self, **options):
        before, after = self._split(options)
        return before, {}, after

    def preprocess(self, pair: Any, **options) -> dict:
        return self._pixels(self._open_pair(pair, ("face", "pose"), **options))

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
]
