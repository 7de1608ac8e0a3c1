import numpy as np
from matplotlib.lines import Line2D
from PIL import Image

from modeling_pcl.pictures.style import (
    FEATURE_LOOKS,
    add_legend,
    choose_looks,
    new_figure,
    one_line,
    render_figure,
    stack_pictures,
    wrap_text,
)

ODD = "_$x^2$ 微笑😀 & {braces}"


def test_titles_and_legends_are_written_as_they_are_without_a_warning(recwarn):
    figure = new_figure(600, 300, ODD)
    figure.subplots()
    legend = add_legend(figure, [Line2D([], [])], [ODD])
    assert render_figure(figure).mode == "RGB"
    assert figure.get_suptitle() == ODD
    assert [text.get_text() for text in legend.get_texts()] == [ODD]
    assert not recwarn.list


def test_features_keep_their_looks_and_others_get_what_is_left():
    looks = choose_looks(["other", "face", "more"])
    assert looks["face"] == FEATURE_LOOKS["face"]
    assert len(set(looks.values())) == 3


def test_pictures_stand_below_each_other_in_the_middle():
    page = np.asarray(stack_pictures([Image.new("RGB", (4, 2), "red"), Image.new("RGB", (2, 3), "blue")]))
    assert page.shape == (5, 4, 3)
    assert (page[:2] == [255, 0, 0]).all()
    assert (page[2:, 1:3] == [0, 0, 255]).all()
    assert (page[2:, [0, 3]] == 255).all()


def test_words_are_cut_and_broken_at_a_number_of_letters():
    assert one_line("two\n  words", 20) == "two words"
    assert one_line("a long name", 6) == "a lon…"
    assert wrap_text("one two three four five", 9, 2) == "one two\nthree …"
