import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from modeling_pcl.data import schema
from modeling_pcl.pictures.label_charts import (
    Panel,
    build_action_unit_panels,
    build_attribute_panels,
    build_class_panel,
    build_corpus_panels,
    build_fold_panel,
    build_histogram_panel,
    build_subject_panel,
    draw_panels,
)

NAN = float("nan")
EXPRESSION = ClassLabel(names=["sad", "angry", "happy"])


def table(features: dict, **columns) -> Dataset:
    return Dataset.from_dict(columns, features=Features(features))


def heights(panel: Panel) -> dict[str, dict]:
    """Bar to height, by series."""
    return {name: dict(zip(panel.bars, values.tolist(), strict=True)) for name, values in panel.series.items()}


FORTY = [f"class {number:02d}" for number in range(40) for _ in range(number + 1)]


@pytest.mark.parametrize(
    ("kind", "values", "title", "rows"),
    [
        (EXPRESSION, [2, 0, 2, None, 2], "expression, 1 missing", {"sad": 1, "angry": 0, "happy": 3}),
        (EXPRESSION, [None, None], "expression, 2 missing", {"sad": 0, "angry": 0, "happy": 0}),
        (Value("string"), ["male", "female", "male"], "expression", {"female": 1, "male": 2}),
        (
            Value("string"),
            FORTY,
            "expression (the 30 largest of 40)",
            {f"class {number}": number + 1 for number in range(39, 9, -1)},
        ),
    ],
    ids=["in the feature's order", "none is known", "by name", "the largest of very many"],
)
def test_classes_are_counted_in_their_order(kind, values, title, rows):
    panel = build_class_panel(table({"expression": kind}, expression=values), "expression")
    assert (panel.title, panel.bin_width) == (title, None)
    assert list(heights(panel)["rows"].items()) == list(rows.items())


@pytest.mark.parametrize(
    ("values", "width", "title", "rows"),
    [
        ([-5.1, -5, -0.1, 0, 4.9, 5, 14.9, NAN, NAN], 5, "yaw, 2 missing", {-10: 1, -5: 2, 0: 2, 5: 1, 10: 1}),
        ([1.0, 21.0], 10, "yaw", {0: 1, 10: 0, 20: 1}),
        ([NAN, NAN], 5, "yaw, 2 missing", {}),
    ],
    ids=["from the lower edge to below the next", "an empty one between others", "none is known"],
)
def test_bins_are_counted(values, width, title, rows):
    panel = build_histogram_panel("yaw", np.array(values), width, "degrees")
    assert (panel.title, panel.bin_width, panel.unit) == (title, width, "degrees")
    assert heights(panel) == {"rows": rows}


def test_presence_and_intensity_of_action_units_are_stacked_apart():
    corpus = table(
        {"AU12": schema.INTENSITY, "AU4": schema.PRESENCE, "AU1": schema.PRESENCE, "AU6": schema.INTENSITY},
        AU12=[0, 5, 5, None],
        AU4=[1, 1, 0, 1],
        AU1=[None, None, 0, 1],
        AU6=[1, 2, 3, 4],
    )
    presence, intensity = build_action_unit_panels(corpus)
    assert (presence.title, list(presence.bars)) == ("action units", ["AU1", "AU4"])
    assert heights(presence) == {
        "present": {"AU1": 1, "AU4": 3},
        "absent": {"AU1": 1, "AU4": 1},
        "missing": {"AU1": 2, "AU4": 0},
    }
    assert (intensity.title, list(intensity.bars)) == ("action units, intensity", ["AU6", "AU12"])
    assert list(intensity.series) == ["0", "1", "2", "3", "4", "5", "missing"]
    counted = heights(intensity)
    assert [counted[level]["AU6"] for level in intensity.series] == [0, 1, 1, 1, 1, 0, 0]
    assert [counted[level]["AU12"] for level in intensity.series] == [1, 0, 0, 0, 0, 2, 1]


def test_an_intensity_between_two_levels_counts_for_the_nearer_so_that_no_row_is_lost():
    (panel,) = build_action_unit_panels(table({"AU1": Value("float32")}, AU1=[0.4, 0.6, 4.9]))
    counted = {name: values["AU1"] for name, values in heights(panel).items()}
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
    (panel,) = build_attribute_panels(corpus)
    assert panel.title == "attributes, share of true, 7 missing"
    assert list(panel.bars) == ["Male", "Big Nose", "Bald"]
    assert panel.series["share"] == pytest.approx([1, 1 / 3, 1 / 4])


def test_many_attributes_go_to_several_charts_without_loss():
    names = [f"attributes.a{number}" for number in range(45)]
    columns = {name: [place < number for place in range(45)] for number, name in enumerate(names)}
    panels = build_attribute_panels(table({name: Value("bool") for name in names}, **columns))
    assert [panel.title for panel in panels] == [
        "attributes, share of true",
        "attributes, from place 21",
        "attributes, from place 41",
    ]
    assert [bar for panel in panels for bar in panel.bars] == [f"a{number}" for number in range(44, -1, -1)]


def test_attributes_with_classes_have_a_chart_each():
    race = ClassLabel(names=["A", "B"])
    corpus = table(
        {"attributes.race": race, "attributes.Male": Value("bool"), "attributes.eyes": Value("string")},
        **{"attributes.race": [1, None, 1], "attributes.Male": [True] * 3, "attributes.eyes": ["blue"] * 3},
    )
    share, race, eyes = build_attribute_panels(corpus)
    assert list(share.bars) == ["Male"]
    assert (race.title, heights(race)) == ("race, 1 missing", {"rows": {"A": 0, "B": 2}})
    assert (eyes.title, heights(eyes)) == ("eyes", {"rows": {"blue": 3}})


def test_subjects_are_counted_by_the_number_of_their_images():
    panel = build_subject_panel(["a", "b", "a", "c", "d", "d", "d", "d", None, None])
    assert panel.title == "subjects by number of images, 2 missing"
    assert heights(panel) == {"subjects": {1: 2, 2: 1, 3: 0, 4: 1}}
    assert (panel.bin_width, panel.unit, panel.is_log) == (1, "images", False)


def test_bins_of_large_subjects_are_as_wide_as_there_is_room_for():
    panel = build_subject_panel(["a"] * 400 + ["b"] * 395 + ["c"])
    assert panel.bin_width == 10
    assert {edge: count for edge, count in heights(panel)["subjects"].items() if count} == {0: 1, 390: 1, 400: 1}


def test_counts_of_very_different_size_are_drawn_on_a_logarithmic_scale():
    assert not build_subject_panel([*map(str, range(99)), "x", "x"]).is_log
    assert build_subject_panel([*map(str, range(100)), "x", "x"]).is_log


def pairs(same: list, fold: list) -> Dataset:
    return table({"same": Value("bool"), "fold": Value("int32")}, same=same, fold=fold)


def test_pairs_are_counted_by_fold_in_the_order_of_their_numbers():
    same = [True, False, True, True, None, False]
    panel = build_fold_panel(pairs(same, [10, 2, 2, 10, 2, None]))
    assert panel.title == "pairs by fold, 2 missing"
    assert list(panel.bars) == ["2", "10"]
    assert heights(panel) == {"same": {"2": 1, "10": 2}, "different": {"2": 1, "10": 0}}


@pytest.mark.parametrize(
    ("panel", "title"),
    [
        (lambda: build_fold_panel(pairs([True, False], [None, None])), "pairs by fold, 2 missing"),
        (lambda: build_subject_panel([None, None]), "subjects by number of images, 2 missing"),
        (
            lambda: build_attribute_panels(table({"attributes.x": Value("bool")}, **{"attributes.x": [None, None]}))[0],
            "attributes, share of true, 2 missing",
        ),
    ],
    ids=["folds", "subjects", "attributes"],
)
def test_where_nothing_is_known_there_are_no_bars(panel, title):
    assert (panel().title, list(panel().bars)) == (title, [])


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
    panels = build_corpus_panels(corpus)
    assert [panel.title for panel in panels] == [
        "gender",
        "split",
        "yaw, 1 missing",
        "age",
        "action units",
        "attributes, share of true, 1 missing",
        "subjects by number of images",
    ]
    age = panels[3]
    assert (heights(age), age.unit, panels[2].unit) == ({"rows": {30: 1, 35: 1}}, "years", "degrees")


@pytest.mark.parametrize(
    ("split", "charts"),
    [(["train"] * 2, {}), ([None] * 2, {}), (["train", None], {"split, 1 missing": {"rows": {"train": 1}}})],
)
def test_a_split_has_a_chart_unless_all_rows_share_it(split, charts):
    panels = build_corpus_panels(table({"split": Value("string")}, split=split))
    assert {panel.title: heights(panel) for panel in panels} == charts


@pytest.fixture
def drawn(figures):
    """From panels to the axes on which they are drawn."""
    return lambda *panels: draw_panels(panels) and figures[-1].axes


def test_series_are_stacked_in_their_order(drawn):
    first = np.array([3, 4])
    (axes,) = drawn(Panel("pairs by fold", ["1", "2"], {"same": first, "different": first + 2}))
    bottoms = [bar.get_y() for bar in axes.patches]
    assert bottoms == [0, 0, 3, 4]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["same", "different"]


def test_many_or_long_names_stand_below_each_other_from_the_top(drawn):
    names = [f"class number {number}" for number in range(9)]
    (axes,) = drawn(Panel("expression", names, {"rows": np.arange(9)}))
    assert [tick.get_text() for tick in axes.get_yticklabels()] == names
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert [bar.get_width() for bar in axes.patches] == list(range(9))


def test_a_bin_reaches_from_its_edge_to_the_next_and_one_of_a_whole_number_stands_around_it(drawn):
    wide, single = drawn(
        Panel("yaw", np.array([-10, -5, 0, 5]), {"rows": np.array([1, 2, 3, 4])}, 5, "degrees"),
        Panel("subjects", np.array([15, 16]), {"subjects": np.array([1, 0])}, 1, "images", is_log=True),
    )
    assert [(bar.get_x(), bar.get_width()) for bar in wide.patches] == [(-10, 5), (-5, 5), (0, 5), (5, 5)]
    assert [(bar.get_x(), bar.get_width()) for bar in single.patches] == [(14.5, 1), (15.5, 1)]
    assert wide.get_xlabel() == "degrees"
    assert single.get_yscale() == "log"


def test_what_is_not_known_says_so_and_bars_say_how_high_they_are(drawn):
    empty, counts, shares = drawn(
        Panel("yaw", [], {"rows": np.array([])}, 5, "degrees"),
        Panel("rows", ["a", "b"], {"rows": np.array([1234, 5])}),
        Panel("s", ["a"], {"share": np.array([0.256])}),
    )
    assert empty.texts[0].get_text() == "nothing is known"
    assert [text.get_text() for text in counts.texts] == ["1,234", "5"]
    assert [text.get_text() for text in shares.texts] == ["0.26"]
