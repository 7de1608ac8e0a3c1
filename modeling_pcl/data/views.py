"""The random views of one batch, made on the batch's device: what `PCLForPreTraining` takes for each objective."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from .photometric import ADJUSTMENTS, draw_photometric, map_rows_and_columns, photometric

WINDOW_SHARE = 0.4  # side of a window, as a share of the image's
WINDOW_CENTRES = (0.2, 0.3)  # distance of a window's centre from the nearer border, as a share of the side
CROP_ASPECT_MAX = 4 / 3
# Samples that pass through the photometric list together: few enough to stay in a CPU's cache.
CHUNK = 64
# Each stream of random numbers has its own number, so that none depends on which objectives run.
STREAMS = ("disentangling", "face_contrast", "pose_contrast", "face_permutation")


@dataclass(frozen=True)
class ViewSettings:
    """How views are drawn. Plain values, so that a run can write them down; the defaults are the published ones.

    Args:
        face_views: `"windows"`, two small windows in different quadrants, or `"random_resized_crop"`.
        face_mirror_probability: Probability that a face view is flipped along the width, in [0, 1], for each view.
            Published: 0. SimCLR uses 0.5.
        crop_area_min: Least share of the image's area that a random resized crop keeps, in (0, 1].
        mixing_alpha: Negatives are mixed with shares from Beta(alpha, alpha); 0 mixes nothing.
        noise_std: Standard deviation of the noise on the encoder's inputs in objective 1, where images are in [0, 1];
            0 adds none.
        pose_images: Images that take part in one pose contrast: the first of the batch, at least 1.
        pose_negatives_per_image: Views of the mirror of each of these, at least 1.

    Raises:
        ValueError: If a value is out of its range.
    """

    face_views: Literal["windows", "random_resized_crop"] = "windows"
    face_mirror_probability: float = 0.0
    crop_area_min: float = 0.2
    mixing_alpha: float = 1.6
    noise_std: float = 0.4
    pose_images: int = 10
    pose_negatives_per_image: int = 100

    def __post_init__(self):
        if self.face_views not in ("windows", "random_resized_crop"):
            raise ValueError(f'`face_views` must be "windows" or "random_resized_crop", got {self.face_views!r}.')
        if not 0 <= self.face_mirror_probability <= 1:
            raise ValueError(f"`face_mirror_probability` must be in [0, 1], got {self.face_mirror_probability}.")
        if not 0 < self.crop_area_min <= 1:
            raise ValueError(f"`crop_area_min` must be in (0, 1], a share of the area, got {self.crop_area_min}.")
        for name in ("mixing_alpha", "noise_std"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be 0 (none) or a positive number, got {getattr(self, name)}.")
        for name in ("pose_images", "pose_negatives_per_image"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")


def _on_images(make_views):
    """Check the images of an objective, and compute its views in float32 and without gradient."""

    @functools.wraps(make_views)
    @torch.no_grad()
    def wrapper(self, images: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3 or not images.shape[0]:
            raise ValueError(
                f"`images` must be (batch, 3, side, side) uint8, got {tuple(images.shape)} {images.dtype}."
            )
        if images.shape[2] != images.shape[3]:
            raise ValueError(f"`images` must be square, got {tuple(images.shape)}; crop or resize them when loading.")
        with torch.autocast(images.device.type, enabled=False):
            return make_views(self, images, step)

    return wrapper


class ViewMaker:
    """Makes the inputs of each objective as functions of (images, seed, step, rank), and of nothing else.

    Every method takes `images`, `(batch, 3, side, side)` uint8 on any device, and the number of the training step, and
    returns keyword arguments of `PCLForPreTraining.forward` on that device, views as float32 in [0, 1]. Nothing waits
    for the device, and torch's global generators are not touched. CPU and GPU draw different numbers.

    Args:
        settings: How views are drawn.
        image_size_px: Side of the views.
        seed: Seed of the run, at least 0.
        rank: Index of this process, in [0, `world_size`).
        world_size: Number of processes, each with as many images.

    Raises:
        ValueError: If a number is out of its range; from the methods, if `images` is not as above.
    """

    def __init__(self, settings: ViewSettings, image_size_px: int, seed: int, rank: int = 0, world_size: int = 1):
        if image_size_px < 4:
            raise ValueError(f"`image_size_px` must be at least 4 px, for the blur, got {image_size_px}.")
        if seed < 0:
            raise ValueError(f"`seed` must be at least 0, got {seed}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"`rank` must be in [0, `world_size`), got {rank} of {world_size}.")
        self.settings = settings
        self.image_size_px = image_size_px
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    @_on_images
    def disentangling(self, images: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        """Whole images, `pixel_values` `(batch, ...)`, and `noise` `(2 * batch, ...)`, absent when `noise_std` is 0."""
        views = {"pixel_values": self._whole(images)}
        if self.settings.noise_std:
            shape = (2 * images.shape[0], *views["pixel_values"].shape[1:])
            generator = self._generator("disentangling", step, images.device)
            noise = torch.randn(shape, generator=generator, device=images.device)
            views["noise"] = noise.mul_(self.settings.noise_std)
        return views

    @_on_images
    def face_contrast(self, images: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        """Two cropped photometric views of each image.

        Returns:
            `face_views` `(2 * batch, ...)`, first views, then second views; unless `mixing_alpha` is 0, `face_mix`
            `(2 * batch, negatives)` and `face_permutation` `(negatives,)`, the same on every rank, where negatives is
            `2 * batch * world_size - 2`.
        """
        batch, side_px = images.shape[0], images.shape[2]
        generator = self._generator("face_contrast", step, images.device)
        if self.settings.face_views == "windows":
            top, left, height, width = draw_windows(batch, generator)
        else:
            top, left, height, width = draw_crops(2 * batch, self.settings.crop_area_min, generator)
        mirrored = torch.rand(2 * batch, generator=generator, device=images.device)
        mirrored = mirrored < self.settings.face_mirror_probability

        def crop(rows: slice) -> torch.Tensor:
            sources = torch.arange(rows.start, rows.stop, device=images.device) % batch
            box = [share[rows] * side_px for share in (top, left, height, width)]
            return resized_crop(images[sources], *box, self.image_size_px, mirrored[rows])

        views = {"face_views": self._photometric(crop, 2 * batch, generator, step, "face_contrast")}
        negatives = 2 * batch * self.world_size - 2
        if self.settings.mixing_alpha:
            views["face_mix"] = draw_symmetric_beta(self.settings.mixing_alpha, (2 * batch, negatives), generator)
            shared = self._generator("face_permutation", step, images.device, rank=0)
            views["face_permutation"] = torch.randperm(negatives, generator=shared, device=images.device)
        return views

    @_on_images
    def pose_contrast(self, images: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        """Photometric views of whole images and of their mirrors, for the first `pose_images` of the batch.

        Returns:
            With I images and K negatives each, `pose_views` `(2 * I, ...)`, first views, then second views;
            `pose_negative_views` `(I, K, ...)`; unless `mixing_alpha` is 0, `pose_mix` `(I, K)` and `pose_permutation`
            `(K,)`.
        """
        whole = self._whole(images[: self.settings.pose_images])
        mirrors = whole.flip(3)
        count, negatives = whole.shape[0], self.settings.pose_negatives_per_image
        generator = self._generator("pose_contrast", step, images.device)

        def view_of(rows: slice) -> torch.Tensor:
            return whole[torch.arange(rows.start, rows.stop, device=images.device) % count]

        def view_of_mirror(rows: slice) -> torch.Tensor:
            return mirrors[torch.arange(rows.start, rows.stop, device=images.device) // negatives]
