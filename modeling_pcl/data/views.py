"""Make the random views of a batch, the inputs of `PCLForPreTraining` for each objective, on the batch's device."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from .geometric import Turns, draw_turns, turn_images
from .photometric import apply_photometric, crop_and_resize, draw_photometric
from .view_settings import ViewSettings

WINDOW_SHARE = 0.4  # Side of a window as a share of the side of the image.
WINDOW_CENTRES = (0.2, 0.3)  # Distance of its centre from the nearer border, as a share of the side.
# Samples per photometric operation. Chunks that fit into the cache of a CPU are three times as fast.
CPU_CHUNK, GPU_CHUNK = 32, 128
# Names of the random streams. Each has its own seed, so that none depends on which objectives are computed.
STREAMS = (
    "disentangling",
    "face_contrast",
    "pose_contrast",
    "face_permutation",
    "pose_turns",
    "face_turns",
    "turned_faces",
)


@dataclass(frozen=True)
class VideoFrames:
    """Other frames of the videos of a batch.

    Args:
        images: `(frames, 3, side, side)` uint8, with the same side and on the same device as the images of the batch.
        image_of: For each frame, the index in the batch of an image of the same video, `(frames,)`.
    """

    images: torch.Tensor
    image_of: np.ndarray

    @classmethod
    def join(cls, parts: Sequence["VideoFrames"], batch_size: int) -> "VideoFrames":
        """Join the frames of micro-batches of `batch_size` images each to those of one batch."""
        image_of = np.concatenate([part.image_of + number * batch_size for number, part in enumerate(parts)])
        return cls(torch.cat([part.images for part in parts]), image_of)


def _without_gradient(make_views):
    """Decorate a method of `ViewMaker` to compute in float32 and without gradient, and make `frames` optional."""

    @functools.wraps(make_views)
    @torch.no_grad()
    def wrapper(self, images: torch.Tensor, step: int, frames: VideoFrames | None = None) -> dict[str, torch.Tensor]:
        with torch.autocast(images.device.type, enabled=False):
            return make_views(self, images, step, frames)

    return wrapper


class ViewMaker:
    """Make the inputs of each objective. They depend only on the images, frames, seed, step and rank.

    The methods have the names of the objectives. Each takes `images`, `(batch, 3, side, side)` uint8 on any device, the
    number of the training `step` and, optionally, other `frames` of the images' videos. Each returns keyword arguments
    of `PCLForPreTraining.forward` on that device, with views in float32 in [0, 1].

    The host never waits for the device, and torch's global generators are not used. CPU and GPU draw different numbers.

    Args:
        settings: How views are drawn.
        image_size_px: Side of the views, at least 4, which the blur needs.
        seed: Seed of the run, at least 0.
        rank: Index of this process, in [0, `world_size`).
        world_size: Number of processes; all have the same number of images.
    """

    def __init__(self, settings: ViewSettings, image_size_px: int, seed: int, rank: int = 0, world_size: int = 1):
        self.settings = settings
        self.image_size_px = image_size_px
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    @_without_gradient
    def disentangling(self, images: torch.Tensor, step: int, frames: VideoFrames | None) -> dict[str, torch.Tensor]:
        """Resize the first `disentangling_images` images of the batch, without crops.

        Returns:
            `pixel_values` `(images, ...)` and, unless `noise_std` is 0, `noise` `(2 * images, ...)`.
        """
        views = {"pixel_values": self._resize(images[: self.settings.disentangling_images])}
        if self.settings.noise_std:
            count, *shape = views["pixel_values"].shape
            shape = (2 * count, *shape)
            generator, _ = self._make_generators("disentangling", step, images.device)
            noise = torch.randn(shape, generator=generator, device=images.device)
            views["noise"] = noise.mul_(self.settings.noise_std)
        return views

    @_without_gradient
    def face_contrast(self, images: torch.Tensor, step: int, frames: VideoFrames | None) -> dict[str, torch.Tensor]:
        """Make two cropped photometric views of each image. With `same_video`, the second shows a frame of its video.

        Returns:
            `face_views` `(2 * batch, ...)`, first views, then second views; unless `mixing_alpha` is 0, `face_mix`
            `(2 * batch, negatives)` and `face_permutation` `(negatives,)`, with `2 * batch * world_size - 2` negatives.
            The permutation is the same on every rank. If views are turned, `face_turns` `(batch, 2)`.
        """
        batch, side_px = images.shape[0], images.shape[2]
        generator, host_generator = self._make_generators("face_contrast", step, images.device)
        if self.settings.face_views == "windows":
            boxes = draw_windows(batch, generator)
        else:
            boxes = draw_crops(2 * batch, self.settings.crop_area_min, self.settings.crop_aspect_max, generator)
        boxes = boxes * side_px
        mirrored = torch.rand(2 * batch, generator=generator, device=images.device)
        mirrored = mirrored < self.settings.face_mirror_probability

        sources = torch.arange(2 * batch, device=images.device) % batch
        if self.settings.face_positives == "same_video" and frames is not None:
            images, sources = _add_frames(images, sources, frames)

        turns = self._draw_face_turns(2 * batch, step, images.device)

        def crop(rows: torch.Tensor) -> torch.Tensor:
            faces = images[sources[rows]]
            faces = faces if turns is None else turn_images(faces.float(), turns.select(rows))
            return crop_and_resize(faces, boxes[rows], self.image_size_px, mirrored[rows])

        views = {"face_views": self._make_photometric_views(crop, 2 * batch, generator, host_generator)}
        if turns is not None:
            views["face_turns"] = self._compare_turns(turns, mirrored, sources)
        if self.settings.mixing_alpha:
            negatives = 2 * batch * self.world_size - 2
            views["face_mix"] = draw_symmetric_beta(self.settings.mixing_alpha, (2 * batch, negatives), generator)
            shared_generator, _ = self._make_generators("face_permutation", step, images.device, rank=0)
            views["face_permutation"] = torch.randperm(negatives, generator=shared_generator, device=images.device)
        return views

    @_without_gradient
    def pose_contrast(self, images: torch.Tensor, step: int, frames: VideoFrames | None) -> dict[str, torch.Tensor]:
        """Make photometric views of `pose_images` images of the batch and of their negatives, without crops.

        The first images of the batch are taken, or with negatives from videos, first those that have other frames.

        Returns:
            With I images and K negatives per image: `pose_views` `(2 * I, ...)`, first views, then second views;
            `pose_negative_views` `(I, K, ...)`; unless `mixing_alpha` is 0, `pose_mix` `(I, K)` and `pose_permutation`
            `(K,)`.
        """
        chosen = self._choose_pose_images(images.shape[0], frames)
        originals = images[torch.from_numpy(chosen).to(images.device, non_blocking=True)]
        resized = self._resize(originals)
        count, negatives = resized.shape[0], self.settings.pose_negatives_per_image
        turned = self._make_turned_images(originals, step)
        bank = [resized.flip(3), turned] + ([] if frames is None else [self._resize(frames.images)])
        bank, sources = torch.cat(bank), self._find_negatives(chosen, len(turned), frames)
        sources = torch.from_numpy(sources).to(images.device, non_blocking=True).flatten()  # (I * K,)
        generators = self._make_generators("pose_contrast", step, images.device)
        queries = self._make_photometric_views(lambda rows: resized[rows % count], 2 * count, *generators)
        others = self._make_photometric_views(lambda rows: bank[sources[rows]], count * negatives, *generators)
        views = {"pose_views": queries, "pose_negative_views": others.unflatten(0, (count, negatives))}
        if self.settings.mixing_alpha:
            generator, _ = generators
            views["pose_mix"] = draw_symmetric_beta(self.settings.mixing_alpha, (count, negatives), generator)
            views["pose_permutation"] = torch.randperm(negatives, generator=generator, device=images.device)
        return views

    def _choose_pose_images(self, batch: int, frames: VideoFrames | None) -> np.ndarray:
        """Choose the images of the batch for the pose contrast, `(I,)`."""
        count = min(self.settings.pose_images, batch)
        if "video" not in self.settings.pose_negatives or frames is None:
            return np.arange(count)
        with_frames = np.unique(frames.image_of)
        return np.concatenate([with_frames, np.setdiff1d(np.arange(batch), with_frames)])[:count]

    def _get_positions(self, kind: str) -> np.ndarray:
        """Return the positions of one kind among the negatives of an image: every n-th one if there are n kinds."""
        kinds = self.settings.pose_negatives
        positions = np.arange(self.settings.pose_negatives_per_image)
        return positions[positions % len(kinds) == kinds.index(kind)] if kind in kinds else positions[:0]

    def _make_turned_images(self, originals: torch.Tensor, step: int) -> torch.Tensor:
        """Make every other geometric negative of each image, the turned image itself, `(I * turned, 3, size, size)`."""
        turned = (len(self._get_positions("geometric")) + 1) // 2
        if not turned:
            return self._resize(originals)[:0]
        turns = self._draw_turns("pose_turns", turned * len(originals), step, originals.device)
        # Images are turned at full size: turned after resizing, they could be recognised by their blur.
        return self._resize(turn_images(originals.repeat_interleave(turned, dim=0).float(), turns))

    def _draw_turns(self, stream: str, count: int, step: int, device: torch.device) -> Turns:
        generator, _ = self._make_generators(stream, step, device)
        sizes = (getattr(self.settings, f"turn_{name}") for name in ("deg", "out_of_plane_deg", "zoom", "shear"))
        return draw_turns(count, *sizes, generator)

    def _draw_face_turns(self, count: int, step: int, device: torch.device) -> Turns | None:
        """Draw the turns of face views, of which only a part is turned; None if none is."""
        if not self.settings.face_turn_probability:
            return None
        generator, _ = self._make_generators("face_turns", step, device)
        is_turned = torch.rand(count, generator=generator, device=device) < self.settings.face_turn_probability
        # This needs another stream than `is_turned`, because draws from one stream begin with the same numbers.
        return self._draw_turns("turned_faces", count, step, device).keep_only(is_turned)

    def _compare_turns(self, turns: Turns, mirrored: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
        """Compute by how much second views are turned against first views, `(batch, 2)`, as shares of the largest turn.

        NaN where only one view is mirrored, or the second shows another frame: their faces differ in pose anyway.
        """
        largest = self.settings.turn_out_of_plane_deg or 1.0, self.settings.turn_deg or 1.0
        shares = [angles / most for angles, most in zip((turns.out_of_plane_deg, turns.in_plane_deg), largest)]
        first, second = torch.where(mirrored[:, None], -1, 1).mul(torch.stack(shares, dim=1)).chunk(2)
        batch = len(first)
        is_known = (mirrored[:batch] == mirrored[batch:]) & (sources[:batch] == sources[batch:])
        return (second - first).where(is_known[:, None], torch.nan)

    def _find_negatives(self, chosen: np.ndarray, turned: int, frames: VideoFrames | None) -> np.ndarray:
        """Find the index of each negative in the list of mirrored images, turned images and other frames, `(I, K)`."""
        count = len(chosen)
        # At first, every negative is the mirror of its own image.
        sources = np.arange(count)[:, None].repeat(self.settings.pose_negatives_per_image, axis=1)
        of_batch = self._get_positions("batch")
        sources[:, of_batch] = np.arange(len(of_batch)) % count
        geometric = self._get_positions("geometric")[::2]
        sources[:, geometric] = count + np.arange(turned).reshape(count, len(geometric))
        for image, index in enumerate(chosen if frames is not None else ()):
            frames_of_image = np.flatnonzero(frames.image_of == index)
            if len(frames_of_image):
                of_video = self._get_positions("video")
                sources[image, of_video] = (
                    count + turned + frames_of_image[np.arange(len(of_video)) % len(frames_of_image)]
                )
        return sources

    def _make_generators(
        self, stream: str, step: int, device: torch.device, rank: int | None = None
    ) -> tuple[torch.Generator, np.random.Generator]:
        """Make a generator on the device, and one on the host for draws that decide which operations to launch."""
        key = (step, self.rank if rank is None else rank, STREAMS.index(stream))
        sequence = np.random.SeedSequence(self.seed, spawn_key=key)
        generator = torch.Generator(device)
        generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        return generator, np.random.default_rng(sequence)

    def _resize(self, images: torch.Tensor) -> torch.Tensor:
        """Resize uint8 images to `(batch, 3, size, size)`, float32 in [0, 1]."""
        size = (self.image_size_px, self.image_size_px)
        return F.interpolate(images.float(), size=size, mode="bilinear", antialias=True).div_(255).clamp_(0, 1)

    def _make_photometric_views(
        self,
        sources: Callable[[torch.Tensor], torch.Tensor],
        count: int,
        generator: torch.Generator,
        host_generator: np.random.Generator,
    ) -> torch.Tensor:
        """Make `count` photometric views, `(count, ...)`, of the clean images that `sources` returns for given rows."""
        device = generator.device
        views = torch.empty(count, 3, self.image_size_px, self.image_size_px, device=device)
        chunk = CPU_CHUNK if device.type == "cpu" else GPU_CHUNK
        for rows, parameters in draw_photometric(self.settings, count, chunk, generator, host_generator):
            views.index_copy_(0, rows, apply_photometric(sources(rows), parameters))
        return views


def _add_frames(images: torch.Tensor, sources: torch.Tensor, frames: VideoFrames) -> tuple[torch.Tensor, torch.Tensor]:
    """Append the frames to the images, and let second views show the first frame of their video, if there is one.

    Args:
        images: `(batch, ...)`.
        sources: Index of the image of each view, `(2 * batch,)`, all first views, then all second views.
        frames: Other frames of the batch.

    Returns:
        Images and frames `(batch + frames, ...)`, and the new `sources`.
    """
    batch = images.shape[0]
    image_of, first = np.unique(frames.image_of, return_index=True)
    views, other = (
        torch.from_numpy(values).to(images.device, non_blocking=True) for values in (batch + image_of, batch + first)
    )
    return torch.cat([images, frames.images]), sources.index_copy(0, views, other)


def draw_windows(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw two windows for each image. Their side is 0.4 of the image side, their centres are in different quadrants.

    Returns:
        Top, left, height and width as shares of the side, `(2 * count, 4)`, all first windows, then all second windows.

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


def draw_crops(count: int, area_min: float, aspect_max: float, generator: torch.Generator) -> torch.Tensor:
    """Draw random resized crops.

    The area is uniform in [`area_min`, 1] of the image area, and the aspect ratio log-uniform in [1 / `aspect_max`,
    `aspect_max`]. Sides longer than the image are clipped, where torchvision would draw again.

    Returns:
        Top, left, height and width as shares of the side, `(count, 4)`.
    """
    draws = torch.rand(4, count, generator=generator, device=generator.device)
    area = 1 - (1 - area_min) * draws[0]
    aspect = aspect_max ** (2 * draws[1] - 1)
    sides = torch.stack([area / aspect, area * aspect]).sqrt_().clamp_(max=1)
    return torch.cat([draws[2:] * (1 - sides), sides]).T


def draw_symmetric_beta(alpha: float, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Draw from Beta(alpha, alpha), `alpha` positive. torch's own Beta distribution does not accept a generator.

    Source:
        Bailey 1994, Polar generation of random variates with the t-distribution: t with 2 alpha degrees of freedom is a
        monotone function of a symmetric beta, so neither needs rejection.
    """
    radius, angle = torch.rand(2, *shape, generator=generator, device=generator.device)
    cosine = angle.mul_(2 * math.pi).cos_()
    odds = radius.log_().div_(-alpha).expm1_().mul_(cosine.square())
    return odds.reciprocal_().add_(1).rsqrt_().mul_(cosine.sign_()).add_(1).div_(2)
