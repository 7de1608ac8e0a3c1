"""What the decoder makes of faces, to look at."""

import functools

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image


def _in_eval_mode(make_rows):
    """Draw without gradient and with the batch norms' running statistics, and put the model back as it was."""

    @functools.wraps(make_rows)
    @torch.no_grad()
    def wrapper(model, images: torch.Tensor) -> dict[str, torch.Tensor]:
        was_training = model.training
        model.eval()
        try:
            return make_rows(model, images)
        finally:
            model.train(was_training)

    return wrapper


@_in_eval_mode
def reconstruction_rows(model, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Originals, mirrors, the four reconstructions, and what face and pose features draw alone.

    Args:
        model: A `PCLForPreTraining`; its mode is kept.
        images: `(n, 3, image_size, image_size)` in [0, 1].

    Returns:
        Eight rows by title, each of n images; those that the decoder draws have its side.
    """
    mirrors = images.flip(3)
    image, mirror = model.pcl(images), model.pcl(mirrors)
    nothing = torch.zeros_like(image.face_features)
    return {
        "image": images,
        "mirror": mirrors,
        "face of image\npose of image": model.decode(image.face_features, image.pose_features),
        "face of mirror\npose of image": model.decode(mirror.face_features, image.pose_features),
        "face of image\npose of mirror": model.decode(image.face_features, mirror.pose_features),
        "face of mirror\npose of mirror": model.decode(mirror.face_features, mirror.pose_features),
        "face alone": model.decode(image.face_features, nothing),
        "pose alone": model.decode(nothing, image.pose_features),
    }


@_in_eval_mode
def swap_rows(model, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every face in every pose: row i holds the face of image i in the poses of all.

    Args:
        model: A `PCLForPreTraining`; its mode is kept.
        images: `(n, 3, image_size, image_size)` in [0, 1].

    Returns:
        A first row of the poses' images, then n rows that begin with the face's image, each
        `(n + 1, 3, drawn_size, drawn_size)`.
    """
    outputs = model.pcl(images)
    count = images.shape[0]
    drawn = model.decode(
        outputs.face_features.repeat_interleave(count, dim=0), outputs.pose_features.repeat(count, 1)
    ).unflatten(0, (count, count))
    images = model.as_drawn(images)
    rows = {"pose of": torch.cat([torch.ones_like(images[:1]), images])}
    return rows | {f"face {i + 1}": torch.cat([images[i : i + 1], drawn[i].to(images.dtype)]) for i in range(count)}


def draw_rows(rows: dict[str, torch.Tensor], title: str = "") -> Image.Image:
    """Lay titled rows of images out as one picture.

    Args:
        rows: Title to `(n, 3, height, width)`, clamped to [0, 1]; every row of the same length.
        title: Written above.

    Returns:
        An RGB picture.
    """
    columns = max(len(row) for row in rows.values())
    figure = Figure(figsize=(1.1 * columns + 1.6, 1.1 * len(rows) + 0.5), dpi=100)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for (name, row), row_axes in zip(rows.items(), axes):
        for image, axis in zip(row.float().clamp(0, 1).cpu(), row_axes):
            axis.imshow(image.permute(1, 2, 0).numpy())  # (3, h, w) -> (h, w, 3)
        for axis in row_axes:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
        row_axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.suptitle(title, fontsize=10)
    left = 1.5 / figure.get_figwidth()
    figure.subplots_adjust(left=left, right=0.99, bottom=0.01, top=0.93, wspace=0.04, hspace=0.04)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
