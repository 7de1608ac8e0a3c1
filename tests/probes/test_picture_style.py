import warnings

import numpy as np
import pytest
from matplotlib.lines import Line2D

from modeling_pcl.probes.picture_style import (
    FEATURES,
    LOOKS,
    add_legend,
    broken_into_lines,
    is_known,
    looks,
    new_figure,
    one_line,
    rendered,
)


def test_features_keep_their_looks_and_other_names_take_what_is_left():
    found = looks(["SimCLR", "pose", "PCL", "face"])
    assert (found["pose"], found["face"]) == (FEATURES["pose"], FEATURES["face"])
    assert len(set(found.values())) == 4
    assert list(looks([str(i) for i in range(8)]).values()) == [*LOOKS, LOOKS[0]]


def test_legend_labels_are_taken_literally():
    figure = new_figure(300, 200)
    labels = ["_hidden", "$x$", "$_{", "表情"]
    legend = add_legend(figure, [Line2D([], [])] * 4, labels, loc="center")
    assert [text.get_text() for text in legend.get_texts()] == labels
    rendered(figure)
    assert not any(text.get_parse_math() for text in legend.get_texts())


def test_a_picture_has_no_empty_margins_and_letters_without_a_glyph_raise_no_warning():
    figure = new_figure(400, 300)
    figure.text(0.5, 0.5, "表情", parse_math=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = rendered(figure)
    assert picture.mode == "RGB"
    assert picture.width < 100
    assert (np.asarray(picture) < 128).any()


def test_a_title_is_broken_at_the_figures_width_and_ends_in_dots_after_three_lines():
    lines = new_figure(340, 200, "five $ " * 100).get_suptitle().split("\n")
    assert len(lines) == 3
    assert all(len(line) <= 40 for line in lines)
    assert lines[-1].endswith(" …")


@pytest.mark.parametrize(
    ("text", "cut"), [("one\n two", "one two"), ("12345678", "12345678"), ("123456789", "1234567…"), ("", "")]
)
def test_a_line_has_single_spaces_and_is_cut(text, cut):
    assert one_line(text, 8) == cut


def test_an_empty_text_has_no_lines():
    assert broken_into_lines("", 10) == ""


@pytest.mark.parametrize(
    ("number", "known"), [(0, True), (-1.5, True), (None, False), (np.nan, False), (-np.inf, False)]
)
def test_numbers_that_are_none_or_not_finite_are_not_known(number, known):
    assert is_known(number) == known
