"""What a model folder or a Hub id holds, opened as what it is."""

import hashlib
import json
from collections.abc import Mapping

from ..configuration_pcl import PCLConfig
from ..files import opening
from ..modeling_pcl import (
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLModel,
    PCLPreTrainedModel,
)

CLASSES = {
    kind.__name__: kind for kind in (PCLModel, PCLForPreTraining, PCLForImageClassification, PCLForHeadPoseEstimation)
}


def model_kind(config: Mapping) -> str:
    """Name the kind of model that a saved `config.json` is of.

    Args:
        config: With `architectures`, `problem_type`, `verification_threshold`, and `id2label` where it has labels.

    Returns:
        `pretrained`, `expression` (any classes), `action_units`, `head_pose`, `regression` (one number), or
        `verification` (an embedding, or an encoder with a threshold).
    """
    architecture = (config.get("architectures") or ["PCLModel"])[0]
    if architecture == "PCLForHeadPoseEstimation":
        return "head_pose"
    if architecture == "PCLForImageClassification":
        of_numbers = "regression" if len(config.get("id2label", ())) == 1 else "verification"
        kinds = {"regression": of_numbers, "multi_label_classification": "action_units"}
        return kinds.get(config["problem_type"], "expression")
    is_verifier = architecture == "PCLModel" and config["verification_threshold"] is not None
    return "verification" if is_verifier else "pretrained"


def open_encoder(name: str, kind: type[PCLPreTrainedModel] = PCLModel) -> PCLPreTrainedModel:
    """The encoder of a folder or a Hub id, or the whole model, if `kind` is its class.

    Raises:
        ValueError: If it does not open, whatever is wrong with its files, has weights that are not finite, or holds
            another network.
    """
    with opening(f"The model `{name}`"):
        model, loading = kind.from_pretrained(name, output_loading_info=True)
    if loading["missing_keys"] or loading["mismatched_keys"]:
        raise ValueError(f"`{name}` is no PCL model: it lacks {sorted(loading['missing_keys'])[:3]}.")
    return model


def open_model(name: str) -> PCLPreTrainedModel:
    """The model of a folder or a Hub id, of the class that was saved.

    Raises:
        ValueError: If it does not open, or is no PCL model.
    """
    try:
        saved = PCLConfig.from_pretrained(name).architectures or []
    except Exception:  # Of a broken file it may be any.
        saved = []  # The next line will say why it does not open.
    return open_encoder(name, next((CLASSES[kind] for kind in saved if kind in CLASSES), PCLModel))


def model_digest(model) -> str:
    """What identifies an encoder: a SHA-256 over its sizes and weights, the same on every machine.

    Args:
        model: A `PCLModel`.
    """
    digest = hashlib.sha256(json.dumps([model.config.hidden_sizes, model.config.negative_slope]).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"
