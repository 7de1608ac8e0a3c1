import math

import pytest
import torch
from torchvision.transforms.v2 import functional as torchvision_ops

from modeling_pcl.data.geometric import HEAD_RADIUS, Turns, draw_turns, turn_images


def make_turns(**values) -> Turns:
    neutral = {"in_plane_deg": 0.0, "out_of_plane_deg": 0.0, "zoom": 1.0, "shear": 0.0}
    return Turns(**{name: torch.tensor([value]) for name, value in (neutral | values).items()})


@pytest.fixture
def blobs() -> torch.Tensor:
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=64, mode="bicubic")


def test_no_turn_changes_nothing(blobs):
    # Pixel centres are computed in float32, so that a pixel takes about 1e-6 of its neighbours.
    torch.testing.assert_close(turn_images(blobs, make_turns()), blobs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("angle", [-35.0, 20.0, 90.0])
def test_a_turn_in_the_plane_equals_torchvision_inside_the_circle(blobs, angle):
    expected = torchvision_ops.rotate(blobs, -angle, torchvision_ops.InterpolationMode.BILINEAR)
    centre = torch.arange(64) - 31.5
    inside = (centre**2 + centre[:, None] ** 2).sqrt() < 30  # torchvision has black corners outside of it.
    turned = turn_images(blobs, make_turns(in_plane_deg=angle))
    torch.testing.assert_close(turned[..., inside], expected[..., inside], atol=1e-4, rtol=0)


def test_zoom_enlarges_and_shear_moves_rows_along_the_width():
    ramp = ((2 * torch.arange(64.0) + 1) / 64 - 1).expand(1, 1, 64, 64)  # Position of the column, in (-1, 1).
    zoomed = turn_images(ramp, make_turns(zoom=2.0))
    torch.testing.assert_close(zoomed, ramp / 2, atol=1e-5, rtol=0)
    sheared = turn_images(ramp, make_turns(shear=0.5))[0, 0]
    torch.testing.assert_close(sheared[:, 32] - ramp[0, 0, :, 32], 0.5 * ramp[0, 0, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("angle", [-20.0, 25.0])
def test_a_turn_out_of_the_plane_moves_the_middle_as_the_front_of_a_cylinder_and_not_the_height(angle):
    place = (2 * torch.arange(65.0) + 1) / 65 - 1
    across, down = place.expand(1, 1, 65, 65), place[:, None].expand(1, 1, 65, 65)
    turns = make_turns(out_of_plane_deg=angle)
    shown = turn_images(across, turns)[0, 0, 32, 32]
    assert shown.item() == pytest.approx(-HEAD_RADIUS * math.sin(math.radians(angle)), abs=1e-4)
    torch.testing.assert_close(turn_images(down, turns), down, atol=1e-5, rtol=0)


def test_a_turn_and_its_opposite_are_mirrors_of_each_other(blobs):
    for name in ("in_plane_deg", "out_of_plane_deg"):
        left, right = make_turns(**{name: 20.0}), make_turns(**{name: -20.0})
        torch.testing.assert_close(
            turn_images(blobs.flip(3), left).flip(3), turn_images(blobs, right), atol=1e-4, rtol=0
        )


def test_every_image_is_turned_by_its_own_angles(blobs):
    turns = draw_turns(5, 40, 30, 0.1, 0.1, torch.Generator().manual_seed(1))
    images = blobs.repeat(5, 1, 1, 1)
    for index, together in enumerate(turn_images(images, turns)):
        alone = Turns(**{name: value[index : index + 1] for name, value in vars(turns).items()})
        torch.testing.assert_close(turn_images(images[:1], alone)[0], together)


def test_drawn_turns_are_never_small_and_fill_the_stated_ranges():
    turns = draw_turns(4000, 40, 20, 0.1, 0.2, torch.Generator().manual_seed(0))
    in_plane, out_of_plane = turns.in_plane_deg[::2], turns.out_of_plane_deg[1::2]
    assert (turns.in_plane_deg[1::2] == 0).all()
    assert (turns.out_of_plane_deg[::2] == 0).all()
    for angles, largest in ((in_plane, 40), (out_of_plane, 20)):
        assert angles.abs().min() >= largest / 4
        assert angles.abs().max() <= largest
        assert angles.abs().max() > 0.99 * largest
        assert abs((angles > 0).float().mean() - 0.5) < 4 * math.sqrt(0.25 / 2000)
    assert turns.zoom.min() >= 1 / 1.1 - 1e-6
    assert turns.zoom.max() <= 1.1 + 1e-6
    assert turns.shear.abs().max() <= 0.2


@pytest.mark.parametrize(("in_plane", "out_of_plane"), [(30, 0), (0, 30)])
def test_one_kind_of_turn_alone_takes_every_image(in_plane, out_of_plane):
    turns = draw_turns(50, in_plane, out_of_plane, 0, 0, torch.Generator().manual_seed(0))
    assert ((turns.in_plane_deg != 0) == (in_plane > 0)).all()
    assert ((turns.out_of_plane_deg != 0) == (out_of_plane > 0)).all()
