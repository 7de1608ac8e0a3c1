import numpy as np
import pytest

from modeling_pcl.data import head_drawing
from modeling_pcl.data.head_drawing import PARTS, VIEW, Ellipsoid, draw_head
from modeling_pcl.head_pose_pcl import axes_in_image

SIZE = 150
RED, BLUE = (200, 0, 0), (0, 0, 200)


def middle(is_part: np.ndarray) -> np.ndarray:
    """The middle of some pixels, `(right, down)` from the middle of the picture, in the head's unit."""
    down, right = is_part.nonzero()
    return (np.array([right.mean(), down.mean()]) + 0.5 - SIZE / 2) * 2 * VIEW / SIZE


def is_coloured(picture: np.ndarray, channel: int) -> np.ndarray:
    """The pixels that have this colour and no other; paper has all three."""
    return (picture[..., channel] > 0) & (picture[..., channel - 1] == 0) & (picture[..., channel - 2] == 0)


@pytest.mark.parametrize("pose", [(0, 0, 0), (35, 0, 0), (-35, 0, 0), (0, 30, 0), (0, -30, 0), (20, -15, 40)])
def test_a_ball_at_each_end_of_an_axis_is_where_the_axis_points(monkeypatch, pose):
    ends = {"left": (-1, 0, 0), "top": (0, 1, 0), "nose": (0, 0, -1)}
    for name, end in ends.items():
        monkeypatch.setattr(head_drawing, "PARTS", [Ellipsoid(end, (0.1, 0.1, 0.1), RED)])
        ball = is_coloured(draw_head(*pose, SIZE), 0)
        assert middle(ball) == pytest.approx(axes_in_image(*pose)[name], abs=0.02)


def test_an_ellipsoid_is_as_large_as_its_radii_and_turns_with_the_head(monkeypatch):
    monkeypatch.setattr(head_drawing, "PARTS", [Ellipsoid((0, 0, 0), (0.5, 1, 0.25), RED)])
    for pose, (width, height) in {(0, 0, 0): (1, 2), (90, 0, 0): (0.5, 2), (0, 0, 90): (2, 1)}.items():
        part = is_coloured(draw_head(*pose, SIZE), 0)
        unit = SIZE / (2 * VIEW)
        assert part.any(axis=0).sum() == pytest.approx(width * unit, abs=1.5)
        assert part.any(axis=1).sum() == pytest.approx(height * unit, abs=1.5)
        assert part.sum() == pytest.approx(np.pi / 4 * width * height * unit**2, rel=0.02)


def test_what_is_nearer_hides_what_is_behind_it(monkeypatch):
    face, back = Ellipsoid((0, 0, -1), (0.3, 0.3, 0.1), BLUE), Ellipsoid((0, 0, 0), (0.5, 0.5, 0.5), RED)
    for parts in ([face, back], [back, face]):
        monkeypatch.setattr(head_drawing, "PARTS", parts)
        assert is_coloured(draw_head(0, 0, 0, SIZE), 2)[SIZE // 2, SIZE // 2]
        behind = draw_head(180, 0, 0, SIZE)
        assert is_coloured(behind, 0)[SIZE // 2, SIZE // 2]
        assert not is_coloured(behind, 2).any()


def test_what_is_within_another_part_is_not_seen(monkeypatch):
    inner, outer = Ellipsoid((0, 0, -0.2), (0.1, 0.1, 0.1), BLUE), Ellipsoid((0, 0, 0), (0.5, 0.5, 0.5), RED)
    monkeypatch.setattr(head_drawing, "PARTS", [inner, outer])
    assert not is_coloured(draw_head(0, 0, 0, SIZE), 2).any()


def test_a_fixed_part_stays_where_it_is(monkeypatch):
    monkeypatch.setattr(head_drawing, "PARTS", [Ellipsoid((0.3, -1, 0), (0.2, 0.1, 0.3), RED, is_fixed=True)])
    np.testing.assert_array_equal(draw_head(40, 20, -30, SIZE), draw_head(0, 0, 0, SIZE))


def test_light_falls_from_above():
    picture = draw_head(0, 0, 0, SIZE)
    column = picture[:, SIZE // 2].sum(axis=1)
    assert (picture[0, 0] == 255).all()
    top, bottom = int(SIZE * (0.5 - 0.6 / 3)), int(SIZE * (0.5 + 0.9 / 3))
    assert column[top] > column[bottom]  # Skin of the forehead and of the chin.


def test_a_frontal_head_is_the_same_on_both_sides():
    is_head = (draw_head(0, 0, 0, SIZE) < 255).any(axis=2)
    np.testing.assert_array_equal(is_head, is_head[:, ::-1])
    assert {tuple(np.multiply(part.centre, (-1, 1, 1))) for part in PARTS} == {part.centre for part in PARTS}
