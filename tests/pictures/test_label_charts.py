import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from modeling_pcl.data import schema
from modeling_pcl.pictures.label_charts import (
    Chart,
    count_action_units,
    count_attributes,
    count_classes,
    count_in_bins,
    count_labels,
    count_pairs,
    count_subjects,
    draw_charts,
)

NAN = float("nan")
EXPRESSION = ClassLabel(names=["sad", "angry", "happy"])


def table(features: dict, **columns) -> Dataset:
    return Dataset.from_dict(columns, features=Features(features))


def heights(chart: Chart) -> dict[str, dict]:
    """Bar to height, by series."""
    return chart.heights.to_dict()


FORTY = [f"class {number:02d}" for number in range(40) for _ in range(number + 1)]


@pytest.mark.parametrize(
    ("kind", "values", "title", "rows"),
    [
        (EXPRESSION, [2, 0, 2, None, 2], ("expression", 1), {"sad": 1, "angry": 0, "happy": 3}),
        (EXPRESSION, [None, None], ("expression", 2), {"sad": 0, "angry": 0, "happy": 0}),
        (Value("string"), ["male", "female", "male"], ("expression", 0), {"female": 1, "male": 2}),
        (
            Value("string"),
            FORTY,
            ("expression (the 30 largest of 40)", 0),
            {f"class {number}": number + 1 for number in range(39, 9, -1)},
        ),
    ],
    ids=["in the feature's order", "none is known", "by name", "the largest of very many"],
)
def test_classes_are_counted_in_their_order(kind, values, title, rows):
    chart = count_classes(table({"expression": kind}, expression=values), "expression")
    assert ((chart.title, chart.missing), chart.bin_width) == (title, None)
    assert list(heights(chart)["rows"].items()) == list(rows.items())


@pytest.mark.parametrize(
    ("values", "width", "missing", "rows"),
    [
        ([-5.1, -5, -0.1, 0, 4.9, 5, 14.9, NAN, NAN], 5, 2, {-10: 1, -5: 2, 0: 2, 5: 1, 10: 1}),
        ([1.0, 21.0], 10, 0, {0: 1, 20: 1}),
        ([NAN, NAN], 5, 2, {}),
    ],
    ids=["from the lower edge to below the next", "an empty one between others", "none is known"],
)
def test_bins_are_counted(values, width, missing, rows):
    chart = count_in_bins("yaw", np.array(values), width, "degrees")
    assert (chart.title, chart.missing, chart.bin_width, chart.unit) == ("yaw", missing, width, "degrees")
    assert heights(chart) == {"count": rows}


def test_presence_and_intensity_of_action_units_are_stacked_apart():
    corpus = table(
        {"AU12": schema.INTENSITY, "AU4": schema.PRESENCE, "AU1": schema.PRESENCE, "AU6": schema.INTENSITY},
        AU12=[0, 5, 5, None],
        AU4=[1, 1, 0, 1],
        AU1=[None, None, 0, 1],
        AU6=[1, 2, 3, 4],
    )
    presence, intensity = count_action_units(corpus)
    assert (presence.title, list(presence.heights.index)) == ("action units", ["AU1", "AU4"])
    assert heights(presence) == {
        "present": {"AU1": 1, "AU4": 3},
        "absent": {"AU1": 1, "AU4": 1},
        "missing": {"AU1": 2, "AU4": 0},
    }
    assert (intensity.title, list(intensity.heights.index)) == ("action units, intensity", ["AU6", "AU12"])
    assert list(intensity.heights) == ["0", "1", "2", "3", "4", "5", "missing"]
    counted = heights(intensity)
    assert [counted[level]["AU6"] for level in intensity.heights] == [0, 1, 1, 1, 1, 0, 0]
    assert [counted[level]["AU12"] for level in intensity.heights] == [1, 0, 0, 0, 0, 2, 1]


def test_an_intensity_between_two_levels_counts_for_the_nearer_so_that_no_row_is_lost():
    (chart,) = count_action_units(table({"AU1": Value("float32")}, AU1=[0.4, 0.6, 4.9]))
    counted = {name: values["AU1"] for name, values in heights(chart).items()}
    assert counted == {"0": 1, "1": 1, "2": 0, "3": 0, "4": 0, "5": 1}  # None is missing, so that there is no such bar.


def test_attributes_show_the_share_of_the_known_that_is_true_largest_first():
    boolean = Value("bool")
    corpus = table(
        {f"attributes.{name}": boolean for name in ("Big_Nose", "Male", "Bald", "Unknown")},
        **{
            "attributes.Big_Nose": [True, False, False, None],
            "attributes.Male": [True, True, None, None],
            "attributes.Bald": [False, False, False, True],
            "attributes.Unknown": [None] * 4,
        },
    )
    (chart,) = count_attributes(corpus)
    assert (chart.title, chart.missing) == ("attributes, share of true", 7)
    assert heights(chart)["share"] == pytest.approx({"Male": 1, "Big Nose": 1 / 3, "Bald": 1 / 4})
    assert list(chart.heights.index) == ["Male", "Big Nose", "Bald"]


def test_many_attributes_go_to_several_charts_without_loss():
    names = [f"attributes.a{number}" for number in range(45)]
    columns = {name: [place < number for place in range(45)] for number, name in enumerate(names)}
    charts = count_attributes(table({name: Value("bool") for name in names}, **columns))
    assert [chart.title for chart in charts] == [
        "attributes, share of true",
        "attributes, from place 21",
        "attributes, from place 41",
    ]
    assert [bar for chart in charts for bar in chart.heights.index] == [f"a{number}" for number in range(44, -1, -1)]


def test_attributes_with_classes_have_a_chart_each():
    race = ClassLabel(names=["A", "B"])
    corpus = table(
        {"attributes.race": race, "attributes.Male": Value("bool"), "attributes.eyes": Value("string")},
        **{"attributes.race": [1, None, 1], "attributes.Male": [True] * 3, "attributes.eyes": ["blue"] * 3},
    )
    share, race, eyes = count_attributes(corpus)
    assert list(share.heights.index) == ["Male"]
    assert (race.title, race.missing, heights(race)) == ("race", 1, {"rows": {"A": 0, "B": 2}})
    assert (eyes.title, heights(eyes)) == ("eyes", {"rows": {"blue": 3}})


def test_subjects_are_counted_by_the_number_of_their_images():
    chart = count_subjects(["a", "b", "a", "c", "d", "d", "d", "d", None, None])
    assert (chart.title, chart.missing) == ("subjects by number of images", 2)
    assert heights(chart) == {"count": {1: 2, 2: 1, 4: 1}}
    assert (chart.bin_width, chart.unit, chart.is_log) == (1, "images", False)


def test_bins_of_large_subjects_are_as_wide_as_there_is_room_for():
    chart = count_subjects(["a"] * 400 + ["b"] * 395 + ["c"])
    assert chart.bin_width == 10
    assert heights(chart) == {"count": {0: 1, 390: 1, 400: 1}}


def test_counts_of_very_different_size_are_drawn_on_a_logarithmic_scale():
    assert not count_subjects([*map(str, range(99)), "x", "x"]).is_log
    assert count_subjects([*map(str, range(100)), "x", "x"]).is_log


def pairs(same: list, fold: list) -> Dataset:
    return table({"same": Value("bool"), "fold": Value("int32")}, same=same, fold=fold)


def test_pairs_are_counted_by_fold_in_the_order_of_their_numbers():
    same = [True, False, True, True, None, False]
    chart = count_pairs(pairs(same, [10, 2, 2, 10, 2, None]))
    assert (chart.title, chart.missing) == ("pairs by fold", 2)
    assert list(chart.heights.index) == ["2", "10"]
    assert heights(chart) == {"same": {"2": 1, "10": 2}, "different": {"2": 1, "10": 0}}


@pytest.mark.parametrize(
    "chart",
    [
        lambda: count_pairs(pairs([True, False], [None, None])),
        lambda: count_subjects([None, None]),
        lambda: count_attributes(table({"attributes.x": Value("bool")}, **{"attributes.x": [None, None]}))[0],
    ],
    ids=["folds", "subjects", "attributes"],
)
def test_where_nothing_is_known_there_are_no_bars(chart):
    assert (chart().missing, len(chart().heights)) == (2, 0)


def test_a_corpus_has_a_chart_of_each_label_it_has_in_one_order():
    number = Value("float32")
    corpus = table(
        {"subject": Value("string"), "AU1": schema.PRESENCE, "age": number, "yaw": number}
        | {"gender": schema.COLUMNS["gender"], "split": Value("string"), "attributes.x": Value("bool")}
        | {"video": Value("string"), "frame": Value("int64")},
        subject=["a", "b"],
        AU1=[0, 1],
        age=[31.0, 39.9],
        yaw=[0.0, None],
        gender=[0, 1],
        split=["train", "test"],
        video=["v", "w"],
        frame=[1, 2],
        **{"attributes.x": [True, None]},
    )
    charts = count_labels(corpus)
    assert {chart.title: chart.missing for chart in charts} == {
        "gender": 0,
        "split": 0,
        "yaw": 1,
        "age": 0,
        "action units": 0,
        "attributes, share of true": 1,
        "subjects by number of images": 0,
    }
    age = charts[3]
    assert (heights(age), age.unit, charts[2].unit) == ({"count": {30: 1, 35: 1}}, "years", "degrees")


@pytest.mark.parametrize(
    ("split", "expected"),
    [(["train"] * 2, {}), ([None] * 2, {}), (["train", None], {"split": {"rows": {"train": 1}}})],
)
def test_a_split_has_a_chart_unless_all_rows_share_it(split, expected):
    charts = count_labels(table({"split": Value("string")}, split=split))
    assert {chart.title: heights(chart) for chart in charts} == expected


@pytest.fixture
def drawn(figures):
    """From charts to the axes on which they are drawn."""
    return lambda *charts: draw_charts(charts) and figures[-1].axes


def test_series_are_stacked_in_their_order(drawn):
    counts = pd.DataFrame({"same": [3, 4], "different": [5, 6]}, index=["1", "2"])
    (axes,) = drawn(Chart("pairs by fold", 1234, counts))
    assert [bar.get_y() for bar in axes.patches] == [0, 0, 3, 4]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["same", "different"]
    assert axes.get_title() == "pairs by fold, 1,234 missing"


def test_many_or_long_names_stand_below_each_other_from_the_top(drawn):
    names = [f"class number {number}" for number in range(9)]
    (axes,) = drawn(Chart("expression", 0, pd.DataFrame({"rows": range(9)}, index=names)))
    assert [tick.get_text() for tick in axes.get_yticklabels()] == names
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert [bar.get_width() for bar in axes.patches] == list(range(9))


def test_a_bin_reaches_from_its_edge_to_the_next_and_one_of_a_whole_number_stands_around_it(drawn):
    wide, single = drawn(
        Chart("yaw", 0, pd.DataFrame({"count": [1, 2, 4]}, index=[-10, -5, 5]), 5, "degrees"),
        Chart("subjects", 0, pd.DataFrame({"count": [1, 2]}, index=[15, 16]), 1, "images", is_log=True),
    )
    assert [(bar.get_x(), bar.get_width()) for bar in wide.patches] == [(-10, 5), (-5, 5), (5, 5)]
    assert [(bar.get_x(), bar.get_width()) for bar in single.patches] == [(14.5, 1), (15.5, 1)]
    assert wide.get_xlabel() == "degrees"
    assert single.get_yscale() == "log"


def test_what_is_not_known_says_so_and_bars_say_how_high_they_are(drawn):
    empty, counts, shares = drawn(
        Chart("yaw", 0, pd.DataFrame({"count": []}), 5, "degrees"),
        Chart("rows", 0, pd.DataFrame({"rows": [1234, 5]}, index=["a", "b"])),
        Chart("s", 0, pd.DataFrame({"share": [0.256]}, index=["a"])),
    )
    assert empty.texts[0].get_text() == "nothing is known"
    assert [text.get_text() for text in counts.texts] == ["1,234", "5"]
    assert [text.get_text() for text in shares.texts] == ["0.26"]
