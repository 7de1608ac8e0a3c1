"""Opening of saved models by folder or Hub id, with the class that was saved."""

import hashlib
import json
from collections.abc import Mapping

from ..configuration_pcl import PCLConfig
from ..files import report_open_errors
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
    """Determine the kind of a saved model.

    Args:
        config: Content of `config.json`, with `architectures`, `problem_type`, `verification_threshold`, and `id2label`
            if the model has labels.

    Returns:
        `pretrained`, `expression` (any classes), `action_units`, `head_pose`, `regression` (one number), or
        `verification` (an embedding, or an encoder with a threshold).
    """
    architecture = (config.get("architectures") or ["PCLModel"])[0]
    if architecture == "PCLForHeadPoseEstimation":
        return "head_pose"
    if architecture == "PCLForImageClassification":
        # A regression head with several outputs is an identity embedding.
        regression_kind = "regression" if len(config.get("id2label", ())) == 1 else "verification"
        kinds = {"regression": regression_kind, "multi_label_classification": "action_units"}
        return kinds.get(config["problem_type"], "expression")
    is_verifier = architecture == "PCLModel" and config["verification_threshold"] is not None
    return "verification" if is_verifier else "pretrained"


def open_encoder(name: str, kind: type[PCLPreTrainedModel] = PCLModel) -> PCLPreTrainedModel:
    """Open the encoder of a folder or a Hub id, or the whole model if `kind` is its class.

    Raises:
        ValueError: If the model cannot be opened for any reason, has weights that are not finite, or is not a PCL
            model.
    """
    with report_open_errors(f"The model `{name}`"):
        model, loading = kind.from_pretrained(name, output_loading_info=True)
    if loading["missing_keys"] or loading["mismatched_keys"]:
        raise ValueError(f"`{name}` is not a PCL model: it lacks {sorted(loading['missing_keys'])[:3]}.")
    return model


def open_model(name: str) -> PCLPreTrainedModel:
    """Open the model of a folder or a Hub id with the class that was saved.

    Raises:
        ValueError: If the model cannot be opened, or is not a PCL model.
    """
    try:
        architectures = PCLConfig.from_pretrained(name).architectures or []
    except Exception:  # A broken file may cause any exception.
        architectures = []  # `open_encoder` reports the error.
    return open_encoder(name, next((CLASSES[kind] for kind in architectures if kind in CLASSES), PCLModel))


def model_digest(model) -> str:
    """Compute an identifier of an encoder: a SHA-256 over its sizes and weights, the same on every machine.

    Args:
        model: A `PCLModel`.

    Returns:
        `sha256:` and the first 16 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps([model.config.hidden_sizes, model.config.negative_slope]).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"
