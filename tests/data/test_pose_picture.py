from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling_pcl.data.pixel_figure import axes_at, new_figure, rendered
from modeling_pcl.data.pose_picture import (
    DIRECTIONS,
    HEAD_PX,
    LEGEND_PX,
    add_legend,
    draw_pose_axes,
    draw_pose_convention,
)

SIZE = 200
COMMITTED = Path(__file__).parents[2] / "hub_cards" / "head_pose.png"


def colour(name: str) -> list[int]:
    return [int(DIRECTIONS[name][0][place : place + 2], 16) for place in (1, 3, 5)]


def tip(pose: tuple[float, float, float], name: str) -> tuple[float, float]:
    """Where an axis leads, `(right, down)` from the middle in shares of the picture, by its pixels."""
    figure = new_figure(SIZE, SIZE)
    axes = axes_at(figure, 0, 0, SIZE, SIZE)
    axes.set(xlim=(0, 1), ylim=(1, 0))
    axes.set_axis_off()
    draw_pose_axes(axes, pose, 1)
    down, right = (np.asarray(rendered(figure)) == colour(name)).all(axis=2).nonzero()
    farthest = np.argmax(np.hypot(right + 0.5 - SIZE / 2, down + 0.5 - SIZE / 2))
    return (right[farthest] + 0.5) / SIZE - 0.5, (down[farthest] + 0.5) / SIZE - 0.5


def test_each_sign_of_each_angle_leads_its_axis_the_right_way():
    level, upright = pytest.approx(0, abs=0.02), pytest.approx(0, abs=0.02)
    for turn in (-30, 30):
        right, down = tip((turn, 0, 0), "nose")
        assert right * np.sign(turn) == pytest.approx(0.25, abs=0.03)
        assert down == level
        right, down = tip((0, turn, 0), "nose")
        assert down * -np.sign(turn) == pytest.approx(0.25, abs=0.03)  # up is negative
        assert right == upright
        right, down = tip((0, 0, turn), "top")
        assert right * np.sign(turn) == pytest.approx(0.2, abs=0.03)
        assert down == pytest.approx(-0.35, abs=0.03)


@pytest.mark.parametrize("roll", [-40, 0, 40])
def test_the_left_ear_is_on_the_right_and_sinks_where_the_head_leans_clockwise(roll):
    right, down = tip((0, 0, roll), "left")
    assert right == pytest.approx(0.4 * np.cos(np.radians(roll)), abs=0.03)
    assert down == pytest.approx(0.4 * np.sin(np.radians(roll)), abs=0.03)


def test_the_nose_of_a_frontal_head_is_a_dot_in_the_middle():
    assert tip((0, 0, 0), "nose") == pytest.approx((0, 0), abs=0.03)


def test_the_legend_says_what_each_colour_is_and_keeps_to_its_place():
    figure = new_figure(740, 100)
    add_legend(figure, 50)
    picture = np.asarray(rendered(figure))
    rows = (picture < 255).any(axis=(1, 2)).nonzero()[0]
    assert 50 <= rows.min() <= rows.max() < 50 + LEGEND_PX
    columns = [(picture == colour(name)).all(axis=2).any(axis=0).nonzero()[0].mean() for name in DIRECTIONS]
    assert columns == sorted(columns)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [words for _, _, words in DIRECTIONS.values()]


def test_the_convention_shows_each_angle_below_at_and_above_zero(monkeypatch):
    poses = []

    def remember(yaw, pitch, roll, size_px):
        poses.append((yaw, pitch, roll))
        return np.zeros((size_px, size_px, 3), np.uint8)

    monkeypatch.setattr("modeling_pcl.data.pose_picture.draw_head", remember)
    draw_pose_convention()
    none = (0, 0, 0)
    turns = [(-40, 0, 0), none, (40, 0, 0), (0, -30, 0), none, (0, 30, 0), (0, 0, -30), none, (0, 0, 30)]
    assert poses == turns


def test_the_committed_picture_of_the_convention_is_what_is_drawn():
    with Image.open(COMMITTED) as file:
        committed = np.asarray(file.convert("RGB")).astype(int)
    drawn = np.asarray(draw_pose_convention()).astype(int)
    how = f"Draw it again: `draw_pose_convention().save('{COMMITTED.name}', optimize=True)` in {COMMITTED.parent}."
    assert committed.shape == drawn.shape, how
    # Another version of the font may shift the words, which are few; a head or an axis that turns changes whole areas.
    assert np.abs(committed - drawn).mean() < 2, how
    assert np.abs(committed - drawn[:, ::-1]).mean() > 10
    assert COMMITTED.stat().st_size < 150_000
    assert drawn.shape[1] > 3 * HEAD_PX
