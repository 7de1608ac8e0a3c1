import json
import os
import subprocess
import sys

import numpy as np
import pytest

from modeling_pcl.data import splits
from modeling_pcl.data.splits import cut_into_bins, parse_shares, split_by_subject, split_stratified, subject_folds

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}

PRINTS_SPLITS = """
import json, runpy, sys
module = runpy.run_path(sys.argv[1])
labels = [f"person {row * row % 37}" for row in range(500)]
shares = {"train": 0.7, "test": 0.3}
parts = [split(labels, shares, seed=3) for split in (module["split_by_subject"], module["split_stratified"])]
rows = [{name: part.tolist() for name, part in split.items()} for split in parts]
print(json.dumps([rows, module["subject_folds"](labels, 3, seed=3).tolist()]))
"""


def draw_people(seed: int, most: int = 40) -> list[str]:
    """Draw the subjects of rows in random order: 12 to 200 people with few or many rows."""
    generator = np.random.default_rng(seed)
    sizes = np.ceil(most ** generator.random(generator.integers(12, 200))).astype(int)
    return [f"person {person}" for person in generator.permutation(np.repeat(np.arange(len(sizes)), sizes))]


def join_rows(parts: dict[str, np.ndarray]) -> list[int]:
    return sorted(row for part in parts.values() for row in part.tolist())


@pytest.mark.parametrize("seed", range(10))
def test_no_subject_is_in_two_splits_and_no_row_is_lost(seed):
    subjects = draw_people(seed)
    parts = split_by_subject(subjects, SHARES, seed)
    assert list(parts) == list(SHARES)
    assert join_rows(parts) == list(range(len(subjects)))
    assert all((np.diff(part) > 0).all() for part in parts.values())
    members = [{subjects[row] for row in part} for part in parts.values()]
    assert all(members)
    assert sum(map(len, members)) == len(set(subjects))


@pytest.mark.parametrize("seed", range(10))
def test_the_shares_of_rows_are_met_within_half_of_the_largest_subject(seed):
    subjects = draw_people(seed)
    largest = max(subjects.count(subject) for subject in set(subjects))
    for name, part in split_by_subject(subjects, SHARES, seed).items():
        assert abs(len(part) - SHARES[name] * len(subjects)) <= largest / 2


def test_subjects_of_one_row_are_split_to_the_row_and_at_random():
    subjects = list(range(1000))
    parts = split_by_subject(subjects, SHARES, seed=0)
    assert [len(part) for part in parts.values()] == [800, 100, 100]
    assert abs(parts["test"].mean() - 500) < 100
    assert not np.array_equal(parts["test"], split_by_subject(subjects, SHARES, seed=1)["test"])


@pytest.mark.parametrize("sizes", [(1000, 1, 1), (100, 100, 100)])
def test_each_split_gets_a_subject_however_small_its_share(sizes):
    subjects = np.repeat(["a", "b", "c"], sizes)
    parts = split_by_subject(subjects, {"train": 0.98, "validation": 0.01, "test": 0.01}, seed=0)
    assert tuple(len(part) for part in parts.values()) == sizes


def test_rows_without_a_subject_are_counted_in_the_error():
    with pytest.raises(ValueError, match="2 of 5 rows have no subject"):
        split_by_subject(["a", None, "b", float("nan"), "c"], SHARES, seed=0)
    with pytest.raises(ValueError, match="1 of 2 rows have no subject"):
        subject_folds(["a", None], 1, seed=0)


def test_fewer_subjects_than_splits_or_folds_are_refused():
    with pytest.raises(ValueError, match="2 subjects for 3"):
        split_by_subject(["a", "b", "a"], SHARES, seed=0)
    with pytest.raises(ValueError, match="2 subjects for 3"):
        subject_folds(["a", "b"], 3, seed=0)


@pytest.mark.parametrize("split", [split_by_subject, split_stratified])
@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"a": 0.5, "b": 0.4}, r"sum to 1, got 0.5 \+ 0.4 = 0.9"),
        ({"a": 1.0, "b": 0.0}, "`b` must be positive"),
        ({"a": 1.5, "b": -0.5}, "`b` must be positive"),
        ({"a": float("nan"), "b": 0.5}, "`a` must be positive"),
        ({}, "must sum to 1"),
    ],
)
def test_shares_that_are_not_positive_or_do_not_sum_to_1_are_refused(split, shares, message):
    with pytest.raises(ValueError, match=message):
        split(["x", "y", "z"] * 10, shares, 0)


@pytest.mark.parametrize("seed", range(10))
def test_every_label_has_its_share_of_every_split_rounded_down_or_up(seed):
    labels = draw_people(seed, most=400)
    parts = split_stratified(labels, SHARES, seed)
    assert join_rows(parts) == list(range(len(labels)))
    for name, part in parts.items():
        dealt = [labels[row] for row in part]
        assert abs(len(part) - SHARES[name] * len(labels)) <= 2
        for label in set(labels):
            assert abs(dealt.count(label) - SHARES[name] * labels.count(label)) < 1


def test_labels_of_one_row_do_not_all_go_to_the_largest_split():
    parts = split_stratified(list(range(100)), SHARES, seed=0)
    assert [len(part) for part in parts.values()] == [80, 10, 10]


def test_a_share_of_whole_rows_is_dealt_exactly():
    parts = split_stratified([0] * 100 + [1] * 200, {"a": 0.29, "b": 0.71}, seed=0)
    assert [(part < 100).sum() for part in parts.values()] == [29, 71]
    assert [(part >= 100).sum() for part in parts.values()] == [58, 142]


def test_many_splits_of_many_strata_are_dealt_exactly_where_shares_are_whole_rows():
    shares = dict(zip("abcdefg", [0.15, 0.2, 0.1, 0.2, 0.05, 0.15, 0.15]))  # 0.15 * 20 and 3 differ in the last bit
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(400), generator.choice([1, 2, 3, 5, 10, 20], 400)).tolist()
    for name, part in split_stratified(labels, shares, seed=0).items():
        dealt = np.bincount(np.array(labels)[part], minlength=400)
        assert (abs(dealt - shares[name] * np.bincount(labels)) < 1 - 1e-6).all()


def test_missing_labels_are_a_stratum():
    labels = [None, float("nan")] * 50 + ["smiling"] * 100
    parts = split_stratified(labels, {"train": 0.7, "test": 0.3}, seed=0)
    assert [(part < 100).sum() for part in parts.values()] == [70, 30]


def test_rows_of_a_label_are_drawn_at_random_and_by_the_seed():
    first, same, other = (split_stratified([0] * 200, {"a": 0.5, "b": 0.5}, seed)["a"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    assert 30 < (first < 100).sum() < 70


def test_a_split_that_would_be_empty_is_refused():
    with pytest.raises(ValueError, match="`validation` would get none of 3 rows"):
        split_stratified(["a", "a", "a"], SHARES, seed=0)


def test_quantile_bins_hold_equally_many_and_keep_order_and_gaps():
    values = np.random.default_rng(0).permutation(np.arange(100) ** 2).tolist()
    strata = cut_into_bins([*values, None, float("nan")])
    assert strata[-2:] == [None, None]
    assert np.bincount(strata[:-2]).tolist() == [10] * 10
    assert np.all(np.diff(np.array(strata[:-2])[np.argsort(values)]) >= 0)


def test_equal_numbers_are_in_one_bin():
    strata = cut_into_bins([0.0] * 95 + [1.0, 2.0, 3.0, 4.0, 5.0])
    assert len(set(strata[:95])) == 1
    assert cut_into_bins([None, None]) == [None, None]
    assert len(set(cut_into_bins([7.0] * 5))) == 1


def test_shares_are_parsed_in_order():
    assert parse_shares("train=0.8, validation:0.1,test = 0.1") == SHARES
    assert list(parse_shares("test=0.5,train=0.5")) == ["test", "train"]
    assert parse_shares("train=1") == {"train": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must look like"),
        ("train", "must look like `train=0.8,test=0.2`, got `train`"),
        ("train=0.5,,test=0.5", "got ``"),
        ("my split=1", "got `my split=1`"),
        ("train=0.5,train=0.5", "`train` twice"),
        ("train=most,test=0.2", "`train` must be a number, got `most`"),
        ("train=nan,test=0.2", "`train` must be positive"),
        ("train=80,test=20", "must sum to 1"),
    ],
)
def test_shares_that_cannot_be_understood_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_shares(text)


@pytest.mark.parametrize("folds", [1, 3, 10])
@pytest.mark.parametrize("seed", range(3))
def test_folds_share_no_subject_and_have_about_as_many_rows(folds, seed):
    subjects = draw_people(seed)
    numbers = subject_folds(subjects, folds, seed)
    assert set(numbers.tolist()) == set(range(1, folds + 1))
    assert len(set(zip(subjects, numbers.tolist()))) == len(set(subjects))
    sizes = np.bincount(numbers)[1:]
    assert sizes.max() - sizes.min() <= max(subjects.count(subject) for subject in set(subjects))


def test_no_folds_are_refused():
    with pytest.raises(ValueError, match="`folds` must be at least 1"):
        subject_folds(["a"], 0, seed=0)


def test_splits_do_not_depend_on_the_hash_seed():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PRINTS_SPLITS, splits.__file__],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(json.loads(outputs[0])[1]) == 500
