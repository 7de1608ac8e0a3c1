"""The published computation's numbers, and this package's, quantity by quantity.

`python tests/parity/golden.py` prints the largest relative error of each.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

from modeling_pcl import PCLConfig, PCLForPreTraining
from modeling_pcl.hub.conversion import REFERENCE_MODULES, convert_reference_state_dict
from modeling_pcl.losses_pcl import info_nce_loss, mixed_negative_logits, pose_logits

FOLDER = Path(__file__).parent
SHAPES = json.loads((FOLDER / "reference_state_dict_shapes.json").read_text())
SWAPS = {
    "face_pose": "face_pose",
    "face_flippose": "face_mirror_pose",
    "flipface_pose": "mirror_face_pose",
    "flipface_flippose": "mirror_face_mirror_pose",
}


# Biases whose gradient is zero by construction: a softmax over positions, or a batch norm, takes a shift of its input
# off again. The golden numbers are what rounding left, at most 1e-6, so only their smallness can be compared.
BLIND = {f"grad_norm/encoder.{stage}.2.theta.bias" for stage in ("layer1", "layer2_1")} | {
    f"grad_norm/decoder.model.{2 + 4 * block}.bias" for block in range(5)
}


def golden_values() -> dict[str, torch.Tensor]:
    values = np.load(FOLDER / "reference_values.npz", allow_pickle=False)
    return {name: torch.from_numpy(np.asarray(values[name])) for name in values.files}


def reference_tensor(name: str, shape: list[int]) -> torch.Tensor:
    """The weights rule: every tensor of the reference network follows from its name."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    normal = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(normal)
    elif len(shape) == 1:
        values = 1 + 0.1 * normal if name.endswith("weight") else 0.1 * normal
    else:
        values = normal * np.sqrt(2.0 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def reference_state_dict() -> dict[str, torch.Tensor]:
    return {name: reference_tensor(name, shape) for name, shape in SHAPES.items()}


def reference_model() -> PCLForPreTraining:
    model = PCLForPreTraining(PCLConfig())
    model.load_state_dict(convert_reference_state_dict(reference_state_dict()))
    return model


def inputs() -> dict[str, torch.Tensor]:
    random = np.random.RandomState(20230509)
    return {
        "images": torch.from_numpy(random.rand(6, 3, 64, 64).astype(np.float32)),
        "images_100": torch.from_numpy(random.rand(2, 3, 100, 100).astype(np.float32)),
        "noise": torch.from_numpy((0.4 * random.standard_normal((12, 3, 64, 64))).astype(np.float32)),
    }


@torch.no_grad()
def evaluation_values(model: PCLForPreTraining) -> dict[str, torch.Tensor]:
    """Features, embeddings and reconstructions in eval mode, by golden key."""
    model.eval()
    images = inputs()["images"]
    outputs, mirrors = model.pcl(images), model.pcl(images.flip(3))
    face = {"face": outputs.face_features, "flipface": mirrors.face_features}
    pose = {"pose": outputs.pose_features, "flippose": mirrors.pose_features}
    values = {
        "eval/trunk": outputs.pooler_output,
        "eval/face": outputs.face_features,
        "eval/pose": outputs.pose_features,
        "eval/trunk_100px": model.pcl(inputs()["images_100"]).pooler_output[:, ::16],
        "eval/face_embedding": model.face_projection(outputs.face_features),
        "eval/pose_embedding": model.pose_projection(outputs.pose_features),
    }
    for swap in SWAPS:
        face_of, pose_of = swap.split("_")
        values[f"eval/recon_{swap}"] = model.decode(face[face_of], pose[pose_of])[:, :, ::4, ::4]
    return values


def training_values(model: PCLForPreTraining) -> dict[str, torch.Tensor]:
    """The terms of objective 1 in train mode, and the gradient norm of every parameter it reaches, by golden key."""
    model.train()
    outputs = model(pixel_values=inputs()["images"], noise=inputs()["noise"])
    outputs.loss.backward()
    values = {
        "train/orth": outputs.orthogonality_loss,
        "train/orth_flip": outputs.mirror_orthogonality_loss,
        "train/total": outputs.loss,
    }
    values |= {f"train/l_{reference}": outputs[f"{ours}_loss"] for reference, ours in SWAPS.items()}
    reference_modules = {ours: reference for reference, ours in REFERENCE_MODULES.items()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            module, _, tensor = name.rpartition(".")
            values[f"grad_norm/{reference_modules[module]}.{tensor}"] = parameter.grad.norm()
    return {name: value.detach() for name, value in values.items()}


def face_contrast_values(golden: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    embeddings = golden["contrastive/z"].clone().requires_grad_()
    logits = mixed_negative_logits(embeddings, golden["contrastive/lam"], golden["contrastive/perm"], 0.07)
    loss = info_nce_loss(logits)
    loss.backward()
    return {
        "contrastive/logits": logits.detach(),
        "contrastive/loss": loss.detach(),
        "contrastive/grad": embeddings.grad,
    }


def pose_contrast_values(golden: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    queries = golden["pose/query"].clone().requires_grad_()
    negatives = golden["pose/negatives"].clone().requires_grad_()
    logits = pose_logits(queries, negatives.unflatten(0, (4, 5)), golden["pose/lam"], golden["pose/perm"], 0.07)
    loss = info_nce_loss(logits)
    loss.backward()
    return {
        "pose/logits": logits.detach(),
        "pose/loss": loss.detach(),
        "pose/grad_query": queries.grad,
        "pose/grad_negatives": negatives.grad,
    }


def computed_values() -> dict[str, torch.Tensor]:
    """Everything that the golden file holds, but the inputs, computed by this package."""
    golden, model = golden_values(), reference_model()
    return (
        evaluation_values(model) | training_values(model) | face_contrast_values(golden) | pose_contrast_values(golden)
    )


def relative_error(value: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference over the largest expected magnitude."""
    return float((value - expected).abs().max() / expected.abs().max())


def main():
    golden, groups = golden_values(), {}
    for name, value in computed_values().items():
        if name in BLIND:
            group, error = "grad_norm, zero by construction (absolute)", float(value)
        else:
            group, error = name.partition("/")[0] if "grad_norm" in name else name, relative_error(value, golden[name])
        groups[group] = max(groups.get(group, 0.0), error)
    for group, error in groups.items():
        print(f"{group:45s} {error:.1e}")


if __name__ == "__main__":
    main()
