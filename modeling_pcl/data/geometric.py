"""Turning a face: what differs from an image in pose, and in nothing else."""

import math
from dataclasses import dataclass, fields

import torch
from torch.nn import functional as F

TURN_MIN_SHARE = 1 / 4  # Of the largest turn: less could not be told from the image itself.
# Half the width of the upright cylinder that stands for a head, where the image reaches from -1 to 1: a face fills most
# of its crop, and at 1 the cylinder's surface would end at the image's border.
HEAD_RADIUS = 1.25


@dataclass(frozen=True)
class Turns:
    """How samples are turned, each by its own; all `(batch,)`.

    Args:
        in_plane_deg: About the image's centre, clockwise.
        out_of_plane_deg: About the upright axis of a cylinder that stands for the head, in (-60, 60).
        zoom: Factor of the size, positive.
        shear: Shift along the width for a unit of height.
    """

    in_plane_deg: torch.Tensor
    out_of_plane_deg: torch.Tensor
    zoom: torch.Tensor
    shear: torch.Tensor

    def at(self, rows: torch.Tensor) -> "Turns":
        """Those of some samples."""
        return Turns(*(getattr(self, field.name)[rows] for field in fields(self)))

    def only(self, chosen: torch.Tensor) -> "Turns":
        """The same for the samples that are chosen, `(batch,)` booleans, and none for the others."""
        nothing = {"in_plane_deg": 0.0, "out_of_plane_deg": 0.0, "zoom": 1.0, "shear": 0.0}
        return Turns(**{name: getattr(self, name).where(chosen, value) for name, value in nothing.items()})


def draw_turns(
    count: int, in_plane_deg: float, out_of_plane_deg: float, zoom: float, shear: float, generator: torch.Generator
) -> Turns:
    """Draw turns that change the pose for certain.

    Where both kinds of turn are asked for, every other sample is turned out of the plane, the others in it.

    Args:
        count: Number of samples.
        in_plane_deg: Largest turn in the plane; turns are uniform in a quarter of it to all of it, either way.
        out_of_plane_deg: Largest turn out of the plane, likewise; 0 for none.
        zoom: Factors are log-uniform in [1 / (1 + zoom), 1 + zoom], at least 0.
        shear: Shears are uniform in [-shear, shear], at least 0.
        generator: On the device that is to hold them.
    """
    draws = 2 * torch.rand(4, count, generator=generator, device=generator.device) - 1
    shares = draws[0].sign() * (TURN_MIN_SHARE + (1 - TURN_MIN_SHARE) * draws[1].abs())
    leaves_plane = torch.arange(count, device=generator.device) % 2 == 1 if out_of_plane_deg else draws[0] > 1
    if not in_plane_deg:
        leaves_plane = ~torch.zeros_like(leaves_plane)
    return Turns(
        in_plane_deg=torch.where(leaves_plane, 0, in_plane_deg * shares),
        out_of_plane_deg=torch.where(leaves_plane, out_of_plane_deg * shares, 0),
        zoom=(1 + zoom) ** draws[2],
        shear=shear * draws[3],
    )


def turn(images: torch.Tensor, turns: Turns) -> torch.Tensor:
    """Turn each image by its own angles; beyond the border lies the reflected image.

    Args:
        images: `(batch, channels, side, side)`, float.
        turns: Of `batch` samples.

    Returns:
        As `images`, resampled bilinearly.
    """
    side = images.shape[3]
    across = (2 * torch.arange(side, device=images.device) + 1) / side - 1  # pixel centres in (-1, 1)
    # (batch, side, side): where each new pixel is taken from.
    x, y = across.expand(1, side, side), across[:, None].expand(1, side, side)
    # A new point at x on the cylinder was at the angle asin(x / r) - turn before.
    angle = (x / HEAD_RADIUS).asin() - _radians(turns.out_of_plane_deg)
    x = torch.where(turns.out_of_plane_deg[:, None, None] == 0, x, HEAD_RADIUS * angle.sin())
    cosine, sine = _radians(turns.in_plane_deg).cos(), _radians(turns.in_plane_deg).sin()
    zoom, shear = turns.zoom[:, None, None], turns.shear[:, None, None]
    sources = torch.stack([(cosine * x + sine * y) / zoom + shear * y, (cosine * y - sine * x) / zoom], dim=3)
    return F.grid_sample(images, sources, padding_mode="reflection", align_corners=False)


def _radians(degrees: torch.Tensor) -> torch.Tensor:
    return degrees[:, None, None] * (math.pi / 180)
