"""Every number of a PCL model: sizes, objectives and their weights."""

import math
from dataclasses import field
from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin

OBJECTIVES = ("disentangling", "face_contrast", "pose_contrast")  # In the published order of the steps.
SMALLEST_PX = 32  # Side of an image that the encoder reads.
AUTO_MAP = {
    "AutoConfig": "configuration_pcl.PCLConfig",
    "AutoModel": "modeling_pcl.PCLModel",
    "AutoBackbone": "modeling_pcl.PCLBackbone",
    "AutoModelForPreTraining": "modeling_pcl.PCLForPreTraining",
    "AutoModelForImageClassification": "modeling_pcl.PCLForImageClassification",
    "AutoImageProcessor": "image_processing_pcl.PCLImageProcessor",
}


# Whether this is the code of a saved folder, and not the installed package.
IS_REMOTE_CODE = __name__.startswith("transformers_modules.")


class OfferedPipelines(dict):
    """Pipelines of a saved folder, by task, as transformers' `pipeline` has to find them.

    It infers the task of a folder that offers exactly one pipeline, so that this counts as one: the first, which is
    what the model is for. And for each task that is in here it wants the folder's code to be trusted, so that for the
    installed package, which has the same pipelines itself, none is.
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

    The defaults are the published model at 64 px. `PCLConfig().scaled(0.25)` is a quarter of its width, the same as
    `PCLConfig(hidden_sizes=[16, 32, 32, 64], feature_channels=32, projection_size=128, decoder_size=128)`.

    Args:
        image_size: Side of the square images, in px, at least 32. The encoder alone accepts any size from 32 px; heads
            and decoder are built for this one.
        num_channels: Channels of `pixel_values`.
        hidden_sizes: Channels of the encoder at 1/2, 1/4, 1/8 and 1/16 of the image's side.
        feature_channels: Channels of the trunk, face and pose maps, each at 1/16 of the image's side (rounded up).
        negative_slope: Slope of every LeakyReLU of the encoder for negative inputs.
        projection_hidden_size: Width of the projection heads' hidden layer; None means `16 * feature_channels`.
        projection_size: Length of the embeddings that the contrastive objectives compare.
        decoder_size: Width of the decoder's first layer; its hidden convolutions have a half of it, the last a quarter.
        decoder_image_size: Side of the images that the decoder draws, in px, at least 8; None means `image_size`. A
            smaller one is cheaper; reconstructions are compared with images made as small.
        disentangling_weight: Weight of objective 1 in `loss`: four reconstructions and the orthogonality terms.
        face_contrast_weight: Weight of objective 2.
        pose_contrast_weight: Weight of objective 3. A weight of 0 leaves the objective out of `loss`.
        orthogonality: `"cross_product"`, the published form, or `"cosine"`, the mean squared cosine between the face
            and pose features of a sample.
        orthogonality_weight: Weight of the orthogonality terms within objective 1.
        face_temperature: Temperature of the face contrast.
        pose_temperature: Temperature of the pose contrast.
        pose_negatives: `"own"`: an image's negatives are views of its own mirror, as the paper says; `"batch"`: each
            image gets an equal share of views of every mirror in the batch, as the authors' code computes.
        pose_negative_gradient: Whether the pose contrast trains the encoder through its negatives too, as published.
            False encodes them without gradient, which saves most of two thirds of the objective's cost.
        head_feature: What a classification or head-pose head reads: `"trunk"`, `"face"`, `"pose"` or `"face+pose"`, the
            two together.
        verification_feature: The feature by whose cosine `face-verification` compares two faces, likewise.
        verification_threshold: Cosine from which on it says that they are the same person; None where none was chosen.
        auto_map: Where each Auto class finds its code in a saved folder.
        custom_pipelines: The pipelines that a saved folder offers; its model writes them.
        out_features: Names of the feature maps that `PCLBackbone` gives, out of `stage_names`, in their order; the last
            by default.
        out_indices: The same by their numbers.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a value is of the wrong type or out of its range. It names the
            field; behind a range error stands the `ValueError` that says what the value must be.

    Source:
        Liu et al. 2023, Pose-disentangled Contrastive Learning for Self-supervised Facial Representation.
    """

    model_type = "pcl"
    # With it, here and in the models, what is saved carries its code and opens where this package is absent.
    _auto_class = "AutoConfig"
    stage_names: ClassVar[list[str]] = ["stem", "stage1", "stage2", "stage3", "stage4"]  # Of the trunk, as ResNet's.

    image_size: int = 64
    num_channels: int = 3
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 128, 256)
    feature_channels: int = 128
    negative_slope: float | int = 0.1
    projection_hidden_size: int | None = None
    projection_size: int = 512
    decoder_size: int = 512
    decoder_image_size: int | None = None
    disentangling_weight: float | int = 1.0
    face_contrast_weight: float | int = 1.0
    pose_contrast_weight: float | int = 1.0
    orthogonality: Literal["cross_product", "cosine"] = "cross_product"
    orthogonality_weight: float | int = 1.0
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
        # None would do for transformers, but not where an Auto class knows two models, as for classification here.
        self.architectures = self.architectures or []
        self.set_output_features_output_indices(kwargs.pop("out_features", None), kwargs.pop("out_indices", None))
        super().__post_init__(**kwargs)

    @property
    def is_embedding(self) -> bool:
        """Whether a classification head's outputs are one vector, by whose cosine faces are compared."""
        return self.problem_type == "regression" and self.num_labels > 1

    @classmethod
    def _dict_from_json_file(cls, json_file):
        """transformers' own, which goes on with a list until something else goes wrong."""
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
        for name in (*(f"{name}_weight" for name in OBJECTIVES), "orthogonality_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be 0 or a positive number, got {getattr(self, name)}.")
        if not 0 <= self.negative_slope < 1:
            raise ValueError(f"`negative_slope` must be in [0, 1), got {self.negative_slope}.")

    def scaled(self, factor: float) -> "PCLConfig":
        """This config with every width times `factor`: 0.25 is about a sixteenth of the cost.

        Args:
            factor: Positive; widths are rounded, to at least 1, the decoder's to a multiple of 4.

        Raises:
            ValueError: If `factor` is not positive.
        """
        if not 0 < factor < math.inf:
            raise ValueError(f"`factor` must be a positive number, got {factor}.")

        def scaled(width: int) -> int:
            return max(1, round(width * factor))

        hidden = self.projection_hidden_size
        widths = {
            "hidden_sizes": [scaled(width) for width in self.hidden_sizes],
            "feature_channels": scaled(self.feature_channels),
            "projection_hidden_size": None if hidden is None else scaled(hidden),
            "projection_size": scaled(self.projection_size),
            "decoder_size": 4 * max(1, round(self.decoder_size * factor / 4)),
        }
        return PCLConfig(**(self.to_dict() | widths))

    @property
    def num_hidden_layers(self) -> int:
        """Stages of the trunk behind its stem, as transformers counts them."""
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
        """Width of the projection heads' hidden layer."""
        return 16 * self.feature_channels if self.projection_hidden_size is None else self.projection_hidden_size

    @property
    def objective_weights(self) -> dict[str, float]:
        """Weight of each objective, in the published order of the steps."""
        return {name: getattr(self, f"{name}_weight") for name in OBJECTIVES}
