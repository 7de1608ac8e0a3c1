"""The PCL models: encoder, pre-training, image classification, head-pose estimation."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .backbone_pcl import PCLBranch, PCLConv2d, PCLTrunk
from .configuration_pcl import PCLConfig
from .decoder_pcl import PCLDecoder
from .distributed_pcl import gather_rows, rank
from .features_pcl import read_feature
from .losses_pcl import (
    cosine_orthogonality_loss,
    info_nce_loss,
    mixed_negative_loss,
    orthogonality_loss,
    pose_logits,
)
from .pipelines_pcl import saved_pipelines

ANGLES = ("yaw", "pitch", "roll")
CPU_CHUNK = 32  # Images whose maps stay in a CPU's cache from one operation to the next.


@dataclass
class PCLModelOutput(ModelOutput):
    """Output of `PCLModel`.

    Args:
        last_hidden_state: Trunk map, `(batch, feature_channels, h, w)`; h and w are the image's sides / 16, rounded up.
        pooler_output: The trunk map flattened, `(batch, feature_channels * h * w)`. Nothing is averaged.
        face_features: Face-aware features, flattened, same shape as `pooler_output`.
        pose_features: Pose-related features, flattened, same shape as `pooler_output`.
        hidden_states: On request, the maps after each of the five stages, the trunk map last.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    face_features: torch.FloatTensor | None = None
    pose_features: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class PCLForPreTrainingOutput(ModelOutput):
    """Output of `PCLForPreTraining`: scalars, each None where the inputs of its objective are absent.

    Args:
        loss: Sum of the present objectives, each times its weight in the config.
        disentangling_loss: Objective 1: the four reconstructions plus the weighted orthogonality terms.
        face_contrast_loss: Objective 2, InfoNCE over both views.
        pose_contrast_loss: Objective 3, InfoNCE over both views.
        face_pose_loss: L1 of decoding the image's face and pose, to the image.
        face_mirror_pose_loss: L1 of decoding the image's face and the mirror's pose, to the mirror.
        mirror_face_pose_loss: L1 of decoding the mirror's face and the image's pose, to the image.
        mirror_face_mirror_pose_loss: L1 of decoding the mirror's face and pose, to the mirror.
        orthogonality_loss: Orthogonality of the images' features, unweighted.
        mirror_orthogonality_loss: Orthogonality of the mirrors' features, unweighted.
    """

    loss: torch.FloatTensor | None = None
    disentangling_loss: torch.FloatTensor | None = None
    face_contrast_loss: torch.FloatTensor | None = None
    pose_contrast_loss: torch.FloatTensor | None = None
    face_pose_loss: torch.FloatTensor | None = None
    face_mirror_pose_loss: torch.FloatTensor | None = None
    mirror_face_pose_loss: torch.FloatTensor | None = None
    mirror_face_mirror_pose_loss: torch.FloatTensor | None = None
    orthogonality_loss: torch.FloatTensor | None = None
    mirror_orthogonality_loss: torch.FloatTensor | None = None


class PCLPreTrainedModel(PreTrainedModel):
    """Weight initialisation and loading, common to all PCL models."""

    config_class = PCLConfig
    base_model_prefix = "pcl"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["PCLStage", "PCLBranch", "PCLProjectionHead", "PCLDecoder"]

    def __init__(self, config: PCLConfig):
        super().__init__(config)
        config.custom_pipelines = {}  # They say how a folder is opened, which this one is now.

    @property
    def pipelines(self) -> dict[str, str]:
        """Pipelines of `pipelines_pcl` that a saved folder offers: the Auto class that opens it, by their names."""
        return {}

    def save_pretrained(self, save_directory, **kwargs):
        """transformers' own, with the pipelines that the model can do."""
        self.config.custom_pipelines = saved_pipelines(**self.pipelines)
        try:
            return super().save_pretrained(save_directory, **kwargs)
        finally:
            self.config.custom_pipelines = {}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Encoder: N(0, 2 / (k * k * out_channels)) and zero bias. Heads and decoder: torch's defaults."""
        if isinstance(module, PCLConv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            init.normal_(module.weight, mean=0.0, std=math.sqrt(2 / fan_out))
            init.zeros_(module.bias)
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = 1 / math.sqrt(module.weight[0].numel())
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)


def _check_images(name: str, images: torch.Tensor, channels: int, size_px: int | None = None, axes: int = 4):
    """Refuse what the encoder cannot read, or, with `size_px`, the linear layers behind its flattened maps."""
    is_sized = size_px is None or images.shape[-2:] == (size_px, size_px)
    if images.dim() != axes or images.shape[-3] != channels or not is_sized:
        sides = "height, width" if size_px is None else f"{size_px}, {size_px}"
        raise ValueError(
            f"`{name}` must be ({'batch' if axes == 4 else 'images, K'}, {channels}, {sides}), got "
            f"{tuple(images.shape)}; PCLImageProcessor makes it from images, and `image_size` builds the model for "
            "another size."
        )
    if not images.is_floating_point():
        raise ValueError(
            f"`{name}` must be floating point in [0, 1], got {images.dtype}; PCLImageProcessor makes it from images."
        )


class PCLModel(PCLPreTrainedModel):
    """The PCL encoder: one trunk, and on it a face-aware and a pose-related branch.

    Example:
        ```python
        >>> from modeling_pcl import PCLConfig, PCLModel
        >>> import torch
        >>> PCLModel(PCLConfig())(torch.rand(1, 3, 64, 64)).face_features.shape
        torch.Size([1, 2048])
        ```
    """

    _auto_class = "AutoModel"
    # A pre-training checkpoint opens without a warning about the parts that the encoder does not have.
    _keys_to_ignore_on_load_unexpected = [r"^(face_projection|pose_projection|decoder|classifier|regressor)\."]

    def __init__(self, config: PCLConfig):
        super().__init__(config)
        self.trunk = PCLTrunk(config)
        self.face_branch = PCLBranch(config)
        self.pose_branch = PCLBranch(config)
        self.post_init()

    @property
    def pipelines(self) -> dict[str, str]:
        return {"FaceVerificationPipeline": "AutoModel"}

    @can_return_tuple
    def forward(
        self, pixel_values: torch.FloatTensor, output_hidden_states: bool | None = None, **kwargs
    ) -> PCLModelOutput:
        """Encode faces.

        Args:
            pixel_values: `(batch, num_channels, height, width)`, values in [0, 1], no mean or std taken off; any size
                from 32 px, as `PCLImageProcessor` makes them.
            output_hidden_states: Whether to return the five stages' maps; None takes the config's word.
            return_dict: False for a plain tuple without the absent entries.

        Raises:
            ValueError: If `pixel_values` has another number of axes or channels, or is not floating point.
        """
        _check_images("pixel_values", pixel_values, self.config.num_channels)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        hidden_states = self.trunk(pixel_values.to(self.dtype))
        trunk = hidden_states[-1]
        return PCLModelOutput(
            last_hidden_state=trunk,
            pooler_output=trunk.flatten(1),  # (batch, 128, 4, 4) -> (batch, 2048)
            face_features=self.face_branch(trunk).flatten(1),
            pose_features=self.pose_branch(trunk).flatten(1),
            hidden_states=hidden_states if output_hidden_states else None,
        )


class PCLProjectionHead(nn.Module):
    """`(batch, feature_size)` features to `(batch, projection_size)` embeddings."""

    def __init__(self, config: PCLConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.feature_size, config.projection_hidden)
        self.fc2 = nn.Linear(config.projection_hidden, config.projection_size)
        self.norm = nn.BatchNorm1d(config.projection_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.norm(self.fc2(self.fc1(features).relu()))


class PCLForPreTraining(PCLPreTrainedModel):
    """The encoder with projection heads and decoder, computing the three PCL objectives.

    Attributes:
        images_at_once: Images whose activations the encoder holds for the backward pass; None for all. Of more it keeps
            the features only, and encodes them again, a part at a time, in the backward pass: the same gradient as of
            one large batch, in the memory of a small one.

    Source:
        `images_at_once`: Gao et al. 2021, Scaling deep contrastive learning batch size under memory limited setup.
    """

    _auto_class = "AutoModelForPreTraining"
    images_at_once: int | None = None

    def __init__(self, config: PCLConfig):
        super().__init__(config)
        self.pcl = PCLModel(config)
        self.face_projection = PCLProjectionHead(config)
        self.pose_projection = PCLProjectionHead(config)
        self.decoder = PCLDecoder(config)
        self.post_init()

    @property
    def pipelines(self) -> dict[str, str]:
        return {"FaceSwapPosePipeline": "AutoModelForPreTraining", "FaceVerificationPipeline": "AutoModel"}

    def decode(self, face_features: torch.Tensor, pose_features: torch.Tensor) -> torch.Tensor:
        """Draw the face of one image in the pose of another.

        Args:
            face_features: `(batch, feature_size)`, as `PCLModel` returns them.
            pose_features: `(batch, feature_size)`; zeros for either draw what the other alone holds.

        Returns:
            Images `(batch, num_channels, side, side)`, values in (-1, 1), trained towards [0, 1]; the side is
            `config.drawn_size`, by default `image_size`.
        """
        return self.decoder(F.normalize(face_features + pose_features, dim=1))

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        noise: torch.FloatTensor | None = None,
        face_views: torch.FloatTensor | None = None,
        face_mix: torch.FloatTensor | None = None,
        face_permutation: torch.LongTensor | None = None,
        pose_views: torch.FloatTensor | None = None,
        pose_negative_views: torch.FloatTensor | None = None,
        pose_mix: torch.FloatTensor | None = None,
        pose_permutation: torch.LongTensor | None = None,
        **kwargs,
    ) -> PCLForPreTrainingOutput:
        """Compute the objectives whose inputs are present. Images are `(..., num_channels, image_size, image_size)`.

        Args:
            pixel_values: `(batch, ...)`, clean images in [0, 1], for objective 1. Mirrors are made inside.
            noise: `(2 * batch, ...)`, added to what the encoder sees of the images, then of their mirrors; None adds
                nothing. The targets stay clean.
            face_views: `(2 * batch, ...)`, first view of every image, then the second views, for objective 2. With
                several processes the negatives are those of all, with gradient.
            face_mix: `(2 * batch, negatives)` shares in [0, 1], where negatives is 2 * batch * processes - 2; None
                mixes nothing.
            face_permutation: `(negatives,)`, the same in every process.
            pose_views: `(2 * images, ...)`, two photometric views of whole images, for objective 3.
            pose_negative_views: `(images, K, ...)`, views of each image's mirror.
            pose_mix: `(images, K)` shares in [0, 1]; None mixes nothing.
            pose_permutation: `(K,)`.
            return_dict: False for a plain tuple without the absent entries.

        Raises:
            ValueError: If no objective's inputs are present, or a shape does not fit.
        """
        terms = {}
        if pixel_values is not None:
            terms |= self._disentangling(pixel_values, noise)
        if face_views is not None:
            terms["face_contrast_loss"] = self._face_contrast(face_views, face_mix, face_permutation)
        if pose_views is not None:
            if pose_negative_views is None:
                raise ValueError("`pose_views` need `pose_negative_views`, views of each image's mirror.")
            terms["pose_contrast_loss"] = self._pose_contrast(
                pose_views, pose_negative_views, pose_mix, pose_permutation
            )
        if not terms:
            raise ValueError("Give `pixel_values`, `face_views` or `pose_views`: there is no objective to compute.")
        weights = self.config.objective_weights
        loss = sum(weight * terms[f"{name}_loss"] for name, weight in weights.items() if f"{name}_loss" in terms)
        return PCLForPreTrainingOutput(loss=loss, **terms)

    def _disentangling(self, pixel_values: torch.Tensor, noise: torch.Tensor | None) -> dict[str, torch.Tensor]:
        _check_images("pixel_values", pixel_values, self.config.num_channels, self.config.image_size)
        images = {"": pixel_values, "mirror_": pixel_values.flip(3)}
        encoded = torch.cat(list(images.values()))
        if noise is not None:
            if noise.shape != encoded.shape:
                raise ValueError(f"`noise` must be {tuple(encoded.shape)}, got {tuple(noise.shape)}.")
            encoded = encoded + noise
        features = self._encode(encoded)
        face = dict(zip(images, features["face"].chunk(2)))
        pose = dict(zip(images, features["pose"].chunk(2)))

        # One pass, in this order: batch norm sees and tracks one combination after the other, as published.
        swaps = {  # whose face in whose pose
            "face_mirror_pose_loss": ("", "mirror_"),
            "mirror_face_pose_loss": ("mirror_", ""),
            "face_pose_loss": ("", ""),
            "mirror_face_mirror_pose_loss": ("mirror_", "mirror_"),
        }
        sums = torch.cat([face[face_of] + pose[pose_of] for face_of, pose_of in swaps.values()])
        decoded = self.decoder(F.normalize(sums, dim=1), groups=len(swaps)).to(pixel_values.dtype)
        drawn = {name: self.as_drawn(image) for name, image in images.items()}
        reconstructions = {
            name: F.l1_loss(image, drawn[pose_of])
            for (name, (_, pose_of)), image in zip(swaps.items(), decoded.chunk(len(swaps)))
        }
        is_published = self.config.orthogonality == "cross_product"
        orthogonality = orthogonality_loss if is_published else cosine_orthogonality_loss
        independence = {f"{name}orthogonality_loss": orthogonality(face[name], pose[name]) for name in images}
        total = sum(reconstructions.values()) + self.config.orthogonality_weight * sum(independence.values())
        return {"disentangling_loss": total, **reconstructions, **independence}

    def as_drawn(self, images: torch.Tensor) -> torch.Tensor:
        """Images `(batch, channels, side, side)` at the side that the decoder draws."""
        side = self.config.drawn_size
        if side == images.shape[-1]:
            return images
        return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)

    def _face_contrast(
        self, views: torch.Tensor, mix: torch.Tensor | None, permutation: torch.Tensor | None
    ) -> torch.Tensor:
        _check_images("face_views", views, self.config.num_channels, self.config.image_size)
        if views.shape[0] % 2:
            raise ValueError(f"`face_views` must hold two views of every image, got {views.shape[0]} views.")
        embeddings = self.face_projection(self._encode(views)["face"])
        first, second = (gather_rows(view) for view in embeddings.chunk(2))
        own = torch.arange(embeddings.shape[0] // 2, device=embeddings.device) + rank() * embeddings.shape[0] // 2
        anchors = torch.cat([own, own + first.shape[0]])
        return mixed_negative_loss(
            torch.cat([first, second]), mix, permutation, self.config.face_temperature, anchors=anchors
        )

    def _pose_contrast(
        self,
        views: torch.Tensor,
        negative_views: torch.Tensor,
        mix: torch.Tensor | None,
        permutation: torch.Tensor | None,
    ) -> torch.Tensor:
        _check_images("pose_views", views, self.config.num_channels, self.config.image_size)
        _check_images("pose_negative_views", negative_views, self.config.num_channels, self.config.image_size, axes=5)
        images, count = negative_views.shape[:2]
        if views.shape[0] != 2 * images:
            raise ValueError(
                f"`pose_views` must hold two views of each of the {images} images that `pose_negative_views` mirrors, "
                f"got {views.shape[0]} views."
            )
        # Two projections, since batch norm must not mix the views' statistics with the many negatives'.
        encoded = self._encode_pose(views, negative_views.flatten(0, 1))
        queries, negatives = (self.pose_projection(features) for features in encoded)
        negatives = negatives.unflatten(0, (images, count))
        if self.config.pose_negatives == "batch":
            negatives = _share_out(negatives)
        return info_nce_loss(pose_logits(queries, negatives, mix, permutation, self.config.pose_temperature))

    def _encode_pose(self, views: torch.Tensor, negatives: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Pose features of both, in one pass where both are trained through."""
        if self.config.pose_negative_gradient:
            features = self._encode(torch.cat([views, negatives]))["pose"]
            return features.split([views.shape[0], negatives.shape[0]])
        with torch.no_grad():
            negatives = self._encode(negatives)["pose"]
        return self._encode(views)["pose"], negatives

    def _encode(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Face and pose features; on a CPU a few images at a time, whose maps stay in its cache."""
        device, count = images.device.type, images.shape[0]
        is_cached = self.images_at_once is not None and count > self.images_at_once
        size = min(self.images_at_once if is_cached else count, CPU_CHUNK if device == "cpu" else count)
        encode = partial(checkpoint, self.pcl, use_reentrant=False) if is_cached else self.pcl
        # Without a cache of weights in half precision each chunk's gradient is summed up in full precision.
        autocast = {"enabled": torch.is_autocast_enabled(device), "dtype": torch.get_autocast_dtype(device)}
        with torch.autocast(device, **autocast, cache_enabled=size >= count):
            outputs = [encode(part, return_dict=True) for part in images.split(size)]
        return {name: torch.cat([output[f"{name}_features"] for output in outputs]) for name in ("face", "pose")}


def _share_out(negatives: torch.Tensor) -> torch.Tensor:
    """Deal `(images, K, dim)` own negatives out so that each image holds K / images of every image's."""
    images, count, _ = negatives.shape
    if count % images:
        raise ValueError(f'`pose_negatives="batch"` needs a multiple of {images} negatives an image, got {count}.')
    return negatives.unflatten(1, (images, count // images)).transpose(0, 1).flatten(1, 2)


class _PCLWithHead(PCLPreTrainedModel):
    """The encoder under one linear layer that reads the feature named by `config.head_feature`."""

    def _logits(self, head: nn.Linear, pixel_values: torch.Tensor, output_hidden_states: bool | None):
        _check_images("pixel_values", pixel_values, self.config.num_channels, self.config.image_size)
        outputs = self.pcl(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        return head(read_feature(outputs, self.config.head_feature)), outputs.hidden_states


class PCLForImageClassification(_PCLWithHead):
    """A linear layer on the encoder: one label of several (expression) or many at once (action units).

    `config.problem_type` selects the loss as everywhere in transformers: `"single_label_classification"`,
    `"multi_label_classification"` or `"regression"` (then `logits` are an embedding); None infers it from the labels.
    """

    _auto_class = "AutoModelForImageClassification"

    def __init__(self, config: PCLConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.pcl = PCLModel(config)
        self.classifier = nn.Linear(config.head_size, config.num_labels)
        self.post_init()

    @property
    def pipelines(self) -> dict[str, str]:
        is_embedding = self.config.problem_type == "regression"
        return {"FaceVerificationPipeline": "AutoModelForImageClassification"} if is_embedding else {}

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> ImageClassifierOutputWithNoAttention:
        """Classify faces.

        Args:
            pixel_values: `(batch, num_channels, image_size, image_size)`, values in [0, 1].
            labels: `(batch,)` integers for one label, `(batch, num_labels)` floats for many; gives `loss`.
            output_hidden_states: Whether to return the five stages' maps.
            return_dict: False for a plain tuple without the absent entries.

        Returns:
            `logits` `(batch, num_labels)`, before softmax or sigmoid.

        Raises:
            ValueError: If `pixel_values` is not `image_size` px high and wide.
        """
        logits, hidden_states = self._logits(self.classifier, pixel_values, output_hidden_states)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=hidden_states)


class PCLForHeadPoseEstimation(_PCLWithHead):
    """A linear layer on the encoder that gives the three head angles."""

    # transformers has no Auto class for head pose, and its image classification knows regression.
    _auto_class = "AutoModelForImageClassification"

    def __init__(self, config: PCLConfig):
        super().__init__(config)
        config.problem_type, config.id2label = "regression", dict(enumerate(ANGLES))
        config.label2id = {angle: number for number, angle in enumerate(ANGLES)}
        self.pcl = PCLModel(config)
        self.regressor = nn.Linear(config.head_size, 3)
        self.post_init()

    @property
    def pipelines(self) -> dict[str, str]:
        return {"HeadPoseEstimationPipeline": "AutoModelForImageClassification"}

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        labels: torch.FloatTensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> ImageClassifierOutputWithNoAttention:
        """Estimate head pose.

        Args:
            pixel_values: `(batch, num_channels, image_size, image_size)`, values in [0, 1].
            labels: `(batch, 3)` yaw, pitch, roll in degrees; gives `loss`, the mean absolute error.
            output_hidden_states: Whether to return the five stages' maps.
            return_dict: False for a plain tuple without the absent entries.

        Returns:
            `logits` `(batch, 3)`: yaw, pitch, roll in degrees.

        Raises:
            ValueError: If `pixel_values` is not `image_size` px high and wide, or `labels` is not `(batch, 3)`.
        """
        logits, hidden_states = self._logits(self.regressor, pixel_values, output_hidden_states)
        if labels is not None and labels.shape != logits.shape:
            raise ValueError(f"`labels` must be {tuple(logits.shape)}: yaw, pitch, roll; got {tuple(labels.shape)}.")
        loss = None if labels is None else F.l1_loss(logits.float(), labels.float())
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=hidden_states)


__all__ = [
    "PCLForHeadPoseEstimation",
    "PCLForImageClassification",
    "PCLForPreTraining",
    "PCLForPreTrainingOutput",
    "PCLModel",
    "PCLModelOutput",
    "PCLPreTrainedModel",
]
