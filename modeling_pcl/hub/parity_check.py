"""Open the folder of a repository without `modeling_pcl`, and compare its outputs with its parity tensors:

python -I parity_check.py FOLDER

Runs in a separate process, in which `modeling_pcl` cannot be imported. Prints a JSON object with, for each output, the
largest difference from the stored tensor divided by the largest stored value.
"""

import importlib.abc
import json
import sys
from pathlib import Path

import torch

FILE, INPUT = "parity.safetensors", "pixel_values"
AUTO_CLASSES = {
    "PCLModel": "AutoModel",
    "PCLForPreTraining": "AutoModelForPreTraining",
    "PCLForImageClassification": "AutoModelForImageClassification",
    "PCLForHeadPoseEstimation": "AutoModelForImageClassification",
}


@torch.no_grad()
def compute_parity_outputs(model: torch.nn.Module, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Compute all outputs of a model of any PCL class, by name."""
    encoded = model.base_model(pixel_values)
    outputs = {name: encoded[name] for name in ("pooler_output", "face_features", "pose_features")}
    if hasattr(model, "decode"):
        outputs["decoded"] = model.decode(encoded.face_features, encoded.pose_features)
    if hasattr(model, "classifier") or hasattr(model, "regressor"):
        outputs["logits"] = model(pixel_values).logits
    return outputs


class _BlockPackage(importlib.abc.MetaPathFinder):
    """Import hook that makes `modeling_pcl` look as if it were not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_pcl":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(folder: Path):
    sys.meta_path.insert(0, _BlockPackage())
    import transformers
    from safetensors.torch import load_file

    trust = {"trust_remote_code": True}
    config = transformers.AutoConfig.from_pretrained(folder, **trust)
    transformers.AutoImageProcessor.from_pretrained(folder, **trust)
    auto_class = getattr(transformers, AUTO_CLASSES[config.architectures[0]])
    model = auto_class.from_pretrained(folder, **trust).eval()
    stored = load_file(folder / FILE)
    outputs = compute_parity_outputs(model, stored.pop(INPUT))
    if outputs.keys() != stored.keys():
        sys.exit(f"{FILE} holds {sorted(stored)}, but the model computes {sorted(outputs)}")
    difference = {
        name: ((outputs[name] - stored[name]).abs().max() / stored[name].abs().max().clamp_min(1e-12)).item()
        for name in stored
    }
    print(json.dumps(difference))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
