"""The plain way to make a training iteration, as the paper describes it and as one would write it down.

Float32, default memory format, every layer called by itself, four decodings, negatives written out, three Adam steps,
and views made image by image with PIL. What `scripts/pretrain.py` is compared with: by tests in its losses, gradients
and steps, by `scripts/benchmark.py` in how fast, and in how much memory.
"""

from collections.abc import Callable

import torch
from datasets import Dataset, Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from modeling_pcl import PCLForPreTraining

from .materialised_loss import materialised_face_loss, materialised_pose_loss
from .per_image_views import PerImageViews, cut_square

NOISE_STD, MIXING_ALPHA = 0.4, 1.6


# The layers of a `PCLForPreTraining`, called in plain words.


def encode(model: PCLForPreTraining, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Face and pose features, each `(batch, feature_size)`."""
    slope = model.config.negative_slope
    hidden_state = images
    for stage in model.pcl.trunk.stages:
        hidden_state = _stage(stage, hidden_state, slope)
    branches = {"face": model.pcl.face_branch, "pose": model.pcl.pose_branch}
    return {name: _stage(branch, hidden_state, slope).flatten(1) for name, branch in branches.items()}


def _stage(stage: nn.Module, hidden_state: torch.Tensor, slope: float) -> torch.Tensor:
    hidden_state = F.leaky_relu(stage.conv1(hidden_state), slope)
    if not isinstance(stage.attention, nn.Identity):
        hidden_state = F.leaky_relu(hidden_state + _attended(stage.attention, hidden_state), slope)
    hidden_state = F.leaky_relu(stage.conv2(hidden_state), slope)
    for block in stage.blocks:
        residual = block.conv2(F.leaky_relu(block.conv1(hidden_state), slope))
        hidden_state = F.leaky_relu(hidden_state + residual, slope)
    return hidden_state


def _attended(attention: nn.Module, hidden_state: torch.Tensor) -> torch.Tensor:
    shares = attention.gather(hidden_state).flatten(2).softmax(dim=2)  # (batch, C, h * w), over positions
    descriptors = attention.describe(hidden_state).flatten(2) @ shares.transpose(1, 2)  # (batch, C, C)
    vectors = attention.distribute(hidden_state).flatten(2).softmax(dim=1)  # over channels
    return (descriptors @ vectors).view_as(hidden_state)


def decode(model: PCLForPreTraining, face: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """Images `(batch, 3, size, size)` in (-1, 1)."""
    decoder = model.decoder
    hidden_state = F.relu(decoder.fc(F.normalize(face + pose, dim=1)))[:, :, None, None]
    for block, norm in zip(decoder.blocks, [*decoder.norms, None]):
        hidden_state = F.interpolate(hidden_state, size=(block.size_px, block.size_px), mode="bilinear")
        hidden_state = block.conv(hidden_state)
        hidden_state = torch.tanh(hidden_state) if norm is None else F.relu(norm(hidden_state))
    return hidden_state


# The objectives, with the names of `PCLForPreTraining.forward`'s arguments.


def disentangling(model: PCLForPreTraining, pixel_values: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    mirrors = pixel_values.flip(3)
    noise, mirror_noise = noise.chunk(2)
    features, mirror_features = encode(model, pixel_values + noise), encode(model, mirrors + mirror_noise)
    face, pose = features["face"], features["pose"]
    mirror_face, mirror_pose = mirror_features["face"], mirror_features["pose"]
    return (
        F.l1_loss(decode(model, face, mirror_pose), mirrors)
        + F.l1_loss(decode(model, mirror_face, pose), pixel_values)
        + F.l1_loss(decode(model, face, pose), pixel_values)
        + F.l1_loss(decode(model, mirror_face, mirror_pose), mirrors)
        + _orthogonality(face, pose)
        + _orthogonality(mirror_face, mirror_pose)
    )


def _orthogonality(face: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    def unit_rows(features: torch.Tensor) -> torch.Tensor:
        centred = features - features.mean(dim=0)
        return centred / (centred.detach().norm(dim=1, keepdim=True) + 1e-6)

    return (unit_rows(face).T @ unit_rows(pose)).square().mean()


def face_contrast(
    model: PCLForPreTraining, face_views: torch.Tensor, face_mix: torch.Tensor, face_permutation: torch.Tensor
) -> torch.Tensor:
    embeddings = model.face_projection(encode(model, face_views)["face"])
    return materialised_face_loss(embeddings, face_mix, face_permutation, model.config.face_temperature)


def pose_contrast(
    model: PCLForPreTraining,
    pose_views: torch.Tensor,
    pose_negative_views: torch.Tensor,
    pose_mix: torch.Tensor,
    pose_permutation: torch.Tensor,
) -> torch.Tensor:
    queries = model.pose_projection(encode(model, pose_views)["pose"])
    negatives = model.pose_projection(encode(model, pose_negative_views.flatten(0, 1))["pose"])
    negatives = negatives.unflatten(0, pose_negative_views.shape[:2])
    return materialised_pose_loss(queries, negatives, pose_mix, pose_permutation, model.config.pose_temperature)


OBJECTIVES: dict[str, Callable[..., torch.Tensor]] = {
    "disentangling": disentangling,
    "face_contrast": face_contrast,
    "pose_contrast": pose_contrast,
}


# The iteration.


def make_optimizer(model: PCLForPreTraining) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=1e-3)


def train_step(
    model: PCLForPreTraining, optimizer: torch.optim.Optimizer, inputs: dict[str, dict[str, torch.Tensor]]
) -> dict[str, float]:
    """One optimizer step for each objective, on inputs by objective.

    Returns:
        The losses.
    """
    losses = {}
    for objective, compute_loss in OBJECTIVES.items():
        optimizer.zero_grad(set_to_none=False)
        loss = compute_loss(model, **inputs[objective])
        loss.backward()
        optimizer.step()
        losses[objective] = loss.item()
    return losses


class IterationViews(torch.utils.data.Dataset):
    """All views of one image of an iteration an item, decoded once: those of the pose contrast for the first images.

    Args:
        corpus: With a column `image`.
        image_size_px: Side of the views.
        pose_images: Images of the pose contrast.
        negatives: Views of the mirror of each.
    """

    def __init__(self, corpus: Dataset, image_size_px: int, pose_images: int, negatives: int):
        self.rows = corpus.cast_column("image", Image())
        self.makers = {name: PerImageViews(corpus, name, image_size_px, negatives).make_views for name in OBJECTIVES}
        self.pose_images = pose_images

    def __getitem__(self, place_and_row: tuple[int, int]) -> dict[str, torch.Tensor]:
        place, row = place_and_row
        square = cut_square(self.rows[row]["image"])
        takes_part = place < self.pose_images
        return {name: make(square) for name, make in self.makers.items() if takes_part or name != "pose_contrast"}


def make_inputs(views: IterationViews, rows: list[int], workers: int) -> dict[str, dict[str, torch.Tensor]]:
    """Inputs by objective of the images in `rows`, made by as many processes, each with an equal part of the images."""
    order = list(enumerate(rows))
    shares = [order[worker::workers] for worker in range(workers)]
    loader = DataLoader(views, batch_sampler=shares, num_workers=workers, collate_fn=list)
    made = [item for share in loader for item in share]
    stacked = {
        name: torch.stack([item[name] for item in made if name in item]) for name in OBJECTIVES
    }  # (images, views, 3, size, size)
    return {name: INPUTS[name](views) for name, views in stacked.items()}


def _disentangling_inputs(views: torch.Tensor) -> dict[str, torch.Tensor]:
    clean = views[:, 0]
    noise = torch.cat([views[:, 1] - clean, views[:, 2] - clean.flip(3)])
    return {"pixel_values": clean, "noise": noise}


def _face_contrast_inputs(views: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = 2 * len(views)
    mix = torch.distributions.Beta(MIXING_ALPHA, MIXING_ALPHA).sample((rows, rows - 2))
    views = views.transpose(0, 1).flatten(0, 1)
    return {"face_views": views, "face_mix": mix, "face_permutation": torch.randperm(rows - 2)}


def _pose_contrast_inputs(views: torch.Tensor) -> dict[str, torch.Tensor]:
    images, negatives = len(views), views.shape[1] - 2
    mix = torch.distributions.Beta(MIXING_ALPHA, MIXING_ALPHA).sample((images, negatives))
    return {
        "pose_views": views[:, :2].transpose(0, 1).flatten(0, 1),
        "pose_negative_views": views[:, 2:],
        "pose_mix": mix,
        "pose_permutation": torch.randperm(negatives),
    }


# From an objective's views, `(images, views, 3, size, size)`.
INPUTS: dict[str, Callable[[torch.Tensor], dict[str, torch.Tensor]]] = {
    "disentangling": _disentangling_inputs,
    "face_contrast": _face_contrast_inputs,
    "pose_contrast": _pose_contrast_inputs,
}
