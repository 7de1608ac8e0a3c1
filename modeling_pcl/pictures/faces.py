"""What the decoder makes of faces, to look at."""

import torch
from PIL import Image

from .style import new_figure, rendered

CELL_PX, NAMES_PX = 110, 160


@torch.no_grad()
def reconstruction_rows(model, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Decode images and their mirrors, in all four combinations and from one branch alone.

    Args:
        model: A `PCLForPreTraining`; its mode is kept.
        images: `(n, 3, image_size, image_size)` in [0, 1].

    Returns:
        Eight rows by title, each of n images; those that the decoder draws have its side.
    """
    was_training = model.training
    model.eval()  # Batch norms use their running statistics.
    mirrors = images.flip(3)
    image, mirror = model.pcl(images), model.pcl(mirrors)
    nothing = torch.zeros_like(image.face_features)
    rows = {
        "image": images,
        "mirror": mirrors,
        "face of image\npose of image": model.decode(image.face_features, image.pose_features),
        "face of mirror\npose of image": model.decode(mirror.face_features, image.pose_features),
        "face of image\npose of mirror": model.decode(image.face_features, mirror.pose_features),
        "face of mirror\npose of mirror": model.decode(mirror.face_features, mirror.pose_features),
        "face alone": model.decode(image.face_features, nothing),
        "pose alone": model.decode(nothing, image.pose_features),
    }
    model.train(was_training)
    return rows


@torch.no_grad()
def swap_rows(model, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Draw every face in every pose: row i holds the face of image i in the poses of all.

    Args:
        model: A `PCLForPreTraining`; its mode is kept.
        images: `(n, 3, image_size, image_size)` in [0, 1].

    Returns:
        A first row of the poses' images, then n rows that begin with the face's image, each
        `(n + 1, 3, drawn_size, drawn_size)`.
    """
    was_training, count = model.training, images.shape[0]
    model.eval()
    # All n * n swaps in one pass: face i in pose j at i * n + j.
    outputs = model.pcl(images)
    faces, poses = outputs.face_features.repeat_interleave(count, dim=0), outputs.pose_features.repeat(count, 1)
    drawn = model.decode(faces, poses).unflatten(0, (count, count)).to(images.dtype)
    model.train(was_training)
    images = model.as_drawn(images)
    rows = {"pose of": torch.cat([torch.ones_like(images[:1]), images])}
    return rows | {f"face {i + 1}": torch.cat([images[i : i + 1], drawn[i]]) for i in range(count)}


def draw_face_rows(rows: dict[str, torch.Tensor], title: str = "") -> Image.Image:
    """Lay titled rows of images out as one picture.

    Args:
        rows: Title to `(n, 3, height, width)`, clamped to [0, 1]; every row of the same length.
        title: Written above.
    """
    columns = max(len(row) for row in rows.values())
    figure = new_figure(NAMES_PX + CELL_PX * columns, CELL_PX * len(rows) + 50, title)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for (name, row), row_axes in zip(rows.items(), grid):
        for image, axes in zip(row.float().clamp(0, 1).cpu(), row_axes):
            axes.imshow(image.permute(1, 2, 0).numpy())  # (3, h, w) -> (h, w, 3)
        for axes in row_axes:
            axes.set(xticks=[], yticks=[], frame_on=False)
        row_axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return rendered(figure)
