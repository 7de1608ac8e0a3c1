import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from modeling_pcl.data import schema
from modeling_pcl.data.schema import check_schema, describe_columns, make_corpus_features, presence


def make_table(column: str, values: list, feature) -> Dataset:
    return Dataset.from_dict({column: values}, features=Features({column: feature}))


def test_a_corpus_has_image_and_split_first():
    features = make_corpus_features(schema.get_features("yaw", "smile") | {"AU12": schema.INTENSITY})
    assert list(features) == ["image", "split", "yaw", "smile", "AU12"]


@pytest.mark.parametrize(
    ("column", "values", "feature"),
    [
        ("subject", ["a", None], Value("string")),
        ("subject", [3, 4], Value("int32")),
        ("frame", [1, 2], Value("int64")),
        ("expression", [0, None], ClassLabel(names=["happy"])),
        ("yaw", [-180.0, None], Value("float64")),
        ("age", [116, 0], Value("int32")),
        ("AU12", [5, None], Value("int8")),
        ("AU4", [1, 0], schema.PRESENCE),
        ("attributes", [{"x": True}], {"x": Value("bool")}),
        ("AUx", ["anything"], Value("string")),
        ("gender", ["male"], Value("string")),
    ],
)
def test_what_fits_passes_also_as_a_stream(column, values, feature):
    corpus = make_table(column, values, feature)
    check_schema(corpus, "faces")
    check_schema(corpus.to_iterable_dataset(), "faces")


@pytest.mark.parametrize(
    ("column", "values", "feature", "expected"),
    [
        ("subject", [1.5], Value("float32"), "names or whole numbers"),
        ("yaw", ["30"], Value("string"), "numbers"),
        ("AU12", ["yes"], Value("string"), "numbers"),
        ("attributes", ["x"], Value("string"), "a struct"),
        ("same", [0.5], Value("float32"), "booleans"),
        ("expression", [{"a": 1}], {"a": Value("int8")}, "classes, numbers or names"),
    ],
)
def test_a_column_of_another_type_is_refused_by_name(column, values, feature, expected):
    corpus = make_table(column, values, feature)
    for kind in (corpus, corpus.to_iterable_dataset()):
        with pytest.raises(ValueError, match=rf"`{column}` of `faces` must hold {expected}.*rename"):
            check_schema(kind, "faces")


@pytest.mark.parametrize(
    ("column", "values", "feature"),
    [
        ("yaw", [0.0, 181.0], Value("float32")),
        ("age", [-1, 30], Value("int32")),
        ("AU12", [0, 6], Value("int8")),
        ("AU4", [9, 0], Value("int8")),
        ("fold", [0, 1], Value("int32")),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_came(column, values, feature):
    with pytest.raises(ValueError, match=rf"`{column}` of `faces` must lie in .* from {min(values)} to {max(values)}"):
        check_schema(make_table(column, values, feature), "faces")


def test_presence_of_an_action_unit_counts_an_intensity_from_two_and_keeps_gaps():
    intensity = presence(make_table("AU1", [0, 1, 2, 5, None], schema.INTENSITY), "AU1")
    np.testing.assert_array_equal(intensity, [0, 0, 1, 1, np.nan])
    coded = presence(make_table("AU1", [0, 1, None], schema.PRESENCE), "AU1")
    np.testing.assert_array_equal(coded, [0, 1, np.nan])


def test_action_units_come_by_number():
    assert schema.action_units(["AU12", "AU2", "image", "AU", "au1", "AU100"]) == ["AU2", "AU12", "AU100"]


def test_every_column_is_described():
    described = describe_columns(make_corpus_features(schema.get_features("yaw", "pitch", "roll", "smile", "age")))
    assert described["pitch"] == "degrees, right-handed: positive is the nose up"
    assert described["smile"] == "not smiling, smiling"
    assert "present from 2" in describe_columns({"AU2": schema.INTENSITY})["AU2"]
