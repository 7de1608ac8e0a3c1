"""One specification says which square of a photo a face is, and what its pixels are."""

import math

import numpy as np
import pytest
from PIL import Image

from modeling_pcl.crop_pcl import TEMPLATE, FaceCrop, FaceSquare, describe_crop

RANDOM = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
PHOTO = Image.fromarray(RANDOM)


def turned(points: np.ndarray, angle_deg: float, scale: float = 1.0, shift=(0.0, 0.0)) -> np.ndarray:
    angle = math.radians(angle_deg)
    matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return scale * points @ matrix + shift


def test_a_box_becomes_the_square_of_its_longer_side_and_the_margin():
    for align in ("none", "eyes"):  # Of eyes that are not known.
        square = FaceCrop(align, margin=0.25).square(box=[10, 20, 30, 60])
        assert square == FaceSquare(20, 40, 60, 0)


def test_a_square_that_is_not_turned_is_copied_pixel_by_pixel():
    cut = FaceSquare(30, 25, 21).cut(PHOTO)
    assert np.array_equal(np.asarray(cut), RANDOM[15:36, 20:41])


def test_eyes_become_level():
    points = turned(TEMPLATE * 40, 30, shift=(20, 5))
    square = FaceCrop("eyes", 0.1).square([0, 0, 40, 50], points)
    assert square.angle_deg == pytest.approx(30)
    assert (square.x, square.y, square.side_px) == (20, 25, 60)


@pytest.mark.parametrize("angle_deg", [-170, -40, 0, 25, 90])
def test_five_points_come_to_their_places(angle_deg):
    points = turned(TEMPLATE, angle_deg, scale=40, shift=(30, 20))
    square = FaceCrop("five_points", margin=0).square(points=points)
    corner, right, _, down = square.corners()  # Places are whole eighths of a pixel.
    found = np.linalg.solve(np.stack([right - corner, down - corner], axis=1), (points - corner).T).T
    np.testing.assert_allclose(found, TEMPLATE, atol=0.02)  # The side is a whole number of pixels.
    assert square.angle_deg == angle_deg


def test_five_points_are_fitted_by_least_squares():
    """A naive twin: the best of many similarities near by is no better."""
    generator = np.random.default_rng(1)
    points = turned(TEMPLATE, 12, scale=50, shift=(40, 30)) + generator.normal(0, 2, (5, 2))

    def error(x, y, side, angle_deg):
        return np.sum((turned(TEMPLATE - 0.5, angle_deg, side, (x, y)) - points) ** 2)

    square = FaceCrop("five_points", margin=0).square(points=points)
    best = error(square.x, square.y, square.side_px, square.angle_deg)
    for _ in range(300):
        moved = np.array([square.x, square.y, square.side_px, square.angle_deg]) + generator.normal(0, 2, 4)
        assert error(*moved) > best - 0.5  # The side is rounded.


def test_a_turned_square_is_read_between_pixels():
    """A naive twin, with loops."""
    square = FaceSquare(38.3, 29.6, 24, 33.0)
    cut = np.asarray(square.cut(PHOTO))
    cosine, sine = math.cos(math.radians(33)), math.sin(math.radians(33))
    for row in range(24):
        for column in range(24):
            u, v = column + 0.5 - 12, row + 0.5 - 12
            x, y = 38.3 + cosine * u - sine * v - 0.5, 29.6 + sine * u + cosine * v - 0.5
            left, top = math.floor(x), math.floor(y)
            across, down = x - left, y - top
            corners = RANDOM[top : top + 2, left : left + 2].astype(float)
            upper = corners[0, 0] * (1 - across) + corners[0, 1] * across
            lower = corners[1, 0] * (1 - across) + corners[1, 1] * across
            np.testing.assert_allclose(cut[row, column], upper * (1 - down) + lower * down, atol=1)  # Whole levels.


def test_a_turn_by_a_quarter_is_numpys():
    cut = FaceSquare(40, 30, 20, 90).cut(PHOTO)
    assert np.abs(np.asarray(cut).astype(int) - np.rot90(RANDOM[20:40, 30:50])).max() <= 1


@pytest.mark.parametrize("angle_deg", [0, 20])
def test_beyond_the_border_is_black_or_the_borders_own_colour(angle_deg):
    plain = Image.new("RGB", (40, 40), (200, 100, 50))
    square = FaceSquare(2, 20, 30, angle_deg)
    black, edge = (np.asarray(square.cut(plain, padding)) for padding in ("black", "edge"))
    assert (black[:, 0] == 0).all()
    assert (edge == (200, 100, 50)).all()
    assert np.array_equal(black[12:18, 20:28], edge[12:18, 20:28])


@pytest.mark.parametrize(
    ("square", "message"),
    [(FaceSquare(-50, 20, 30), "no part in the photo of 80 x 60 px"), (FaceSquare(40, 30, 5000), "far larger than")],
)
def test_a_square_that_cannot_be_cut_is_refused(square, message):
    with pytest.raises(ValueError, match=message):
        square.cut(PHOTO)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"align": "nose"}, "`align` must be one of none, eyes, five_points, got 'nose'"),
        ({"margin": -0.5}, "`margin` must be a number from -0.25 to 3, got -0.5"),
        ({"margin": float("nan")}, "`margin` must be a number"),
        ({"margin": "0.2"}, "`margin` must be a number"),
        ({"padding": "white"}, "`padding` must be one of black, edge, got 'white'"),
    ],
)
def test_a_specification_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FaceCrop(**options)


@pytest.mark.parametrize(
    ("crop", "given", "message"),
    [
        (FaceCrop(), {}, "needs its `box`, its five `points`, or both"),
        (FaceCrop("five_points"), {"box": [0, 0, 9, 9]}, '`align="five_points"` needs the five `points`'),
        (FaceCrop(), {"box": [9, 0, 0, 9]}, "`box` must be left, top, right, bottom with left < right"),
        (FaceCrop(), {"box": [0, 0, 9]}, "`box` must be 4 finite numbers"),
        (FaceCrop(), {"points": np.full((5, 2), np.nan)}, "`points` must be 10 finite numbers"),
        (FaceCrop("five_points"), {"points": np.ones((5, 2))}, "which span a part of the photo"),
    ],
)
def test_a_face_that_cannot_be_laid_is_refused(crop, given, message):
    with pytest.raises(ValueError, match=message):
        crop.square(**given)


def test_a_crop_is_described_in_words():
    assert describe_crop(FaceCrop("eyes", 0.3, "edge")) == (
        "A face is cut out as a square around its box. Its side is the longer side of the box plus a margin of 30% on "
        "every side. The square is rotated until the eyes are level; the area beyond the photo's border is filled with "
        "the colours of the border."
    )
