"""Plain implementation of a training iteration, close to the text of the paper.

It uses float32 and the default memory format, calls every layer separately, decodes four times, materialises negatives,
makes three Adam steps, and makes views image by image with PIL. Tests compare the losses, gradients and steps of
`scripts/pretrain.py` with it, and `scripts/benchmark.py` compares time and memory.
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


# The forward passes of a `PCLForPreTraining`, layer by layer.


def encode(model: PCLForPreTraining, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Compute face and pose features, each `(batch, feature_size)`."""
    slope = model.config.negative_slope
    hidden_state = images
    for stage in model.pcl.trunk.stages:
        hidden_state = _apply_stage(stage, hidden_state, slope)
    branches = {"face": model.pcl.face_branch, "pose": model.pcl.pose_branch}
    return {name: _apply_stage(branch, hidden_state, slope).flatten(1) for name, branch in branches.items()}


def _apply_stage(stage: nn.Module, hidden_state: torch.Tensor, slope: float) -> torch.Tensor:
    hidden_state = F.leaky_relu(stage.conv1(hidden_state), slope)
    if not isinstance(stage.attention, nn.Identity):
        hidden_state = F.leaky_relu(hidden_state + _apply_attention(stage.attention, hidden_state), slope)
    hidden_state = F.leaky_relu(stage.conv2(hidden_state), slope)
    for block in stage.blocks:
        residual = block.conv2(F.leaky_relu(block.conv1(hidden_state), slope))
        hidden_state = F.leaky_relu(hidden_state + residual, slope)
    return hidden_state


def _apply_attention(attention: nn.Module, hidden_state: torch.Tensor) -> torch.Tensor:
    shares = attention.gather(hidden_state).flatten(2).softmax(dim=2)  # (batch, C, h * w), over positions
    descriptors = attention.describe(hidden_state).flatten(2) @ shares.transpose(1, 2)  # (batch, C, C)
    vectors = attention.distribute(hidden_state).flatten(2).softmax(dim=1)  # over channels
    return (descriptors @ vectors).view_as(hidden_state)


def decode(model: PCLForPreTraining, face: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """Decode images, `(batch, 3, size, size)` in (-1, 1)."""
    decoder = model.decoder
    hidden_state = F.relu(decoder.fc(F.normalize(face + pose, dim=1)))[:, :, None, None]
    for block, norm in zip(decoder.blocks, [*decoder.norms, None]):
        hidden_state = F.interpolate(hidden_state, size=(block.size_px, block.size_px), mode="bilinear")
        hidden_state = block.conv(hidden_state)
        hidden_state = torch.tanh(hidden_state) if norm is None else F.relu(norm(hidden_state))
    return hidden_state


# The objectives, whose arguments have the names of those of `PCLForPreTraining.forward`.


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
    """Make one optimizer step for each objective.

    Args:
        model: The model.
        optimizer: Its optimizer.
        inputs: Arguments of each objective.

    Returns:
        Loss of each objective.
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
    """A dataset whose items are all views of an image for an iteration. The image is decoded once.

    Only the first `pose_images` images have views for the pose contrast.

    Args:
        corpus: Corpus with a column `image`.
        image_size_px: Side of the views.
        pose_images: Number of images of the pose contrast.
        negatives: Number of views of the mirror of each.
    """

    def __init__(self, corpus: Dataset, image_size_px: int, pose_images: int, negatives: int):
        self.rows = corpus.cast_column("image", Image())
        self.makers = {name: PerImageViews(corpus, name, image_size_px, negatives).make_views for name in OBJECTIVES}
        self.pose_images = pose_images

    def __getitem__(self, place_and_row: tuple[int, int]) -> dict[str, torch.Tensor]:
        place, row = place_and_row
        square = cut_square(self.rows[row]["image"])
        has_pose_views = place < self.pose_images
        return {name: make(square) for name, make in self.makers.items() if has_pose_views or name != "pose_contrast"}


def make_inputs(views: IterationViews, rows: list[int], workers: int) -> dict[str, dict[str, torch.Tensor]]:
    """Make the inputs of each objective from the images in `rows`, in `workers` processes with equal parts of them."""
    order = list(enumerate(rows))
    shares = [order[worker::workers] for worker in range(workers)]
    loader = DataLoader(views, batch_sampler=shares, num_workers=workers, collate_fn=list)
    items = [item for share in loader for item in share]
    # (images, views, 3, size, size)
    all_views = {name: torch.stack([item[name] for item in items if name in item]) for name in OBJECTIVES}
    return {name: INPUTS[name](views) for name, views in all_views.items()}


def _make_disentangling_inputs(views: torch.Tensor) -> dict[str, torch.Tensor]:
    clean = views[:, 0]
    noise = torch.cat([views[:, 1] - clean, views[:, 2] - clean.flip(3)])
    return {"pixel_values": clean, "noise": noise}


def _make_face_contrast_inputs(views: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = 2 * len(views)
    mix = torch.distributions.Beta(MIXING_ALPHA, MIXING_ALPHA).sample((rows, rows - 2))
    views = views.transpose(0, 1).flatten(0, 1)
    return {"face_views": views, "face_mix": mix, "face_permutation": torch.randperm(rows - 2)}


def _make_pose_contrast_inputs(views: torch.Tensor) -> dict[str, torch.Tensor]:
    images, negatives = len(views), views.shape[1] - 2
    mix = torch.distributions.Beta(MIXING_ALPHA, MIXING_ALPHA).sample((images, negatives))
    return {
        "pose_views": views[:, :2].transpose(0, 1).flatten(0, 1),
        "pose_negative_views": views[:, 2:],
        "pose_mix": mix,
        "pose_permutation": torch.randperm(negatives),
    }


# Functions from the views of an objective, `(images, views, 3, size, size)`, to its inputs.
INPUTS: dict[str, Callable[[torch.Tensor], dict[str, torch.Tensor]]] = {
    "disentangling": _make_disentangling_inputs,
    "face_contrast": _make_face_contrast_inputs,
    "pose_contrast": _make_pose_contrast_inputs,
}
