"""A trained probe as a model that `from_pretrained` and pipelines open."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..configuration_pcl import PCLConfig
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
    """The encoder's weights under a head that is not trained yet; torch's random state stays as it was.

    Args:
        encoder: Its weights are copied.
        task: What the head says: `head_pose` three angles, or one of `PROBLEM_TYPES`.
        labels: Names of the classes or units, in order, or of the number.
        feature: What the head reads: `trunk`, `face`, `pose` or `face+pose`.
        image_size: Side of the images it reads, in px.

    Raises:
        ValueError: If two labels have one name.
    """
    if len(set(labels)) < len(labels):
        raise ValueError(f"`labels` must be different names, got {list(labels)}.")
    model_class, changes = PCLForHeadPoseEstimation, {"head_feature": feature, "image_size": image_size}
    if task != "head_pose":
        model_class = PCLForImageClassification
        changes |= {"id2label": dict(enumerate(labels)), "problem_type": PROBLEM_TYPES[task]}
        changes |= {"label2id": {label: number for number, label in enumerate(labels)}}
    # The caller's random state must not depend on how many heads were built.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(PCLConfig(**(encoder.config.to_dict() | changes)))
    model.pcl.load_state_dict(encoder.state_dict())
    model.config.name_or_path = encoder.config.name_or_path  # Whose crop of faces the head goes on with.
    return model.to(encoder.device).eval()


@torch.no_grad()
def set_head(model: Head, weight: torch.Tensor, bias: torch.Tensor):
    """Put a linear layer on raw features into a model.

    Args:
        model: Its head is overwritten.
        weight: `(outputs, head_size)`.
        bias: `(outputs,)`.

    Raises:
        ValueError: If a shape does not fit.
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
    """Write a model with the image processor of its size, and the encoder's crop, so that a pipeline opens it."""
    model.save_pretrained(folder)
    processor = PCLImageProcessor.for_image_size(model.config.image_size, like=model.config.name_or_path)
    processor.save_pretrained(folder)


def save_embedding(
    encoder: PCLModel, weight: torch.Tensor, bias: torch.Tensor, feature: str, image_size: int, folder: str | Path
):
    """Write a linear embedding, `(dim, head_size)`, as a `PCLForImageClassification` whose logits are the embedding.

    All other arguments are as for `build_head`.
    """
    names = [f"dimension {number}" for number in range(len(bias))]
    model = build_head(encoder, "embedding", names, feature, image_size)
    set_head(model, weight, bias)
    save_head(model, folder)
