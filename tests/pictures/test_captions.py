import pytest
from datasets import ClassLabel, Value

from modeling_pcl.data import schema
from modeling_pcl.pictures.captions import write_caption

NAN = float("nan")
FEATURES = {
    **schema.COLUMNS,
    "expression": ClassLabel(names=["happy", "very much surprised"]),
    "AU1": schema.PRESENCE,
    "AU2": schema.PRESENCE,
    "AU12": schema.INTENSITY,
    "AU25": schema.INTENSITY,
    "attributes.race": ClassLabel(names=["Asian", "African-American"]),
}


def caption(**labels) -> list[str]:
    labels = {name.replace("attributes_", "attributes."): value for name, value in labels.items()}
    booleans = {name: Value("bool") for name in labels if name.startswith("attributes.")}
    return [line.replace("\xa0", " ") for line in write_caption(labels, booleans | FEATURES)]


def test_pose_stands_on_a_line_of_its_own_with_its_sign():
    assert caption(yaw=12.4, pitch=-7.6, roll=-0.3, age=31.0) == ["yaw +12 pitch -8 roll +0", "age 31"]
    assert caption(yaw=12.4, pitch=None, roll=NAN) == ["yaw +12"]


def test_classes_age_and_gender_come_in_one_order():
    labels = {"gender": 1, "age": 30.2, "smile": 0, "expression": 0, "subject": "s1"}
    assert caption(**labels) == ["happy, not smiling, age 30,", "female, subject s1"]


@pytest.mark.parametrize("value", [None, NAN])
def test_what_is_missing_is_not_said(value):
    assert caption(expression=None, smile=None, gender=None, subject=None, age=value, AU12=None) == []
    assert caption(AU12=value, AU1=None, attributes_Male=None, attributes_race=None) == []
    assert caption() == []


def test_action_units_that_are_present_come_by_number_with_their_intensity():
    assert caption(AU25=3, AU12=0, AU2=1, AU1=0) == ["AU2 AU25=3"]


def test_attributes_that_are_true_are_named_up_to_four_and_the_rest_counted():
    four = {f"attributes_a_{number}": True for number in range(4)}
    assert caption(**four, attributes_no=False) == ["a 0, a 1, a 2, a 3"]
    more = four | {"attributes_race": 1, "attributes_x": True}
    assert caption(**more) == ["a 0, a 1, a 2, a 3, +2"]
    assert caption(attributes_race=1) == ["race: African-American"]


def test_labels_are_not_torn_apart_where_a_line_ends():
    lines = caption(expression=1, smile=0, subject="a b c")
    assert lines == ["very much surprised,", "not smiling, subject a b c"]


def test_no_more_than_four_lines_of_27_letters_and_the_last_says_that_it_is_cut():
    labels = {f"attributes_{'letters' * 3}_{number}": True for number in range(4)}
    lines = caption(yaw=-180.0, pitch=-180.0, roll=-180.0, expression=1, smile=0, **labels)
    assert len(lines) == 4
    assert lines[0] == "yaw -180 pitch -180 roll -180"
    assert max(map(len, lines[1:])) <= 27
    assert lines[-1].endswith("…")


def test_a_long_subject_is_cut_and_a_line_break_in_it_is_a_space():
    assert caption(subject="x" * 40) == ["subject " + "x" * 17 + "…"]
    assert caption(subject="two\nlines") == ["subject two lines"]
    assert caption(subject=7) == ["subject 7"]
