"""Trained probes as models that `from_pretrained` and pipelines can open."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..configuration_pcl import PCLConfig
from ..features_pcl import feature_parts
from ..image_processing_pcl import PCLImageProcessor
from ..modeling_pcl import PCLForHeadPoseEstimation, PCLForImageClassification, PCLModel

PROBLEM_TYPES = {
    "expression": "single_label_classification",
    "action_units": "multi_label_classification",
    "regression": "regression",
    "embedding": "regression",
}
Head = PCLForImageClassification | PCLForHeadPoseEstimation


def build_head(encoder: PCLModel, task: str, labels: Sequence[str], feature: str, image_size: int) -> Head:
    """Build a model with the encoder's weights and an untrained head. torch's random state stays unchanged.

    Args:
        encoder: Encoder whose weights are copied.
        task: `head_pose` for a head with three angles, or a key of `PROBLEM_TYPES`.
        labels: Names of the classes or units, in order, or of the number.
        feature: Feature that the head reads: `trunk`, `face`, `pose` or `face+pose`.
        image_size: Side of the input images, in px.

    Returns:
        The model, in eval mode, on the device of the encoder.

    Raises:
        ValueError: If two labels have the same name.
    """
    if len(set(labels)) < len(labels):
        raise ValueError(f"`labels` must be different names, got {list(labels)}.")
    model_class, changes = PCLForHeadPoseEstimation, {"head_feature": feature, "image_size": image_size}
    if "face" not in feature_parts(feature):
        changes["mirror_invariant_face"] = False  # It would cost time and change nothing.
    if task != "head_pose":
        model_class = PCLForImageClassification
        changes |= {"id2label": dict(enumerate(labels)), "problem_type": PROBLEM_TYPES[task]}
        changes |= {"label2id": {label: number for number, label in enumerate(labels)}}
    # Building a head must not change the caller's random state.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(PCLConfig(**(encoder.config.to_dict() | changes)))
    model.pcl.load_state_dict(encoder.state_dict())
    model.config.name_or_path = encoder.config.name_or_path  # `save_head` copies the face crop from there.
    return model.to(encoder.device).eval()


@torch.no_grad()
def set_head(model: Head, weight: torch.Tensor, bias: torch.Tensor):
    """Copy a linear layer on raw features into the head of a model.

    Args:
        model: Model whose head is overwritten.
        weight: `(outputs, head_size)`.
        bias: `(outputs,)`.

    Raises:
        ValueError: If a shape does not match the head.
    """
    layer = model.regressor if isinstance(model, PCLForHeadPoseEstimation) else model.classifier
    if layer.weight.shape != weight.shape or layer.bias.shape != bias.shape:
        raise ValueError(
            f"`weight` and `bias` must be {tuple(layer.weight.shape)} and {tuple(layer.bias.shape)}, "
            f"got {tuple(weight.shape)} and {tuple(bias.shape)}."
        )
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


def save_head(model: Head, folder: str | Path):
    """Save a model, and an image processor for its image size with the encoder's face crop, for use in a pipeline."""
    model.save_pretrained(folder)
    processor = PCLImageProcessor.for_image_size(model.config.image_size, like=model.config.name_or_path)
    processor.save_pretrained(folder)


def save_embedding(
    encoder: PCLModel, weight: torch.Tensor, bias: torch.Tensor, feature: str, image_size: int, folder: str | Path
):
    """Save a linear embedding as a `PCLForImageClassification` whose logits are the embedding.

    Args:
        encoder: As for `build_head`.
        weight: `(dim, head_size)`.
        bias: `(dim,)`.
        feature: As for `build_head`.
        image_size: As for `build_head`.
        folder: Folder to write to.
    """
    names = [f"dimension {number}" for number in range(len(bias))]
    model = build_head(encoder, "embedding", names, feature, image_size)
    set_head(model, weight, bias)
    save_head(model, folder)
