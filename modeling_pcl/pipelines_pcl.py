"""Pipelines for PCL models. They open images in the same way as training does."""

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
from .swap_pcl import split_for_swap


class ForPCLModels:
    """Mixin of all pipelines for PCL models, which checks the class of the model and opens images.

    Attributes:
        models: Names of the model classes that a pipeline supports. They are names and not classes, because the same
            class is another object if its code comes from a saved folder.
    """

    models: tuple[str, ...]
    photo_options = ("detect", "on_no_face", "timeout")  # Parameters of `preprocess`; the others are of `postprocess`.
    _load_video_processor = False  # Looking for a video processor would ask for `trust_remote_code`.

    def __init__(self, model, *args, **kwargs):
        check_model(type(self).__name__, model, self.models)
        super().__init__(model, *args, **kwargs)

    def _open_face(
        self, image: Any, timeout: float | None = None, detect: bool = False, on_no_face: str = "error"
    ) -> CutFace:
        """Open a face crop, or with `detect` cut the largest face out of a photo with the model's image processor.

        Raises:
            NoFaceError: If a photo has no face, unless `on_no_face="whole"` uses such a photo as a face crop.
            ValueError: If `on_no_face` has another value.
        """
        opened = open_image(image, timeout)
        if not detect:
            return CutFace.from_whole_photo(opened)
        if on_no_face not in ("error", "whole"):
            raise ValueError(f'`on_no_face` must be "error" or "whole": each image has an answer; got {on_no_face!r}.')
        (face,) = self.image_processor.cut_faces(opened, on_no_face=on_no_face, most_faces=1)
        return face


def check_model(pipeline: str, model: Any, names: tuple[str, ...]):
    """Check that a model, which torch.compile or PEFT may have wrapped, is an instance of one of the named classes.

    Args:
        pipeline: Name of the pipeline, for the error message.
        model: The model.
        names: Names of the supported classes.

    Raises:
        ValueError: If the model is of another class.
    """
    model = getattr(model, "_orig_mod", model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not any(kind.__name__ in names for kind in type(model).__mro__):
        raise ValueError(f"`model` of a {pipeline} must be a {' or '.join(names)}, got a {type(model).__name__}.")


class FaceClassificationPipeline(ForPCLModels, ImageClassificationPipeline):
    """Image classification pipeline that opens images as training does, and also takes bytes and `pathlib` paths.

    The pipeline of transformers opens files itself, and turns 16-bit images white and transparent pixels black.
    With `detect=True` the image is a photo, its largest face is classified, and each label also has the `box` of the
    face. For a regression head, `label` is the name of the quantity and `score` its value.

    Raises:
        ValueError: If the model has no head.
    """

    models = ("PCLForImageClassification", "PCLForHeadPoseEstimation")

    def _sanitize_parameters(self, **options):
        photo_options = {name: options.pop(name) for name in self.photo_options if name in options}
        preprocess, forward, postprocess = super()._sanitize_parameters(**options)
        return preprocess | photo_options, forward, postprocess

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
    """Image feature extraction pipeline that opens images as training does, see `FaceClassificationPipeline`.

    Raises:
        ValueError: If the model is not a `PCLModel`. The encoder of other models is their `base_model`.
    """

    models = ("PCLModel",)

    def preprocess(self, image: Any, timeout: float | None = None, **image_processor_kwargs):
        return super().preprocess(open_image(image, timeout), timeout, **image_processor_kwargs)


class PCLPipeline(ForPCLModels, Pipeline):
    """Base class of the pipelines that transformers does not have: head pose, verification and swaps."""

    _load_tokenizer = False
    _load_image_processor = True
    _load_feature_extractor = False
    _load_processor = False

    def _open_pair(self, inputs: Any, names: tuple[str, str], **options) -> list[CutFace]:
        """Open two images with `_open_face`, from a dict with these names as keys or a tuple in this order.

        Raises:
            ValueError: If `inputs` is not such a pair.
        """
        if isinstance(inputs, dict) and set(inputs) == set(names):
            inputs = tuple(inputs[name] for name in names)
        if not isinstance(inputs, tuple) or len(inputs) != 2:
            raise ValueError(
                f"Give two images, as {{{names[0]!r}: ..., {names[1]!r}: ...}} or a tuple of them; several such pairs "
                "in a list."
            )
        return [self._open_face(image, **options) for image in inputs]

    def _process(self, faces: list[CutFace]) -> dict[str, torch.Tensor]:
        return dict(self.image_processor([face.image for face in faces], return_tensors="pt").to(self.dtype))

    def _split_options(self, options: dict) -> tuple[dict, dict]:
        """Split the parameters into those of `preprocess` and those of `postprocess`."""
        return (
            {name: value for name, value in options.items() if name in self.photo_options},
            {name: value for name, value in options.items() if name not in self.photo_options},
        )


class HeadPoseEstimationPipeline(PCLPipeline):
    """Head pose estimation with a `PCLForHeadPoseEstimation`.

    For an image (anything that `open_image` opens) it returns a dict of `yaw`, `pitch` and `roll` in degrees, which are
    positive if the nose points to the right of the image, if the nose points up, and if the head leans clockwise. For a
    list of images it returns a list. With `draw=True` the dict also holds `image`, the image with the axes of the head,
    see `draw_axes`. With `detect=True` the image is a photo: the angles of its largest face are relative to the photo,
    and the dict also holds the `box` of that face.

    Example:
        ```python
        >>> estimate = pipeline("head-pose-estimation", "user/pcl-head-pose", trust_remote_code=True)
        >>> estimate("face.jpg")
        {'yaw': 12.4, 'pitch': -3.1, 'roll': 0.8}
        ```

    Raises:
        ValueError: If the model is of another class.
    """

    models = ("PCLForHeadPoseEstimation",)

    def _sanitize_parameters(self, **options):
        preprocess, postprocess = self._split_options(options)
        return preprocess, {}, postprocess

    def preprocess(self, image: Any, **options) -> dict:
        opened = open_image(image, options.pop("timeout", None))
        face = self._open_face(opened, **options)
        return self._process([face]) | {"photo": opened, "face": face, "is_detected": options.get("detect", False)}

    def _forward(self, inputs: dict) -> dict:
        return inputs | {"angles": self.model(inputs["pixel_values"]).logits}

    def postprocess(self, outputs: dict, draw: bool = False) -> dict:
        angles, square = outputs["angles"][0].float().tolist(), outputs["face"].square
        if square is not None and square.angle_deg:  # The model saw the rotated square; answer for the photo.
            angles = turn_back(*angles, square.angle_deg)
        answer = dict(zip(ANGLES, angles))
        box = outputs["face"].box.tolist() if outputs["is_detected"] else None
        if draw:
            answer["image"] = draw_axes(outputs["photo"], *angles, box=box)
        return answer | ({"box": box} if box else {})


class FaceVerificationPipeline(PCLPipeline):
    """Face verification: whether two images show the same person, by the cosine of their features or embeddings.

    For a pair, `{"image": ..., "other": ...}` or a tuple of two images, it returns a dict of `similarity`, the cosine
    in [-1, 1], `threshold`, and `same`, whether the similarity is at least the threshold. For a list of pairs it
    returns a list. With `detect=True` the images are photos: their largest faces are compared, and the dict also holds
    their `boxes`.

    Args:
        feature: Feature of an encoder to compare: `"trunk"`, `"face"`, `"pose"` or `"face+pose"`; None uses the
            config's `verification_feature`. Models with an identity embedding ignore it.
        threshold: Smallest cosine that counts as the same person; None uses the config's `verification_threshold`,
            which `pcl probe --task verification` determines for that feature. Without any, `threshold` and `same` are
            None.

    Raises:
        ValueError: If the model computes neither features nor an embedding, as classification and head-pose heads.
    """

    models = ("PCLModel", "PCLForPreTraining", "PCLForImageClassification")

    def __init__(self, model, *args, **kwargs):
        super().__init__(model, *args, **kwargs)
        if hasattr(model, "classifier") and not model.config.is_embedding:
            raise ValueError(
                "`model` of a FaceVerificationPipeline must have features or an identity embedding, but this "
                "PCLForImageClassification predicts classes or a number: give its `base_model`, or a model with "
                'several labels whose `problem_type` is "regression".'
            )

    def _sanitize_parameters(self, **options):
        preprocess, postprocess = self._split_options(options)
        if postprocess.get("feature") is not None:
            feature_parts(postprocess["feature"])  # Raises for an unknown name before images are opened.
        return preprocess, {}, postprocess

    def preprocess(self, pair: Any, **options) -> dict:
        faces = self._open_pair(pair, ("image", "other"), **options)
        return self._process(faces) | ({"faces": faces} if options.get("detect") else {})

    def _forward(self, inputs: dict) -> dict:
        if hasattr(self.model, "classifier"):
            vectors = {"embedding": self.model(inputs["pixel_values"]).logits}
        else:
            outputs = self.model.base_model(inputs["pixel_values"])
            vectors = {name: read_feature(outputs, name) for name in READABLE_FEATURES}
        # The two images of a pair are consecutive rows, also in batches: (2 * pairs, dim) -> (pairs, 2, dim)
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
    """Drawing of the face of one image in the pose of another with a `PCLForPreTraining`.

    For a pair, `{"face": ..., "pose": ...}` or a tuple of two images, it returns an image of `config.drawn_size` px;
    for a list of pairs it returns a list. The image shows what the two features contain; it is not a photo of a
    person. With `exchange="turn"`, only the side to which the head is turned and tilted is taken from the second image,
    see `split_for_swap`. With `detect=True` the images are photos, of which the largest faces are used.

    Raises:
        ValueError: If the model is of another class, or `exchange` is neither `pose` nor `turn`.
    """

    models = ("PCLForPreTraining",)

    def _sanitize_parameters(self, exchange: str | None = None, **options):
        preprocess, postprocess = self._split_options(options)
        return preprocess, {} if exchange is None else {"exchange": exchange}, postprocess

    def preprocess(self, pair: Any, **options) -> dict:
        return self._process(self._open_pair(pair, ("face", "pose"), **options))

    def _forward(self, inputs: dict, exchange: str = "pose") -> dict:
        kept, exchanged = split_for_swap(self.model.pcl, inputs["pixel_values"], exchange)
        return {"images": self.model.decode(kept[0::2], exchanged[1::2])}

    def postprocess(self, outputs: dict) -> Image.Image:
        pixels = outputs["images"][0].float().clamp(0, 1).permute(1, 2, 0).mul(255).round().byte()
        return Image.fromarray(pixels.cpu().numpy())


def describe_pipelines(**pipelines: str) -> dict[str, dict]:
    """Build the entry `custom_pipelines` of a config.

    transformers reads it for `pipeline(task, folder, trust_remote_code=True)` where this package is not installed.

    Args:
        **pipelines: Name of the Auto class that opens the folder, for each name of a pipeline class.
    """
    return {
        PIPELINES[name][0]: {"impl": f"pipelines_pcl.{name}", "pt": [auto_class], "type": "image"}
        for name, auto_class in pipelines.items()
    }


def dispatch_by_model_type(pcl_class: type, default_class: type) -> type:
    """Derive a pipeline class that builds a `pcl_class` for PCL models and a `default_class` for all other models."""

    def build(cls, model, *arguments, **options):
        is_pcl = getattr(model.config, "model_type", None) == "pcl"
        return (pcl_class if is_pcl else default_class)(model, *arguments, **options)

    attributes = {"__new__": build, "__doc__": default_class.__doc__, "_load_video_processor": False}
    return type(default_class.__name__, (default_class,), attributes)


# Pipeline classes of transformers, by task, that `register` replaces for PCL models.
STANDARD = {
    "image-classification": ImageClassificationPipeline,
    "image-feature-extraction": ImageFeatureExtractionPipeline,
}
# Task and Auto class of the model, by name of the pipeline class.
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
