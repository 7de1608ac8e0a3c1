"""Pictures of the decoder's reconstructions and swaps."""

import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.utils import make_grid

from ..swap_pcl import split_for_swap
from .style import new_figure, render_figure

CELL_PX, GAP_PX, NAMES_PX = 104, 6, 160


@torch.no_grad()
def reconstruct_rows(model, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Decode images and their mirrors, in all four combinations and from each branch alone.

    Args:
        model: A `PCLForPreTraining`. It is left in training or evaluation mode as it was.
        images: `(n, 3, image_size, image_size)` in [0, 1].

    Returns:
        Eight rows of n images by title. Images and mirrors have side `image_size`, the decoded ones `drawn_size`.
    """
    was_training = model.training
    model.eval()  # With the running statistics, an image does not depend on the other images of the batch.
    mirrors = images.flip(3)
    image, mirror = model.pcl(images), model.pcl(mirrors)
    zeros = torch.zeros_like(image.face_features)
    rows = {
        "image": images,
        "mirror": mirrors,
        "face of image\npose of image": model.decode(image.face_features, image.pose_features),
        "face of mirror\npose of image": model.decode(mirror.face_features, image.pose_features),
        "face of image\npose of mirror": model.decode(image.face_features, mirror.pose_features),
        "face of mirror\npose of mirror": model.decode(mirror.face_features, mirror.pose_features),
        "face alone": model.decode(image.face_features, zeros),
        "pose alone": model.decode(zeros, image.pose_features),
    }
    model.train(was_training)
    return rows


@torch.no_grad()
def swap_rows(model, images: torch.Tensor, exchange: str = "pose") -> dict[str, torch.Tensor]:
    """Decode every face in every pose: row i holds the face of image i in the poses of all images.

    Args:
        model: A `PCLForPreTraining`. It is left in training or evaluation mode as it was.
        images: `(n, 3, image_size, image_size)` in [0, 1].
        exchange: What is taken from the image that gives the pose, see `split_for_swap`.

    Returns:
        A first row with the images that give the poses, then n rows that begin with the image that gives the face. Each
        row is `(n + 1, 3, drawn_size, drawn_size)`.
    """
    was_training, count = model.training, images.shape[0]
    model.eval()
    # All n * n swaps in one pass, with face i in pose j at index i * n + j: (n * n, dim)
    kept, exchanged = split_for_swap(model.pcl, images, exchange)
    faces, poses = kept.repeat_interleave(count, dim=0), exchanged.repeat(count, 1)
    swapped = model.decode(faces, poses).unflatten(0, (count, count)).to(images.dtype)
    model.train(was_training)
    images = model.resize_to_drawn_size(images)
    rows = {"pose of": torch.cat([torch.ones_like(images[:1]), images])}
    return rows | {f"face {i + 1}": torch.cat([images[i : i + 1], swapped[i]]) for i in range(count)}


def draw_face_rows(rows: dict[str, torch.Tensor], title: str = "") -> Image.Image:
    """Draw rows of images with their titles as one picture.

    Args:
        rows: Images by title, `(n, 3, side, side)` with the same n in all rows; values are clamped to [0, 1].
        title: Title of the picture.
    """
    size = (CELL_PX, CELL_PX)
    images = [F.interpolate(row.float().cpu(), size, mode="bilinear", antialias=True) for row in rows.values()]
    # One picture with tick labels as titles: with axes for each image, matplotlib took seconds for eighty of them.
    pixels = (255 * torch.cat(images).clamp(0, 1)).round().byte()
    grid = make_grid(pixels, len(images[0]), GAP_PX, pad_value=255).permute(1, 2, 0)  # (3, h, w) -> (h, w, 3)
    height, width, _ = grid.shape
    figure = new_figure(NAMES_PX + width, height + 50, title)
    axes = figure.subplots()
    axes.imshow(grid.numpy())
    middles = [GAP_PX + CELL_PX // 2 + place * (CELL_PX + GAP_PX) for place in range(len(rows))]
    axes.set_yticks(middles, list(rows), fontsize=9)
    axes.set(xticks=[], frame_on=False)
    axes.tick_params(length=0)
    return render_figure(figure)
