"""The random views of one batch, made on the batch's device: what `PCLForPreTraining` takes for each objective."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from .photometric import draw_photometric, photometric, resized_crop

WINDOW_SHARE = 0.4  # side of a window, as a share of the image's
WINDOW_CENTRES = (0.2, 0.3)  # distance of a window's centre from the nearer border, as a share of the side
CROP_ASPECT_MAX = 4 / 3
# Samples that pass through the photometric list together: what stays in a CPU's cache is three times as fast.
CPU_CHUNK, GPU_CHUNK = 32, 128
# Each stream of random numbers has its own number, so that none depends on which objectives run.
STREAMS = ("disentangling", "face_contrast", "pose_contrast", "face_permutation")


def _option(default, text: str):
    """A field with the help text that a command line shows."""
    return field(default=default, metadata={"help": text})


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

    face_views: Literal["windows", "random_resized_crop"] = _option(
        "windows", "Face views are two small windows in different quadrants (published), or random resized crops."
    )
    face_mirror_probability: float = _option(0.0, "Probability that a face view is flipped, in [0, 1].")
    crop_area_min: float = _option(0.2, "Least share of the image's area in a random resized crop, in (0, 1].")
    mixing_alpha: float = _option(1.6, "Negatives are mixed with shares from Beta(alpha, alpha); 0 mixes nothing.")
    noise_std: float = _option(0.4, "Noise on the encoder's inputs in objective 1, for images in [0, 1]; 0 adds none.")
    pose_images: int = _option(10, "Images of a batch that take part in the pose contrast.")
    pose_negatives_per_image: int = _option(100, "Views of the mirror of each of these images.")

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
            generator, _ = self._generators("disentangling", step, images.device)
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
        generator, host_generator = self._generators("face_contrast", step, images.device)
        if self.settings.face_views == "windows":
            boxes = draw_windows(batch, generator)
        else:
            boxes = draw_crops(2 * batch, self.settings.crop_area_min, generator)
        boxes = boxes * side_px
        mirrored = torch.rand(2 * batch, generator=generator, device=images.device)
        mirrored = mirrored < self.settings.face_mirror_probability

        def crop(rows: torch.Tensor) -> torch.Tensor:
            return resized_crop(images[rows % batch], boxes[rows], self.image_size_px, mirrored[rows])

        views = {"face_views": self._photometric_views(crop, 2 * batch, generator, host_generator)}
        if self.settings.mixing_alpha:
            negatives = 2 * batch * self.world_size - 2
            views["face_mix"] = draw_symmetric_beta(self.settings.mixing_alpha, (2 * batch, negatives), generator)
            shared, _ = self._generators("face_permutation", step, images.device, rank=0)
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
        generators = self._generators("pose_contrast", step, images.device)
        queries = self._photometric_views(lambda rows: whole[rows % count], 2 * count, *generators)
        others = self._photometric_views(lambda rows: mirrors[rows // negatives], count * negatives, *generators)
        views = {"pose_views": queries, "pose_negative_views": others.unflatten(0, (count, negatives))}
        if self.settings.mixing_alpha:
            generator, _ = generators
            views["pose_mix"] = draw_symmetric_beta(self.settings.mixing_alpha, (count, negatives), generator)
            views["pose_permutation"] = torch.randperm(negatives, generator=generator, device=images.device)
        return views

    def _generators(
        self, stream: str, step: int, device: torch.device, rank: int | None = None
    ) -> tuple[torch.Generator, np.random.Generator]:
        """One generator on the device, and one on the host for what decides which operations to launch."""
        key = (step, self.rank if rank is None else rank, STREAMS.index(stream))
        sequence = np.random.SeedSequence(self.seed, spawn_key=key)
        generator = torch.Generator(device)
        generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        return generator, np.random.default_rng(sequence)

    def _whole(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 to `(batch, 3, size, size)` in [0, 1]."""
        size = (self.image_size_px, self.image_size_px)
        return F.interpolate(images.float(), size=size, mode="bilinear", antialias=True).div_(255).clamp_(0, 1)

    def _photometric_views(
        self,
        sources: Callable[[torch.Tensor], torch.Tensor],
        count: int,
        generator: torch.Generator,
        host_generator: np.random.Generator,
    ) -> torch.Tensor:
        """`count` photometric views, `(count, ...)`, where `sources` makes the clean images of the rows it is given."""
        device = generator.device
        views = torch.empty(count, 3, self.image_size_px, self.image_size_px, device=device)
        chunk = CPU_CHUNK if device.type == "cpu" else GPU_CHUNK
        for rows, parameters in draw_photometric(count, chunk, generator, host_generator):
            views.index_copy_(0, rows, photometric(sources(rows), parameters))
        return views


def draw_windows(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw two windows of 0.4 of the side, centred in different quadrants, for each image.

    Returns:
        Top, left, height and width as shares of the side, `(2 * count, 4)`, first windows, then second windows.

    Source:
        Liu et al. 2023, face-aware contrastive learning.
    """
    device = generator.device
    first = torch.randint(4, (count,), generator=generator, device=device)
    second = (first + torch.randint(1, 4, (count,), generator=generator, device=device)) % 4
    quadrants = torch.cat([first, second])
    low, high = WINDOW_CENTRES
    nearer = low + (high - low) * torch.rand(2, 2 * count, generator=generator, device=device)
    is_far = torch.stack([quadrants >= 2, quadrants % 2 == 1])
    top, left = torch.where(is_far, 1 - nearer, nearer) - WINDOW_SHARE / 2
    side = torch.full_like(top, WINDOW_SHARE)
    return torch.stack([top, left, side, side], dim=1)


def draw_crops(count: int, area_min: float, generator: torch.Generator) -> torch.Tensor:
    """Draw random resized crops: area uniform in [`area_min`, 1] of the image's, aspect log-uniform in [3/4, 4/3].

    A side longer than the image is cut to it, where torchvision would draw again.

    Returns:
        Top, left, height and width as shares of the side, `(count, 4)`.
    """
    draws = torch.rand(4, count, generator=generator, device=generator.device)
    area = 1 - (1 - area_min) * draws[0]
    aspect = CROP_ASPECT_MAX ** (2 * draws[1] - 1)
    sides = torch.stack([area / aspect, area * aspect]).sqrt_().clamp_(max=1)
    return torch.cat([draws[2:] * (1 - sides), sides]).T


def draw_symmetric_beta(alpha: float, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Draw from Beta(alpha, alpha), `alpha` positive; torch's own Beta takes no generator.

    Source:
        Bailey 1994, Polar generation of random variates with the t-distribution: t with 2 alpha degrees of freedom is a
        monotone function of a symmetric beta, so neither needs rejection.
    """
    radius, angle = torch.rand(2, *shape, generator=generator, device=generator.device)
    cosine = angle.mul_(2 * math.pi).cos_()
    odds = radius.log_().div_(-alpha).expm1_().mul_(cosine.square())
    return odds.reciprocal_().add_(1).rsqrt_().mul_(cosine.sign_()).add_(1).div_(2)
