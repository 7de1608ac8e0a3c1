import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from modeling_pcl.data.label_columns import class_name, is_missing, names, numbers, order_names, select_attributes

SMILE = ClassLabel(names=["not smiling", "smiling"])


def make_column(values: list, feature) -> Dataset:
    return Dataset.from_dict({"it": values}, features=Features({"it": feature}))


@pytest.mark.parametrize(
    ("values", "feature", "expected"),
    [
        ([1.5, None, float("nan"), float("inf")], Value("float32"), [1.5, np.nan, np.nan, np.nan]),
        ([3, None, 0], Value("int8"), [3, np.nan, 0]),
        ([True, None, False], Value("bool"), [1, np.nan, 0]),
        ([1, None, 0], SMILE, [1, np.nan, 0]),
        ([None, None], Value("float32"), [np.nan, np.nan]),
        ([None], Value("null"), [np.nan]),
    ],
)
def test_numbers_have_nan_where_nothing_is_known(values, feature, expected):
    np.testing.assert_array_equal(numbers(make_column(values, feature), "it"), expected)


@pytest.mark.parametrize(
    ("values", "feature", "expected"),
    [
        ([1, None, 0], SMILE, ["smiling", None, "not smiling"]),
        (["b", None, ""], Value("string"), ["b", None, ""]),
        ([7, None], Value("int64"), ["7", None]),
        ([2.0, float("nan")], Value("float32"), ["2.0", None]),
        ([True, None], Value("bool"), ["True", None]),
    ],
)
def test_names_are_those_of_the_feature_or_the_values_themselves(values, feature, expected):
    assert names(make_column(values, feature), "it") == expected


def test_a_selection_and_a_format_are_respected():
    corpus = make_column([0, 1, 1, None], SMILE).select([3, 1]).with_format("numpy")
    assert names(corpus, "it") == [None, "smiling"]
    np.testing.assert_array_equal(numbers(corpus, "it"), [np.nan, 1])


def test_classes_come_in_the_features_order_and_others_by_name():
    assert order_names(["sad", None], ClassLabel(names=["sad", "angry"])) == ["sad", "angry"]
    assert order_names(["b", None, "a", "b"], Value("string")) == ["a", "b"]


def test_what_is_missing_has_no_name():
    assert class_name(None, SMILE) is None
    assert class_name(float("nan"), Value("float32")) is None
    assert class_name(0, SMILE) == "not smiling"
    assert [is_missing(value) for value in (None, float("nan"), 0, "", False)] == [True, True, False, False, False]


def test_attributes_are_the_columns_below_one_name():
    assert select_attributes(["image.bytes", "attributes.Male", "attributes", "attributes.race"]) == [
        "attributes.Male",
        "attributes.race",
    ]
