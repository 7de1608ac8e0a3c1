import warnings

import numpy as np
import pytest

from modeling_pcl.data.pixel_figure import (
    LETTER_PX,
    LINE_PX,
    SMALL,
    axes_at,
    broken_into_lines,
    from_top,
    new_figure,
    one_line,
    rendered,
)


def written(text: str) -> np.ndarray:
    """Whether each pixel is dark, where a text was written."""
    figure = new_figure(400, 60)
    figure.text(0.05, 0.5, text, **SMALL)
    return np.asarray(rendered(figure)).min(axis=2) < 128


def test_a_part_stands_where_it_was_placed_to_the_pixel():
    figure = new_figure(90, 70)
    axes = axes_at(figure, 20, 10, 40, 30)
    axes.imshow(np.full((30, 40, 3), [10, 20, 30], np.uint8))
    axes.set_axis_off()
    picture = np.asarray(rendered(figure))
    assert picture.shape == (70, 90, 3)
    assert (picture[10:40, 20:60] == [10, 20, 30]).all()
    assert (picture == 255).all(axis=2).sum() == 70 * 90 - 30 * 40
    assert from_top(figure, 7) == pytest.approx(0.9)


def test_a_pixel_of_an_image_is_a_pixel_of_the_picture():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    figure = new_figure(60, 50)
    axes_at(figure, 10, 10, 40, 30).imshow(image)
    figure.axes[0].set_axis_off()
    np.testing.assert_array_equal(np.asarray(rendered(figure))[10:40, 10:50], image)


@pytest.mark.parametrize("letters", ["MMMMMMMMMM", "iiiiiiiiii", "AU1=2 AU2,"])
def test_ten_small_letters_are_as_wide_as_is_said(letters):
    columns = written(letters).any(axis=0).nonzero()[0]
    assert columns[-1] - columns[0] <= 10 * LETTER_PX
    assert columns[-1] - columns[0] > 9 * LETTER_PX - 4


def test_lines_do_not_stand_farther_apart_than_is_said():
    one, three = (written(text).any(axis=1).sum() for text in ("M", "M\nM\nM"))
    assert one < three <= 3 * LINE_PX


@pytest.mark.parametrize("text", ["$x_1$", "a $5 bill", "under_score", "100 %", r"\alpha^2", "微笑 😀", "$\\frac{$"])
def test_no_label_is_read_as_mathematics_or_warned_about(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        columns = written(text).any(axis=0).nonzero()[0]
    assert columns[-1] - columns[0] > (len(text) - 1) * (LETTER_PX - 1)


def test_other_warnings_come_through():
    figure = new_figure(50, 50)
    figure.draw = lambda renderer: warnings.warn("something else", UserWarning, stacklevel=1)
    with pytest.warns(UserWarning, match="something else"):
        rendered(figure)


def test_one_line_has_single_spaces_and_ends_in_dots_where_it_is_cut():
    assert one_line(" two\n\nlines\tand more ", 30) == "two lines and more"
    assert one_line("12345", 5) == "12345"
    assert one_line("123456", 5) == "1234…"


def test_lines_are_broken_at_spaces_and_the_last_ends_in_dots_where_there_are_more():
    assert broken_into_lines("one two three", 7, 3) == ["one two", "three"]
    assert broken_into_lines("one two three four", 7, 2) == ["one two", "three …"]
    assert broken_into_lines("African-American", 10, 2) == ["African-Am", "erican"]
    assert broken_into_lines("one\xa0two three", 9, 2) == ["one\xa0two", "three"]
    assert broken_into_lines("", 7, 2) == []
