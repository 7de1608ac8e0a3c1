"""PyTorch PCL models: pre-training here, and the encoder and the heads from `encoder_pcl` and `heads_pcl`."""

from functools import partial

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig
from transformers.utils.generic import can_return_tuple

from .configuration_pcl import PCLConfig
from .decoder_pcl import PCLDecoder
from .distributed_pcl import gather_rows, rank
from .encoder_pcl import PCLBackbone, PCLModel, PCLPreTrainedModel, check_images
from .heads_pcl import PCLForHeadPoseEstimation, PCLForImageClassification
from .losses_pcl import (
    cosine_orthogonality_loss,
    info_nce_loss,
    mixed_negative_loss,
    orthogonality_loss,
    pose_logits,
)
from .outputs_pcl import PCLForPreTrainingOutput, PCLModelOutput
from .projections_pcl import PCLProjectionHead, PCLTurnHead

CPU_CHUNK = 32  # Number of images whose maps stay in the cache of a CPU from one operation to the next.


class PCLForPreTraining(PCLPreTrainedModel):
    """The encoder with projection heads and decoder, which computes the three PCL objectives.

    Attributes:
        images_at_once: Largest number of images whose activations the encoder keeps for the backward pass; None keeps
            all. For larger batches it keeps only the features and encodes the images again, in parts, in the backward
            pass: the gradient is that of the large batch, the memory that of a part.

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
        self.turn_head = PCLTurnHead(config) if config.turn_weight else None
        self.post_init()

    @property
    def pipelines(self) -> dict[str, str]:
        return {
            "FaceFeatureExtractionPipeline": "AutoModel",
            "FaceSwapPosePipeline": "AutoModelForPreTraining",
            "FaceVerificationPipeline": "AutoModel",
        }

    def decode(self, face_features: torch.Tensor, pose_features: torch.Tensor) -> torch.Tensor:
        """Draw the face of one image in the pose of another.

        Args:
            face_features: `(batch, feature_size)`, as `PCLModel` returns them.
            pose_features: `(batch, feature_size)`. With zeros for either argument, the image shows what the other
                feature alone contains.

        Returns:
            Images `(batch, num_channels, side, side)`, values in (-1, 1) with training targets in [0, 1]. The side is
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
        face_turns: torch.FloatTensor | None = None,
        pose_views: torch.FloatTensor | None = None,
        pose_negative_views: torch.FloatTensor | None = None,
        pose_mix: torch.FloatTensor | None = None,
        pose_permutation: torch.LongTensor | None = None,
        return_loss: bool = True,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> PCLForPreTrainingOutput:
        """Compute the objectives whose inputs are given. Images are `(..., num_channels, image_size, image_size)`.

        Args:
            pixel_values: `(batch, ...)`, clean images in [0, 1], for objective 1, which mirrors them itself.
            noise: `(2 * batch, ...)`, added to the encoder's inputs, first the images, then their mirrors; None adds no
                noise. The targets of the decoder stay clean.
            face_views: `(2 * batch, ...)`, the first view of every image, then the second views, for objective 2. With
                several processes, the views of all processes are negatives, with gradient.
            face_mix: `(2 * batch, negatives)` weights in [0, 1], where negatives is 2 * batch * processes - 2; None
                mixes no negatives.
            face_permutation: `(negatives,)`, the same in every process; None together with `face_mix`.
            face_turns: `(batch, 2)`, by how much the second face view of an image is turned against the first, out of
                the plane and in it, in shares of the largest turns; NaN where the two cannot be compared. Needed if
                `turn_weight` is not 0.
            pose_views: `(2 * images, ...)`, two photometric views of whole images, for objective 3.
            pose_negative_views: `(images, K, ...)`, views of the mirror of each image.
            pose_mix: `(images, K)` weights in [0, 1]; None mixes no negatives.
            pose_permutation: `(K,)`; None together with `pose_mix`.
            return_loss: Whether to return `loss`. The Trainer recognises by this argument that the model computes a
                loss without labels.
            output_hidden_states: Whether to return the encoder's maps; None uses the value in the config.
            return_dict: Whether to return a `PCLForPreTrainingOutput` instead of a tuple without the entries that are
                None.

        Raises:
            ValueError: If no objective's inputs are present, or a shape does not fit.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        terms, maps = {}, [] if output_hidden_states else None
        if pixel_values is not None:
            terms |= self._compute_disentangling(pixel_values, noise, maps)
        if face_views is not None:
            terms |= self._compute_face_contrast(face_views, face_mix, face_permutation, face_turns, maps)
        if pose_views is not None:
            if pose_negative_views is None:
                raise ValueError("`pose_views` need `pose_negative_views`, views of each image's mirror.")
            terms["pose_contrast_loss"] = self._compute_pose_contrast(
                pose_views, pose_negative_views, pose_mix, pose_permutation, maps
            )
        if not terms:
            raise ValueError("Give `pixel_values`, `face_views` or `pose_views`: there is no objective to compute.")
        weights = self.config.objective_weights
        loss = sum(weight * terms[f"{name}_loss"] for name, weight in weights.items() if f"{name}_loss" in terms)
        hidden_states = _concatenate_maps(maps) if output_hidden_states else None
        return PCLForPreTrainingOutput(loss=loss if return_loss else None, **terms, hidden_states=hidden_states)

    def _compute_disentangling(
        self, pixel_values: torch.Tensor, noise: torch.Tensor | None, maps: list | None
    ) -> dict[str, torch.Tensor]:
        check_images("pixel_values", pixel_values, self.config.num_channels, self.config.image_size)
        images = {"": pixel_values, "mirror_": pixel_values.flip(3)}
        inputs = torch.cat(list(images.values()))  # (2 * batch, ...): images, then mirrors
        if noise is not None:
            if noise.shape != inputs.shape:
                raise ValueError(f"`noise` must be {tuple(inputs.shape)}, got {tuple(noise.shape)}.")
            inputs = inputs + noise
        features = self._encode(inputs, maps)
        face = dict(zip(images, features["face"].chunk(2)))
        pose = dict(zip(images, features["pose"].chunk(2)))

        # One pass through the decoder, but each combination is a batch of its own for the batch norms, in this order,
        # as in the authors' four calls.
        swaps = {  # Name of the loss: (whose face, whose pose)
            "face_mirror_pose_loss": ("", "mirror_"),
            "mirror_face_pose_loss": ("mirror_", ""),
            "face_pose_loss": ("", ""),
            "mirror_face_mirror_pose_loss": ("mirror_", "mirror_"),
        }
        # (4 * batch, feature_size), one combination after the other
        sums = torch.cat([face[face_of] + pose[pose_of] for face_of, pose_of in swaps.values()])
        decoded = self.decoder(F.normalize(sums, dim=1), groups=len(swaps)).to(pixel_values.dtype)
        targets = {name: self.resize_to_drawn_size(image) for name, image in images.items()}
        reconstructions = {
            name: F.l1_loss(image, targets[pose_of])
            for (name, (_, pose_of)), image in zip(swaps.items(), decoded.chunk(len(swaps)))
        }
        is_published = self.config.orthogonality == "cross_product"
        orthogonality = orthogonality_loss if is_published else cosine_orthogonality_loss
        independence = {f"{name}orthogonality_loss": orthogonality(face[name], pose[name]) for name in images}
        total = sum(reconstructions.values()) + self.config.orthogonality_weight * sum(independence.values())
        return {"disentangling_loss": total, **reconstructions, **independence}

    def resize_to_drawn_size(self, images: torch.Tensor) -> torch.Tensor:
        """Resize `(batch, channels, side, side)` images to the side of the images that the decoder draws."""
        side = self.config.drawn_size
        if side == images.shape[-1]:
            return images
        return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)

    def _compute_face_contrast(
        self,
        views: torch.Tensor,
        mix: torch.Tensor | None,
        permutation: torch.Tensor | None,
        turns: torch.Tensor | None,
        maps: list | None,
    ) -> dict[str, torch.Tensor]:
        check_images("face_views", views, self.config.num_channels, self.config.image_size)
        if views.shape[0] % 2:
            raise ValueError(f"`face_views` must hold two views of every image, got {views.shape[0]} views.")
        # Both views in one pass, so that the batch norm of the projection head normalises them together.
        features = self._encode(views, maps)
        embeddings = self.face_projection(features["face"])
        first, second = (gather_rows(view) for view in embeddings.chunk(2))  # Each (processes * batch, dim)
        images = embeddings.shape[0] // 2
        local_rows = torch.arange(images, device=embeddings.device) + rank() * images
        # The anchors are the rows of this process: its first views, and its second views behind all first views.
        anchors = torch.cat([local_rows, local_rows + first.shape[0]])
        rows = torch.cat([first, second])
        loss = mixed_negative_loss(rows, mix, permutation, self.config.face_temperature, anchors=anchors)
        if self.turn_head is None:
            return {"face_contrast_loss": loss}
        if turns is None:
            raise ValueError(
                "`turn_weight` needs `face_turns`: give `face_turn_probability`, so that views are turned."
            )
        errors = self.turn_head(features["pose"]).float() - turns
        turn_loss = errors.where(~turns.isnan(), 0.0).square().mean()
        return {"face_contrast_loss": loss + self.config.turn_weight * turn_loss, "turn_loss": turn_loss}

    def _compute_pose_contrast(
        self,
        views: torch.Tensor,
        negative_views: torch.Tensor,
        mix: torch.Tensor | None,
        permutation: torch.Tensor | None,
        maps: list | None,
    ) -> torch.Tensor:
        check_images("pose_views", views, self.config.num_channels, self.config.image_size)
        check_images("pose_negative_views", negative_views, self.config.num_channels, self.config.image_size, axes=5)
        images, count = negative_views.shape[:2]
        if views.shape[0] != 2 * images:
            raise ValueError(
                f"`pose_views` must hold two views of each of the {images} images that `pose_negative_views` mirrors, "
                f"got {views.shape[0]} views."
            )
        # Two projections, because the many negatives would dominate the batch norm statistics of the few views.
        pose_features = self._encode_pose(views, negative_views.flatten(0, 1), maps)
        queries, negatives = (self.pose_projection(features) for features in pose_features)
        negatives = negatives.unflatten(0, (images, count))  # (images * K, dim) -> (images, K, dim)
        if self.config.pose_negatives == "batch":
            negatives = _distribute_negatives(negatives)
        return info_nce_loss(pose_logits(queries, negatives, mix, permutation, self.config.pose_temperature))

    def _encode_pose(self, views: torch.Tensor, negatives: torch.Tensor, maps: list | None) -> tuple[torch.Tensor, ...]:
        """Encode the pose features of views and negatives, in one pass if both get a gradient."""
        if self.config.pose_negative_gradient:
            features = self._encode(torch.cat([views, negatives]), maps)["pose"]
            return features.split([views.shape[0], negatives.shape[0]])
        # Without gradient through the negatives, the objective costs about a third.
        queries = self._encode(views, maps)["pose"]
        with torch.no_grad():
            return queries, self._encode(negatives, maps)["pose"]

    def _encode(self, images: torch.Tensor, maps: list | None = None) -> dict[str, torch.Tensor]:
        """Encode face and pose features, on a CPU in chunks whose maps stay in its cache.

        Args:
            images: `(batch, ...)`.
            maps: List to which the maps of the five stages of each chunk are appended; None keeps no maps.

        Returns:
            `face` and `pose`, each `(batch, feature_size)`.
        """
        device, count = images.device.type, images.shape[0]
        is_checkpointed = self.images_at_once is not None and count > self.images_at_once
        size = min(self.images_at_once if is_checkpointed else count, CPU_CHUNK if device == "cpu" else count)
        encode = partial(checkpoint, self.pcl, use_reentrant=False) if is_checkpointed else self.pcl
        # Autocast's cache of half-precision weights would sum the gradients of the chunks in half precision; without it
        # they are summed in full precision.
        autocast = {"enabled": torch.is_autocast_enabled(device), "dtype": torch.get_autocast_dtype(device)}
        with torch.autocast(device, **autocast, cache_enabled=size >= count):
            # The objectives compare an image with its mirror, which a feature without the difference could not tell.
            options = {"output_hidden_states": maps is not None, "mirror_invariant_face": False, "return_dict": True}
            outputs = [encode(part, **options) for part in images.split(size)]
        if maps is not None:
            maps += [output.hidden_states for output in outputs]
        return {name: torch.cat([output[f"{name}_features"] for output in outputs]) for name in ("face", "pose")}


class SavedPCLModel:
    """An Auto class for pipelines that opens a folder as the class that was saved there.

    The pipeline can then check whether it supports that class.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs) -> PCLPreTrainedModel:
        """Open a folder or a Hub id.

        Args:
            pretrained_model_name_or_path: The folder or id.
            **kwargs: Arguments of transformers' `from_pretrained`.

        Raises:
            ValueError: If the folder or id does not hold a PCL model.
        """
        config, _ = AutoConfig.from_pretrained(pretrained_model_name_or_path, return_unused_kwargs=True, **kwargs)
        if not isinstance(config, PCLConfig):
            raise ValueError(f"`{pretrained_model_name_or_path}` is not a PCL model but a {config.model_type!r} model.")
        classes = (PCLForPreTraining, PCLForImageClassification, PCLForHeadPoseEstimation)
        model_class = next((kind for kind in classes if kind.__name__ in config.architectures), PCLModel)
        return model_class.from_pretrained(pretrained_model_name_or_path, **kwargs)


def require_all_weights(auto_class: type) -> type:
    """Derive an Auto class for pipelines that raises `ValueError` for PCL models whose folder lacks weights.

    transformers only warns about missing weights and initialises them at random.
    """

    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs):
        kwargs["output_loading_info"] = True
        model, loading = auto_class.from_pretrained(pretrained_model_name_or_path, **kwargs)
        if isinstance(model, PCLPreTrainedModel) and loading["missing_keys"]:
            raise ValueError(
                f"`{pretrained_model_name_or_path}` is the wrong model for this pipeline: it was saved as a "
                f"{' or '.join(model.config.architectures)}, and a {type(model).__name__} would have random "
                f"{', '.join(sorted(loading['missing_keys'])[:2])}."
            )
        return model

    return type(auto_class.__name__, (auto_class,), {"from_pretrained": classmethod(from_pretrained)})


def _concatenate_maps(maps: list[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    """Concatenate the maps of several chunks of images, stage by stage."""
    # A single chunk is returned as it is, so that gradients of the loss with respect to its maps can be computed.
    return maps[0] if len(maps) == 1 else tuple(torch.cat(stage) for stage in zip(*maps))


def _distribute_negatives(negatives: torch.Tensor) -> torch.Tensor:
    """Distribute `(images, K, dim)` negatives so that each image gets K / images negatives of every image.

    This is what the authors' code computes; the paper describes each image's own negatives.
    """
    images, count, _ = negatives.shape
    if count % images:
        raise ValueError(f'`pose_negatives="batch"` needs a multiple of {images} negatives an image, got {count}.')
    # (images, K, dim) -> (images, images, K / images, dim) -> (images, K, dim)
    return negatives.unflatten(1, (images, count // images)).transpose(0, 1).flatten(1, 2)


# transformers saves the module that a class names as its own, with the modules that this one imports. With this module
# for all classes, every saved folder holds the code of all models, and a saved encoder can be opened as a classifier.
for _class in (PCLModel, PCLBackbone, PCLForImageClassification, PCLForHeadPoseEstimation):
    _class.__module__ = __name__

__all__ = [
    "PCLBackbone",
    "PCLForHeadPoseEstimation",
    "PCLForImageClassification",
    "PCLForPreTraining",
    "PCLForPreTrainingOutput",
    "PCLModel",
    "PCLModelOutput",
    "PCLPreTrainedModel",
]
