"""The authors' released checkpoints, as state dicts of this package's models, and back."""

import math
import re
from collections.abc import Mapping

import torch

from ..configuration_pcl import PCLConfig
from ..modeling_pcl import (
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLPreTrainedModel,
)

_STAGES = [
    # reference module, this package's module, position of its first and second convolution
    ("encoder.conv1", "pcl.trunk.stages.0", 0, 2),
    ("encoder.layer1", "pcl.trunk.stages.1", 0, 3),
    ("encoder.layer2_1", "pcl.trunk.stages.2", 0, 3),
    ("encoder.layer2_2", "pcl.trunk.stages.3", 0, 2),
    ("encoder.layer3_1", "pcl.trunk.stages.4", 0, 2),
    ("encoder.layer3_2_exp", "pcl.face_branch", 0, 2),
    ("encoder.layer3_2_pose", "pcl.pose_branch", 0, 2),
]
_ATTENTION = {"g": "distribute", "theta": "gather", "phi": "describe"}
_DECODER_CONVOLUTIONS = 6
_BATCH_NORM_EPS = 1e-5  # torch's default


def _module_names() -> dict[str, str]:
    """Reference module names to this package's, for every module that holds tensors."""
    names = {}
    for reference, ours, first, second in _STAGES:
        names[f"{reference}.{first}"] = f"{ours}.conv1"
        names[f"{reference}.{second}"] = f"{ours}.conv2"
    for stage in (1, 2):
        reference = _STAGES[stage][0]
        names |= {
            f"{reference}.2.{letter}": f"pcl.trunk.stages.{stage}.attention.{_ATTENTION[letter]}"
            for letter in _ATTENTION
        }
    for block in (0, 1):
        names |= {f"encoder.resblock{block + 1}.conv{c}": f"pcl.trunk.stages.2.blocks.{block}.conv{c}" for c in (1, 2)}
    for reference, ours in (("exp_fc", "face_projection"), ("pose_fc", "pose_projection")):
        names |= {f"{reference}.0": f"{ours}.fc1", f"{reference}.2": f"{ours}.fc2", f"{reference}.3": f"{ours}.norm"}
    names["decoder.fc"] = "decoder.fc"
    for block in range(_DECODER_CONVOLUTIONS):
        names[f"decoder.model.{2 + 4 * block}"] = f"decoder.blocks.{block}.conv"
        if block + 1 < _DECODER_CONVOLUTIONS:  # The last convolution has no batch norm.
            names[f"decoder.model.{3 + 4 * block}"] = f"decoder.norms.{block}"
    return names


REFERENCE_MODULES = _module_names()
_OWN_MODULES = {ours: reference for reference, ours in REFERENCE_MODULES.items()}


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    module, _, tensor = name.rpartition(".")
    return f"{modules[module]}.{tensor}"


def convert_reference_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of the authors' network to this package's names.

    Args:
        state_dict: The released checkpoint's `state_dict`, its names with or without `module.`: the pre-training
            network, or the backbone (`encoder.`) with a `linear_classifier`.

    Returns:
        State dict of `PCLForPreTraining`, or of `PCLForImageClassification` where there is a `linear_classifier`. A
        batch norm in front of the classifier is folded into it; a backbone checkpoint's projection heads and decoder,
        which the classification model does not have, are left out.

    Raises:
        ValueError: If a tensor is missing, is not part of the network, or has another shape than the published one;
            the message names every such tensor.
    """
    reference = _without_prefix(state_dict)
    classifier = {name: reference.pop(name) for name in list(reference) if name.startswith("linear_classifier.")}
    expected = {_renamed(name, _OWN_MODULES): shape for name, shape in _published_shapes().items()}
    if classifier:
        backbone = {name: shape for name, shape in expected.items() if name.startswith("encoder.")}
        reference = {name: tensor for name, tensor in reference.items() if name in backbone or name not in expected}
        expected = backbone
    _check_complete(reference, expected)
    converted = {_renamed(name, REFERENCE_MODULES): tensor for name, tensor in reference.items()}
    return converted | _fold_classifier(classifier) if classifier else converted


def revert_to_reference_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of a full-width `PCLForPreTraining` to the authors' names, without `module.`.

    Args:
        state_dict: State dict of `PCLForPreTraining`.

    Returns:
        The state dict that the authors' network loads; `convert_reference_state_dict` undoes it.

    Raises:
        ValueError: If a tensor is missing, is not part of the network, or has another shape than the published one.
    """
    _check_complete(state_dict, _published_shapes())
    return {_renamed(name, _OWN_MODULES): tensor for name, tensor in state_dict.items()}


def _without_prefix(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    twice = [name for name in state_dict if f"module.{name}" in state_dict]
    if twice:
        raise ValueError(f"The checkpoint holds tensors both with and without `module.`: {', '.join(twice)}.")
    return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}


def _published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the full-width `PCLForPreTraining`."""
    with torch.device("meta"):
        model = PCLForPreTraining(PCLConfig())
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _check_complete(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]]):
    complaints = [f"missing: {name}" for name in expected if name not in tensors]
    complaints += [f"not part of the network: {name}" for name in tensors if name not in expected]
    complaints += [
        f"{name} is {tuple(tensors[name].shape)}, must be {shape}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if complaints:
        raise ValueError("This is not a checkpoint of the published PCL network. " + "; ".join(complaints) + ".")


def _fold_classifier(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`linear_classifier.…` tensors, one linear layer behind an optional batch norm, as one linear layer."""
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    weights = [name for name, tensor in tensors.items() if name.endswith("weight") and tensor.dim() == 2]
    if len(weights) != 1:
        raise ValueError(f"`linear_classifier` must hold one linear layer, got {sorted(tensors)}.")
    layer, weight = weights[0].removesuffix("weight"), tensors[weights[0]]
    labels, features = weight.shape
    expected = {f"{layer}weight": (labels, features), f"{layer}bias": (labels,)}
    defaults = {f"{layer}bias": weight.new_zeros(labels)}
    norms = [name.removesuffix("running_mean") for name in tensors if name.endswith("running_mean")]
    for norm in norms[:1]:
        expected |= {f"{norm}{name}": (features,) for name in ("running_mean", "running_var", "weight", "bias")}
        if f"{norm}weight" not in tensors and f"{norm}bias" not in tensors:  # affine=False
            defaults |= {f"{norm}weight": weight.new_ones(features), f"{norm}bias": weight.new_zeros(features)}
    tensors = defaults | tensors
    _check_complete(tensors, expected)
    bias = tensors[f"{layer}bias"]
    for norm in norms:
        # w (x - mean) / std * weight + ...: batch norm in evaluation is one scale and one shift for each feature.
        scale = tensors[f"{norm}weight"] / (tensors[f"{norm}running_var"] + _BATCH_NORM_EPS).sqrt()
        shift = tensors[f"{norm}bias"] - tensors[f"{norm}running_mean"] * scale
        weight, bias = weight * scale, bias + weight @ shift
    return {"classifier.weight": weight, "classifier.bias": bias}


def classifier_image_size(weight: torch.Tensor, config: PCLConfig) -> int:
    """Image size whose flattened features a linear layer reads, in px: 64, 100 or 256 where published, else 16 n.

    Args:
        weight: `(labels, channels * n * n)`, where the channels are those of the maps that the head reads.
        config: Gives `feature_channels` and `head_feature`.

    Raises:
        ValueError: If the width of `weight` is not the channels times a square, of 2 (32 px) or more.
    """
    channels = config.feature_channels * (config.head_size // config.feature_size)  # Of one map, or of two.
    side = math.isqrt(weight.shape[1] // channels)
    if side < 2 or channels * side**2 != weight.shape[1]:
        raise ValueError(
            f"`linear_classifier` reads {weight.shape[1]} features, not {channels} times a square of 2 or more; "
            f"is `{config.head_feature}` what it reads?"
        )
    return 100 if side == 7 else 16 * side


def load_reference_checkpoint(path: str) -> dict[str, torch.Tensor]:
    """Open an authors' checkpoint file without running any code in it.

    Args:
        path: A file written by `torch.save`: `{"epoch", "state_dict": {"module.…": tensor}}` or the state dict alone.

    Raises:
        ValueError: If the file holds anything but tensors and plain values, no state dict, or values that are not
            finite.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises pickle, zip and runtime errors alike
        reason = re.split(r"\n|\. ", str(error).strip())[0]
        raise ValueError(f"{path} is not a checkpoint of tensors that can be opened safely: {reason}.") from error
    state_dict = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    is_filled = isinstance(state_dict, dict) and len(state_dict) > 0
    if not is_filled or not all(isinstance(tensor, torch.Tensor) for tensor in state_dict.values()):
        raise ValueError(f"{path} holds no `state_dict` of tensors.")
    for name, tensor in state_dict.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{path} does not open: the weights `{name}` are not finite.")
    return dict(state_dict)


def build_converted_model(
    state_dict: dict, task: str = "classification", head_feature: str = "trunk", image_size: int | None = None
) -> PCLPreTrainedModel:
    """Make the model that converted tensors are for, with these tensors.

    Args:
        state_dict: As `convert_reference_state_dict` returns it.
        task: What a linear classifier in it predicts, `"classification"` or `"head_pose"`.
        head_feature: Which feature it reads.
        image_size: Side in px that it was trained at; by default from its width.

    Raises:
        ValueError: If the classifier is of another width or another number of outputs.
    """
    if "classifier.weight" not in state_dict:
        model = PCLForPreTraining(PCLConfig())
    else:
        model = _build_model_with_head(state_dict["classifier.weight"], task, head_feature, image_size)
        if task == "head_pose":
            state_dict = {name.replace("classifier.", "regressor."): tensor for name, tensor in state_dict.items()}
    model.load_state_dict(state_dict)
    return model


def _build_model_with_head(
    weight: torch.Tensor, task: str, head_feature: str, image_size: int | None
) -> PCLPreTrainedModel:
    labels, features = weight.shape
    image_size = image_size or classifier_image_size(weight, PCLConfig(head_feature=head_feature))
    config = PCLConfig(image_size=image_size, head_feature=head_feature, num_labels=labels)
    if config.head_size != features:
        raise ValueError(
            f"`linear_classifier` reads {features} features, images of {image_size} px have {config.head_size}; "
            "leave `--image_size` out, or give another `--head_feature`."
        )
    if task == "classification":
        return PCLForImageClassification(config)
    if labels != 3:
        raise ValueError(f"`linear_classifier` predicts {labels} values, head pose has 3: yaw, pitch, roll.")
    return PCLForHeadPoseEstimation(config)
