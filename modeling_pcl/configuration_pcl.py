"""PCL model configuration."""

import math
from dataclasses import field
from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin

OBJECTIVES = ("disentangling", "face_contrast", "pose_contrast")  # In the order of the paper's three optimizer steps.
SMALLEST_PX = 32  # Smallest image side that the encoder accepts; its trunk map is then 2x2.
# The whole map is on the config, so that `AutoModel` also opens a pre-training checkpoint.
AUTO_MAP = {
    "AutoConfig": "configuration_pcl.PCLConfig",
    "AutoModel": "modeling_pcl.PCLModel",
    "AutoBackbone": "modeling_pcl.PCLBackbone",
    "AutoModelForPreTraining": "modeling_pcl.PCLForPreTraining",
    "AutoModelForImageClassification": "modeling_pcl.PCLForImageClassification",
    "AutoImageProcessor": "image_processing_pcl.PCLImageProcessor",
}


# True if this file was loaded as remote code from a saved folder, False if it is part of the installed package.
IS_REMOTE_CODE = __name__.startswith("transformers_modules.")


class OfferedPipelines(dict):
    """Pipelines of a saved folder by task, adapted to the way in which transformers' `pipeline` reads this dict.

    `pipeline(model=...)` infers the task only if `len()` is 1, so this dict reports a length of 1 and lists the task
    that the model is meant for first. `pipeline(task, ...)` asks for `trust_remote_code` if `task in` this dict, so
    the installed package, which registers the same pipelines itself, reports that no task is in it.
    """

    def keys(self) -> list[str]:
        return sorted(super().keys(), key=lambda task: task != "image-feature-extraction")

    def __len__(self) -> int:
        return min(super().__len__(), 1)

    def __contains__(self, task: object) -> bool:
        return IS_REMOTE_CODE and super().__contains__(task)


@strict
class PCLConfig(BackboneConfigMixin, PreTrainedConfig):
    """Configuration of a Pose-disentangled Contrastive Learning (PCL) model.

    The defaults give the published model at 64 px. `PCLConfig().scaled(0.25)` has a quarter of its width and equals
    `PCLConfig(hidden_sizes=[16, 32, 32, 64], feature_channels=32, projection_size=128, decoder_size=128)`.

    Args:
        image_size: Side of the square images, in px, at least 32. The encoder alone accepts any size from 32 px; the
            heads and the decoder accept only this size.
        num_channels: Channels of `pixel_values`.
        hidden_sizes: Channels of the encoder at 1/2, 1/4, 1/8 and 1/16 of the image's side.
        feature_channels: Channels of the trunk, face and pose maps, each at 1/16 of the image's side (rounded up).
        negative_slope: Slope of the encoder's LeakyReLUs for negative inputs, in [0, 1).
        mirror_invariant_face: Whether `PCLModel` returns as face feature the mean of those of the image and of its
            mirror, which is the same for both. The encoder then takes twice as long. Pre-training does without it.
        projection_hidden_size: Width of the hidden layer of the projection heads; None means `16 * feature_channels`.
        projection_size: Length of the embeddings that the contrastive objectives compare.
        decoder_size: Width of the decoder's first layer, a multiple of 4. The hidden convolutions have half this width,
            the last hidden one a quarter.
        decoder_image_size: Side of the images that the decoder draws, in px, at least 8; None means `image_size`. A
            smaller side is cheaper; the targets of the reconstructions are then resized to it.
        disentangling_weight: Weight of objective 1 in `loss`: four reconstructions and the orthogonality terms.
        face_contrast_weight: Weight of objective 2.
        pose_contrast_weight: Weight of objective 3. A weight of 0 leaves the objective out of `loss`.
        orthogonality: `"cross_product"`, the published form, or `"cosine"`, the mean squared cosine between the face
            and pose features of a sample.
        orthogonality_weight: Weight of the orthogonality terms within objective 1.
        turn_weight: Weight within objective 2 of a term that is not in the paper: the pose branch predicts by how much
            the two face views of an image are turned against each other. 0 leaves it out, and the model without the
            layer for it.
        face_temperature: Temperature of the face contrast.
        pose_temperature: Temperature of the pose contrast.
        pose_negatives: `"own"`: the negatives of an image are views of its own mirror, as the paper describes;
            `"batch"`: each image gets an equal share of views of every mirror in the batch, as the authors' code does.
        pose_negative_gradient: Whether the pose contrast also trains the encoder through the negatives, as published.
            False encodes them without gradient, which saves most of two thirds of the objective's cost.
        head_feature: Feature that a classification or head-pose head reads: `"trunk"`, `"face"`, `"pose"` or
            `"face+pose"`, the concatenation of the two.
        verification_feature: Feature whose cosine the `face-verification` pipeline compares, one of the same names.
        verification_threshold: Smallest cosine at which two faces count as the same person; None if no threshold was
            chosen.
        auto_map: Module and class in a saved folder for each Auto class.
        custom_pipelines: Pipelines that a saved folder offers; `save_pretrained` of the model writes them.
        out_features: Names of the feature maps that `PCLBackbone` returns, from `stage_names` and in their order; None
            means the last one.
        out_indices: Indices of the same feature maps.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a value has the wrong type or is out of range. The message names
            the field; for a range error, the `ValueError` in its `__cause__` says what the value must be.

    Source:
        Liu et al. 2023, Pose-disentangled Contrastive Learning for Self-supervised Facial Representation.
    """

    model_type = "pcl"
    # With `_auto_class`, here and on the models, `save_pretrained` also copies the code, so that the folder opens
    # where this package is not installed.
    _auto_class = "AutoConfig"
    stage_names: ClassVar[list[str]] = [
        "stem",
        "stage1",
        "stage2",
        "stage3",
        "stage4",
    ]  # The trunk's, named as ResNet's.

    # `float | int`, because strict dataclasses reject an int for a float.
    image_size: int = 64
    num_channels: int = 3
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 128, 256)
    feature_channels: int = 128
    negative_slope: float | int = 0.1
    mirror_invariant_face: bool = False
    projection_hidden_size: int | None = None
    projection_size: int = 512
    decoder_size: int = 512
    decoder_image_size: int | None = None
    disentangling_weight: float | int = 1.0
    face_contrast_weight: float | int = 1.0
    pose_contrast_weight: float | int = 1.0
    orthogonality: Literal["cross_product", "cosine"] = "cross_product"
    orthogonality_weight: float | int = 1.0
    turn_weight: float | int = 0.0
    face_temperature: float | int = 0.07
    pose_temperature: float | int = 0.07
    pose_negatives: Literal["own", "batch"] = "own"
    pose_negative_gradient: bool = True
    head_feature: Literal["trunk", "face", "pose", "face+pose"] = "trunk"
    verification_feature: Literal["trunk", "face", "pose", "face+pose"] = "face"
    verification_threshold: float | int | None = None
    auto_map: dict[str, str] = field(default_factory=lambda: dict(AUTO_MAP))
    custom_pipelines: dict[str, dict] = field(default_factory=dict)

    def __post_init__(self, **kwargs):
        self.hidden_sizes = list(self.hidden_sizes)
        self.custom_pipelines = OfferedPipelines(self.custom_pipelines)
        # None breaks Auto classes with two models for one config, as AutoModelForImageClassification has here.
        self.architectures = self.architectures or []
        self.set_output_features_output_indices(kwargs.pop("out_features", None), kwargs.pop("out_indices", None))
        super().__post_init__(**kwargs)

    @property
    def is_embedding(self) -> bool:
        """Whether a classification head's logits are an identity embedding, compared by cosine."""
        return self.problem_type == "regression" and self.num_labels > 1

    @classmethod
    def _dict_from_json_file(cls, json_file):
        """Read the JSON file as transformers does, but raise `ValueError` if it does not hold an object."""
        content = super()._dict_from_json_file(json_file)
        if not isinstance(content, dict):
            raise ValueError(f"{json_file} must hold a JSON object, got a {type(content).__name__}.")
        return content

    def validate_names(self):
        names = self.architectures
        if names is not None and not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
            raise ValueError(f"`architectures` must be a list of names, got {names!r}.")

    def validate_sizes(self):
        if self.image_size < SMALLEST_PX:
            raise ValueError(f"`image_size` must be at least {SMALLEST_PX} px, got {self.image_size}.")
        if len(self.hidden_sizes) != 4:
            raise ValueError(
                "`hidden_sizes` must hold 4 widths, for 1/2, 1/4, 1/8 and 1/16 of the image's side, "
                f"got {self.hidden_sizes}."
            )
        widths = {
            "num_channels": self.num_channels,
            "min(hidden_sizes)": min(self.hidden_sizes),
            "feature_channels": self.feature_channels,
            "projection_hidden_size": self.projection_hidden,
            "projection_size": self.projection_size,
        }
        for name, width in widths.items():
            if width < 1:
                raise ValueError(f"`{name}` must be at least 1, got {width}.")
        if self.decoder_size < 4 or self.decoder_size % 4:
            raise ValueError(f"`decoder_size` must be a positive multiple of 4, got {self.decoder_size}.")
        if self.drawn_size < 8:
            raise ValueError(f"`decoder_image_size` must be at least 8 px, got {self.decoder_image_size}.")

    def validate_objectives(self):
        for name in ("face_temperature", "pose_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be a positive number, got {getattr(self, name)}.")
        for name in (*(f"{name}_weight" for name in OBJECTIVES), "orthogonality_weight", "turn_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be 0 or a positive number, got {getattr(self, name)}.")
        if not 0 <= self.negative_slope < 1:
            raise ValueError(f"`negative_slope` must be in [0, 1), got {self.negative_slope}.")

    def scaled(self, factor: float) -> "PCLConfig":
        """Return a copy of this config with every width multiplied by `factor`; 0.25 is about a sixteenth of the cost.

        Args:
            factor: Positive. Widths are rounded to integers of at least 1, the decoder's to a multiple of 4.

        Raises:
            ValueError: If `factor` is not positive.
        """
        if not 0 < factor < math.inf:
            raise ValueError(f"`factor` must be a positive number, got {factor}.")

        def scale(width: int) -> int:
            return max(1, round(width * factor))

        hidden = self.projection_hidden_size
        widths = {
            "hidden_sizes": [scale(width) for width in self.hidden_sizes],
            "feature_channels": scale(self.feature_channels),
            "projection_hidden_size": None if hidden is None else scale(hidden),
            "projection_size": scale(self.projection_size),
            "decoder_size": 4 * max(1, round(self.decoder_size * factor / 4)),
        }
        return PCLConfig(**(self.to_dict() | widths))

    @property
    def num_hidden_layers(self) -> int:
        """Number of trunk stages after the stem, which is what transformers expects here."""
        return len(self.stage_names) - 1

    @property
    def feature_size(self) -> int:
        """Length of a flattened trunk, face or pose map at `image_size`: 2048 for the published model."""
        return self.feature_channels * math.ceil(self.image_size / 16) ** 2

    @property
    def head_size(self) -> int:
        """Length of the feature that a head reads."""
        return self.feature_size * len(self.head_feature.split("+"))

    @property
    def drawn_size(self) -> int:
        """Side of the images that the decoder draws, in px."""
        return self.image_size if self.decoder_image_size is None else self.decoder_image_size

    @property
    def projection_hidden(self) -> int:
        """Width of the hidden layer of the projection heads."""
        return 16 * self.feature_channels if self.projection_hidden_size is None else self.projection_hidden_size

    @property
    def objective_weights(self) -> dict[str, float]:
        """Weight of each objective, in the order of `OBJECTIVES`."""
        return {name: getattr(self, f"{name}_weight") for name in OBJECTIVES}
