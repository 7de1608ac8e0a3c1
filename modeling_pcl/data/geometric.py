"""Turn faces: images that differ from the original in pose only."""

import math
from dataclasses import dataclass, fields

import torch
from torch.nn import functional as F

TURN_MIN_SHARE = 1 / 4  # Of the largest turn: an image that is turned less looks like the original.
# Radius of the upright cylinder that models a head, in coordinates in which the image spans -1 to 1. A face fills most
# of its crop, and with a radius of 1 the surface of the cylinder would end at the border of the image.
HEAD_RADIUS = 1.25


@dataclass(frozen=True)
class Turns:
    """Angles, zoom and shear of each sample, all `(batch,)`.

    Args:
        in_plane_deg: Turn about the centre of the image, in degrees clockwise.
        out_of_plane_deg: Turn about the upright axis of the cylinder that models the head, in degrees in (-60, 60).
        zoom: Factor by which the face grows, positive.
        shear: Shift along the width per unit of height.
    """

    in_plane_deg: torch.Tensor
    out_of_plane_deg: torch.Tensor
    zoom: torch.Tensor
    shear: torch.Tensor

    def select(self, rows: torch.Tensor) -> "Turns":
        """Select the turns of some samples, by index."""
        return Turns(*(getattr(self, field.name)[rows] for field in fields(self)))

    def keep_only(self, is_turned: torch.Tensor) -> "Turns":
        """Keep the turns of the samples marked in `is_turned`, `(batch,)` booleans, and turn no other sample."""
        neutral = {"in_plane_deg": 0.0, "out_of_plane_deg": 0.0, "zoom": 1.0, "shear": 0.0}
        return Turns(**{name: getattr(self, name).where(is_turned, value) for name, value in neutral.items()})


def draw_turns(
    count: int, in_plane_deg: float, out_of_plane_deg: float, zoom: float, shear: float, generator: torch.Generator
) -> Turns:
    """Draw turns, none of them too small to change the pose.

    If both angles are given, samples alternate between turns in the plane and out of the plane.

    Args:
        count: Number of samples.
        in_plane_deg: Largest turn in the plane, in degrees. Turns are uniform between a quarter of it and all of it, in
            either direction. 0 turns no sample in the plane.
        out_of_plane_deg: Largest turn out of the plane, in degrees, drawn in the same way; 0 turns no sample out of it.
        zoom: Factors are log-uniform in [1 / (1 + zoom), 1 + zoom], at least 0.
        shear: Shears are uniform in [-shear, shear], at least 0.
        generator: Source of randomness, on the device on which the turns are created.
    """
    draws = 2 * torch.rand(4, count, generator=generator, device=generator.device) - 1
    shares = draws[0].sign() * (TURN_MIN_SHARE + (1 - TURN_MIN_SHARE) * draws[1].abs())
    is_out_of_plane = torch.arange(count, device=generator.device) % 2 == 1 if out_of_plane_deg else draws[0] > 1
    if not in_plane_deg:
        is_out_of_plane = ~torch.zeros_like(is_out_of_plane)
    return Turns(
        in_plane_deg=torch.where(is_out_of_plane, 0, in_plane_deg * shares),
        out_of_plane_deg=torch.where(is_out_of_plane, out_of_plane_deg * shares, 0),
        zoom=(1 + zoom) ** draws[2],
        shear=shear * draws[3],
    )


def turn_images(images: torch.Tensor, turns: Turns) -> torch.Tensor:
    """Turn each image by its own angles. Beyond its border the image is reflected.

    Args:
        images: `(batch, channels, side, side)`, float.
        turns: Turns of `batch` samples.

    Returns:
        The turned images, in the shape of `images`, resampled bilinearly.
    """
    side = images.shape[3]
    across = (2 * torch.arange(side, device=images.device) + 1) / side - 1  # pixel centres in (-1, 1)
    # (batch, side, side): the position in the input from which each output pixel is taken.
    x, y = across.expand(1, side, side), across[:, None].expand(1, side, side)
    # A point that the turn moves to x on the cylinder was at the angle asin(x / radius) - turn before.
    angle = (x / HEAD_RADIUS).asin() - _radians(turns.out_of_plane_deg)
    x = torch.where(turns.out_of_plane_deg[:, None, None] == 0, x, HEAD_RADIUS * angle.sin())
    cosine, sine = _radians(turns.in_plane_deg).cos(), _radians(turns.in_plane_deg).sin()
    zoom, shear = turns.zoom[:, None, None], turns.shear[:, None, None]
    sources = torch.stack([(cosine * x + sine * y) / zoom + shear * y, (cosine * y - sine * x) / zoom], dim=3)
    return F.grid_sample(images, sources, padding_mode="reflection", align_corners=False)


def _radians(degrees: torch.Tensor) -> torch.Tensor:
    return degrees[:, None, None] * (math.pi / 180)
