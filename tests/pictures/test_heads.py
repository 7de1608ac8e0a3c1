import numpy as np
import pytest

from modeling_pcl.pictures.heads import PARTS, Ellipsoid, draw_head, draw_pose_convention

DOT = Ellipsoid((0, 0, -0.9), (0.1, 0.1, 0.1), (255, 0, 0))  # At the tip of the nose.


def place(*pose: float) -> np.ndarray:
    """Where the dot is seen, from the middle to the right and down."""
    pixels = draw_head(*pose, 64, [DOT])
    down, right = np.nonzero(pixels[..., 1] < 128)
    return np.array([right.mean(), down.mean()]) - 31.5


@pytest.mark.parametrize(
    ("pose", "direction"),
    [((40, 0, 0), (1, 0)), ((-40, 0, 0), (-1, 0)), ((0, 30, 0), (0, -1)), ((0, -30, 0), (0, 1))],
)
def test_the_nose_goes_where_the_sign_says(pose, direction):
    moved = place(*pose) - place(0, 0, 0)
    assert moved @ direction > 8
    assert abs(moved @ direction[::-1]) < 1


def test_roll_leans_the_head_clockwise_and_fixed_parts_stay():
    top = Ellipsoid((0, 0.9, 0), (0.1, 0.1, 0.1), (0, 0, 255))
    pixels = draw_head(0, 0, 30, 64, [top])
    assert np.nonzero(pixels[..., 0] < 128)[1].mean() > 40
    fixed = [part for part in PARTS if part.is_fixed]
    assert (draw_head(40, 20, 30, 64, fixed) == draw_head(0, 0, 0, 64, fixed)).all()


def test_what_is_nearer_hides_what_is_behind():
    behind = Ellipsoid((0, 0, 0.5), (0.3, 0.3, 0.3), (0, 255, 0))
    front = draw_head(0, 0, 0, 32, [behind, DOT])
    assert front[16, 16, 0] > front[16, 16, 1]
    back = draw_head(180, 0, 0, 32, [behind, DOT])
    assert back[16, 16, 1] > back[16, 16, 0]


def test_the_convention_is_nine_different_heads():
    picture = np.asarray(draw_pose_convention())
    cells = [picture[y : y + 200, x : x + 200] for y in (60, 320, 580) for x in (20, 265, 510)]
    assert all(len(np.unique(cell.reshape(-1, 3), axis=0)) > 100 for cell in cells)
    assert (cells[0] != cells[2]).any()
