from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from modeling_pcl.data.chart_drawing import COLOURS, charts_height_px, draw_charts
from modeling_pcl.data.label_charts import Panel
from modeling_pcl.data.pixel_figure import new_figure, rendered

WIDTH = 1600
TOP = 30


def drawn(*panels: Panel, width_px: int = WIDTH) -> Figure:
    figure = new_figure(width_px, TOP + charts_height_px(panels, width_px))
    draw_charts(figure, panels, TOP, width_px)
    rendered(figure)
    return figure


def classes(*names: str, title: str = "expression") -> Panel:
    return Panel(title, list(names), {"rows": np.arange(1, len(names) + 1)})


def bars(axes) -> list[tuple[float, float, float, float]]:
    """Left, bottom, width and height of each, in the order of their drawing."""
    return [(*bar.get_xy(), bar.get_width(), bar.get_height()) for bar in axes.patches]


def edges(figure: Figure) -> list[tuple[float, ...]]:
    """Left, top, right and bottom of all that each chart draws, in pixels from the page's top left."""
    height = figure.get_figheight() * figure.dpi
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    return [(box.x0, height - box.y1, box.x1, height - box.y0) for box in boxes]


@pytest.mark.parametrize(
    ("count", "per_row"), [(1, [1]), (2, [2]), (3, [3]), (4, [4]), (5, [3, 2]), (7, [4, 3]), (9, [3, 3, 3])]
)
def test_charts_stand_evenly_in_as_few_rows_as_possible(count, per_row):
    figure = drawn(*[classes("a", "b", title=str(number)) for number in range(count)])
    tops = [round(axes.get_position().y1, 4) for axes in figure.axes]
    assert [tops.count(top) for top in dict.fromkeys(tops)] == per_row
    assert tops == sorted(tops, reverse=True)
    assert [axes.get_title() for axes in figure.axes] == [str(number) for number in range(count)]


def test_without_charts_nothing_is_drawn():
    assert charts_height_px([], WIDTH) == 0
    assert drawn().axes == []


@pytest.mark.parametrize("width", [1080, 1620])
def test_nothing_overlaps_or_leaves_the_page(width):
    panels = [
        classes("a", "b"),
        classes(*(f"a very long name of a class, number {number}" for number in range(30))),
        Panel("yaw", np.arange(-90, 90, 5), {"rows": np.arange(36) * 100_000}, 5, "degrees"),
        Panel("units", [f"AU{n}" for n in range(1, 13)], {str(n): np.full(12, 1000) for n in range(6)}),
        Panel("share", [f"Attribute {n}" for n in range(20)], {"share": np.linspace(1, 0, 20)}),
        Panel("subjects", np.arange(1, 9), {"subjects": np.array([2600, 1700, 750, 300, 70, 20, 3, 2])}, 1, "i", True),
        Panel("empty", [], {"rows": np.array([])}, 5, "degrees"),
        classes("one", title="$a_title$\n" + "of many letters " * 20),
    ]
    figure = drawn(*panels, width_px=width)
    boxes = edges(figure)
    height = figure.get_figheight() * figure.dpi
    assert all(left >= 0 and top >= TOP and right <= width and bottom <= height for left, top, right, bottom in boxes)
    for i, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1]


def test_short_names_stand_side_by_side_and_long_ones_below_each_other_from_the_top():
    short, long = drawn(classes("a", "b", "c"), classes(*(f"class number {number}" for number in range(9)))).axes
    assert [tick.get_text() for tick in short.get_xticklabels()] == ["a", "b", "c"]
    assert [bar[3] for bar in bars(short)] == [1, 2, 3]
    assert [tick.get_text() for tick in long.get_yticklabels()] == [f"class number {number}" for number in range(9)]
    assert [bar[2] for bar in bars(long)] == list(range(1, 10))
    assert long.get_ylim()[0] > long.get_ylim()[1]


def test_names_side_by_side_do_not_touch():
    (axes,) = drawn(classes("Caucasian", "African-American", "Asian"), width_px=1080).axes
    labels = [tick.get_window_extent() for tick in axes.get_xticklabels()]
    assert all(label.x1 < following.x0 for label, following in pairwise(labels))


def test_every_bar_says_how_high_it_is():
    counts, shares = drawn(
        Panel("rows", ["a", "b"], {"rows": np.array([1234, 5])}), Panel("s", ["a"], {"share": np.array([0.256])})
    ).axes
    assert [text.get_text() for text in counts.texts] == ["1,234", "5"]
    assert [text.get_text() for text in shares.texts] == ["0.26"]
    assert shares.get_ylim()[1] > 1


@pytest.mark.parametrize("names", [["1", "2"], ["a name of many letters", "another name of many letters"] * 3])
def test_series_are_stacked_in_their_order_and_colours(names):
    first = np.arange(len(names)) + 3
    heights = {"same": first, "different": first + 2, "missing": first + 9}
    (axes,) = drawn(Panel("pairs by fold", names, heights), width_px=800).axes
    is_horizontal = len(names) > 2
    start, length = (0, 2) if is_horizontal else (1, 3)
    starts = [0 * first, first, 2 * first + 2]
    for number, (start_there, height) in enumerate(zip(starts, heights.values())):
        series = bars(axes)[number * len(names) : (number + 1) * len(names)]
        assert [bar[start] for bar in series] == start_there.tolist()
        assert [bar[length] for bar in series] == height.tolist()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(heights)
    picture = np.asarray(rendered(axes.figure))
    for name in heights:
        colour = [int(COLOURS[name][place : place + 2], 16) for place in (1, 3, 5)]
        assert (picture == colour).all(axis=2).sum() > 500


def test_the_six_intensities_are_ever_darker():
    levels = [int(COLOURS[str(level)][1:3], 16) for level in range(6)]
    assert levels == sorted(levels, reverse=True)
    assert len(set(levels)) == 6


def test_a_bin_reaches_from_its_edge_to_the_next_and_one_of_a_whole_number_stands_around_it():
    wide, single = drawn(
        Panel("yaw", np.array([-10, -5, 0, 5]), {"rows": np.array([1, 2, 3, 4])}, 5, "degrees"),
        Panel("subjects", np.array([15, 16, 17, 18, 19]), {"subjects": np.array([1, 0, 0, 0, 2])}, 1, "images"),
    ).axes
    assert [(bar[0], bar[2]) for bar in bars(wide)] == [(-10, 5), (-5, 5), (0, 5), (5, 5)]
    assert [(bar[0], bar[2]) for bar in bars(single)][:2] == [(14.5, 1), (15.5, 1)]
    assert wide.get_xlabel() == "degrees"
    assert wide.get_xlim() == (-10, 10)


def test_few_bars_are_not_blown_up():
    one, two = drawn(classes("a"), Panel("s", np.array([33]), {"subjects": np.array([9])}, 1, "images")).axes
    assert np.ptp(one.get_xlim()) == 4
    assert two.get_xlim() == (31, 35)


@pytest.mark.parametrize("heights", [[1], [1, 3], [0, 0], [7, 1_000_000]])
def test_heights_are_numbered_in_whole_numbers_from_zero(heights):
    panel = Panel("subjects", np.arange(1, 1 + len(heights)), {"subjects": np.array(heights)}, 1, "images")
    (axes,) = drawn(panel).axes
    low, high = axes.get_ylim()
    assert low == 0
    assert high > max(heights)
    assert all(tick == round(tick) for tick in [*axes.get_yticks(), *axes.get_xticks()])


def test_on_a_logarithmic_scale_a_count_of_one_is_seen():
    panel = Panel("subjects", np.array([1, 2]), {"subjects": np.array([5000, 1])}, 1, "images", is_log=True)
    (axes,) = drawn(panel).axes
    assert axes.get_yscale() == "log"
    assert 0 < axes.get_ylim()[0] < 1


def test_a_chart_without_bars_says_that_nothing_is_known():
    (axes,) = drawn(Panel("yaw, 3 missing", [], {"rows": np.array([])}, 5, "degrees")).axes
    assert [text.get_text() for text in axes.texts] == ["nothing is known"]
    assert axes.get_title() == "yaw, 3 missing"
