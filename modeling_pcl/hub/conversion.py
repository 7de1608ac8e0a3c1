"""Conversion of the authors' released checkpoints to state dicts of this package's models, and back."""

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
    # Module of the authors' network, module of this package, positions of the two convolutions in the former.
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
_BATCH_NORM_EPS = 1e-5  # Default of torch.


def _map_module_names() -> dict[str, str]:
    """Map the names of the authors' modules to this package's, for every module that holds tensors."""
    names = {}
    for reference, module, first, second in _STAGES:
        names[f"{reference}.{first}"] = f"{module}.conv1"
        names[f"{reference}.{second}"] = f"{module}.conv2"
    for stage in (1, 2):
        reference = _STAGES[stage][0]
        names |= {
            f"{reference}.2.{letter}": f"pcl.trunk.stages.{stage}.attention.{_ATTENTION[letter]}"
            for letter in _ATTENTION
        }
    for block in (0, 1):
        names |= {f"encoder.resblock{block + 1}.conv{c}": f"pcl.trunk.stages.2.blocks.{block}.conv{c}" for c in (1, 2)}
    for reference, module in (("exp_fc", "face_projection"), ("pose_fc", "pose_projection")):
        names |= {f"{reference}.{place}": f"{module}.{name}" for place, name in {0: "fc1", 2: "fc2", 3: "norm"}.items()}
    names["decoder.fc"] = "decoder.fc"
    # The authors' decoder is one Sequential: ReLU, then upsampling, convolution, batch norm and ReLU in turn.
    for block in range(_DECODER_CONVOLUTIONS):
        names[f"decoder.model.{2 + 4 * block}"] = f"decoder.blocks.{block}.conv"
        if block + 1 < _DECODER_CONVOLUTIONS:  # The last convolution has no batch norm.
            names[f"decoder.model.{3 + 4 * block}"] = f"decoder.norms.{block}"
    return names


REFERENCE_MODULES = _map_module_names()
_PACKAGE_MODULES = {module: reference for reference, module in REFERENCE_MODULES.items()}


def _rename(name: str, modules: Mapping[str, str]) -> str:
    module, _, tensor = name.rpartition(".")
    return f"{modules[module]}.{tensor}"


def convert_reference_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of the authors' network to this package's names.

    Args:
        state_dict: The `state_dict` of a released checkpoint, with or without the prefix `module.`: the pre-training
            network, or the backbone (`encoder.`) with a `linear_classifier`.

    Returns:
        State dict of `PCLForPreTraining`, or of `PCLForImageClassification` if there is a `linear_classifier`. A batch
        norm before the classifier is folded into it. The projection heads and the decoder of a backbone checkpoint are
        left out, because the classification model does not have them.

    Raises:
        ValueError: If a tensor is missing, is not part of the network, or has another shape than the published one. The
            message names every such tensor.
    """
    reference = _remove_prefix(state_dict)
    classifier = {name: reference.pop(name) for name in list(reference) if name.startswith("linear_classifier.")}
    expected = {_rename(name, _PACKAGE_MODULES): shape for name, shape in _build_published_shapes().items()}
    if classifier:
        backbone = {name: shape for name, shape in expected.items() if name.startswith("encoder.")}
        reference = {name: tensor for name, tensor in reference.items() if name in backbone or name not in expected}
        expected = backbone
    _check_complete(reference, expected)
    converted = {_rename(name, REFERENCE_MODULES): tensor for name, tensor in reference.items()}
    return converted | _fold_classifier(classifier) if classifier else converted


def revert_to_reference_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of a full-width `PCLForPreTraining` to the authors' names, without `module.`.

    Args:
        state_dict: State dict of `PCLForPreTraining`.

    Returns:
        State dict for the authors' network. `convert_reference_state_dict` is the inverse.

    Raises:
        ValueError: If a tensor is missing, is not part of the network, or has another shape than the published one.
    """
    _check_complete(state_dict, _build_published_shapes())
    return {_rename(name, _PACKAGE_MODULES): tensor for name, tensor in state_dict.items()}


def _remove_prefix(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    duplicates = [name for name in state_dict if f"module.{name}" in state_dict]
    if duplicates:
        raise ValueError(f"The checkpoint holds tensors both with and without `module.`: {', '.join(duplicates)}.")
    return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}


def _build_published_shapes() -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors of the full-width `PCLForPreTraining`."""
    with torch.device("meta"):
        model = PCLForPreTraining(PCLConfig())
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _check_complete(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]]):
    faults = [f"missing: {name}" for name in expected if name not in tensors]
    faults += [f"not part of the network: {name}" for name in tensors if name not in expected]
    faults += [
        f"{name} is {tuple(tensors[name].shape)}, must be {shape}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if faults:
        raise ValueError("This is not a checkpoint of the published PCL network. " + "; ".join(faults) + ".")


def _fold_classifier(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert the `linear_classifier.…` tensors, an optional batch norm and a linear layer, to one linear layer."""
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
        # In evaluation a batch norm is x * scale + shift for each feature, so W (x * scale + shift) + b is
        # (W * scale) x + (b + W shift).
        scale = tensors[f"{norm}weight"] / (tensors[f"{norm}running_var"] + _BATCH_NORM_EPS).sqrt()
        shift = tensors[f"{norm}bias"] - tensors[f"{norm}running_mean"] * scale
        weight, bias = weight * scale, bias + weight @ shift
    return {"classifier.weight": weight, "classifier.bias": bias}


def infer_image_size(weight: torch.Tensor, config: PCLConfig) -> int:
    """Infer the image size that a linear layer on flattened features was trained at.

    Args:
        weight: `(labels, channels * n * n)`, where `channels` is the number of channels of the maps that the head
            reads.
        config: Configuration with `feature_channels` and `head_feature`.

    Returns:
        Side in px: 100 for n = 7, which is the published size, and otherwise 16 n.

    Raises:
        ValueError: If the width of `weight` is not the channels times the square of an n of at least 2 (32 px).
    """
    channels = config.feature_channels * (config.head_size // config.feature_size)  # Doubled for "face+pose".
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
        path: File written by `torch.save`: `{"epoch", "state_dict": {"module.…": tensor}}` or the state dict alone.

    Raises:
        ValueError: If the file holds objects other than tensors and plain values, has no state dict, or has values that
            are not finite.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises errors of pickle, zip files and its own.
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
    """Build the model for converted tensors and load them into it.

    Args:
        state_dict: Result of `convert_reference_state_dict`.
        task: What a linear classifier in it predicts: `"classification"` or `"head_pose"`.
        head_feature: Feature that the classifier reads.
        image_size: Side in px at which the classifier was trained; None infers it from the classifier's width.

    Raises:
        ValueError: If the width or the number of outputs of the classifier does not fit.
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
    image_size = image_size or infer_image_size(weight, PCLConfig(head_feature=head_feature))
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
