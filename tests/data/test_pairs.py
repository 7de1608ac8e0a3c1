import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from modeling_pcl.data.pairs import PairList, make_pairs

PRINTS_PAIRS = """
import json
from modeling_pcl.data.pairs import make_pairs
pairs = make_pairs([f"person {row % 40}" for row in range(400)], 200, 5, seed=3)
print(json.dumps([pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist(), pairs.fold.tolist()]))
"""


def make_subjects(sizes, seed: int = 0) -> np.ndarray:
    """Make the subjects of rows in random order, given the number of images of each person."""
    names = np.array([f"person {person}" for person in range(len(sizes))])
    return np.random.default_rng(seed).permutation(np.repeat(names, sizes))


def draw_sizes(seed: int) -> np.ndarray:
    """Draw numbers of images of 60 people, from 1 to 60, most of them small."""
    return np.ceil(60 ** np.random.default_rng(seed).random(60)).astype(int)


def assert_valid(pairs: PairList, subjects, count: int, folds: int):
    """Check the properties of every list of pairs."""
    subjects = np.asarray(subjects)
    assert len(pairs.first) == len(pairs.second) == len(pairs.same) == len(pairs.fold) == count
    assert (pairs.first < pairs.second).all()
    assert len(set(zip(pairs.first.tolist(), pairs.second.tolist()))) == count
    np.testing.assert_array_equal(pairs.same, subjects[pairs.first] == subjects[pairs.second])
    for kind in (True, False):
        assert np.bincount(pairs.fold[pairs.same == kind])[1:].tolist() == [count // (2 * folds)] * folds
    both = np.concatenate([subjects[pairs.first], subjects[pairs.second]])
    places = set(zip(both.tolist(), np.tile(pairs.fold, 2).tolist()))
    assert len(places) == len({person for person, _ in places})


def count_uses(pairs: PairList, subjects, kind: bool) -> dict[str, int]:
    """Count the pairs of one kind by person."""
    of_kind = pairs.same == kind
    people = [np.asarray(subjects)[rows[of_kind]] for rows in (pairs.first, pairs.second)]
    names, counts = np.unique(people[0] if kind else np.concatenate(people), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist()))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("count", "folds"), [(20, 10), (300, 10), (200, 4), (500, 1)])
def test_pairs_are_balanced_and_distinct_and_folds_share_no_person(seed, count, folds):
    subjects = make_subjects(draw_sizes(seed), seed)
    assert_valid(make_pairs(subjects, count, folds, seed), subjects, count, folds)


def test_people_with_enough_images_are_in_as_many_same_pairs_up_to_one_more():
    subjects = make_subjects([500] + [10] * 39)
    pairs = make_pairs(subjects, 200, folds=4)
    assert_valid(pairs, subjects, 200, 4)
    counts = count_uses(pairs, subjects, True)
    assert len(counts) == 40
    assert set(counts.values()) == {2, 3}


def test_a_person_with_500_images_does_not_dominate_the_different_pairs():
    subjects = make_subjects([500] + [10] * 39)
    counts = count_uses(make_pairs(subjects, 400, folds=1), subjects, False)
    assert max(counts.values()) - min(counts.values()) <= 2


def test_people_with_few_images_give_all_pairs_they_have_before_others_give_more():
    subjects = make_subjects([2] * 10 + [100] * 2)
    counts = count_uses(make_pairs(subjects, 100, folds=1), subjects, True)
    assert sorted(counts.values()) == [1] * 10 + [20] * 2


@pytest.mark.parametrize(("sizes", "folds"), [([2] * 60, 10), ([3] * 40, 20), ([4, 3, 3], 1)])
def test_every_pair_of_the_same_person_can_be_used_up(sizes, folds):
    subjects = make_subjects(sizes)
    count = 2 * sum(size * (size - 1) // 2 for size in sizes)
    assert_valid(make_pairs(subjects, count, folds), subjects, count, folds)


def test_every_pair_of_different_people_can_be_used_up():
    subjects = make_subjects([1] * 6 + [9])
    count = 2 * (6 * 5 // 2 + 6 * 9 - 33)
    assert_valid(make_pairs(subjects, count, 1), subjects, count, 1)
    subjects = make_subjects([10, 1])
    assert_valid(make_pairs(subjects, 20, 1), subjects, 20, 1)


def test_one_person_gives_what_all_others_together_do_not_have():
    subjects = make_subjects([100] + [1] * 60)  # 1770 pairs of others, 6000 with the one
    assert_valid(make_pairs(subjects, 9900, 1), subjects, 9900, 1)


def test_people_with_one_image_serve_in_different_pairs():
    subjects = make_subjects([5, 5] + [1] * 50)
    pairs = make_pairs(subjects, 40, folds=2)
    assert_valid(pairs, subjects, 40, 2)
    assert len(count_uses(pairs, subjects, False)) > 20


def test_all_images_of_a_large_person_can_be_drawn():
    subjects = ["large"] * 3000 + ["small"] * 2
    pairs = make_pairs(subjects, 4000, folds=1)
    assert_valid(pairs, subjects, 4000, 1)
    rows = np.concatenate([pairs.first[pairs.same], pairs.second[pairs.same]])
    assert np.bincount(rows[rows < 3000] // 300, minlength=10).min() > 300  # 400 expected


def test_the_seed_decides():
    subjects = make_subjects(draw_sizes(0))
    first, again, other = (make_pairs(subjects, 100, 5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.first, again.first)
    np.testing.assert_array_equal(first.second, again.second)
    assert not np.array_equal(first.first, other.first)


def test_pairs_do_not_depend_on_the_hash_seed():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PRINTS_PAIRS, "--without-models"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(json.loads(outputs[0])[0]) == 200


def test_the_error_names_a_count_that_is_possible_and_no_larger_one_is():
    subjects = make_subjects([2] * 33 + [3] * 3)
    with pytest.raises(ValueError, match=r"`count=6000` needs 300 .*With `folds=10` a `count` of 80 is possible"):
        make_pairs(subjects, 6000)
    assert_valid(make_pairs(subjects, 80), subjects, 80, 10)
    with pytest.raises(ValueError, match="is possible"):
        make_pairs(subjects, 100)


@pytest.mark.parametrize("subjects", [[], ["a"] * 10, list("abcdefgh")])
def test_a_corpus_without_any_same_or_different_pairs_says_so(subjects):
    with pytest.raises(ValueError, match="a `count` of 0 is possible"):
        make_pairs(subjects, 4, folds=2)


@pytest.mark.parametrize(("count", "folds"), [(0, 10), (-20, 10), (30, 10), (21, 1), (20, 0)])
def test_a_count_that_does_not_fill_the_folds_evenly_is_refused(count, folds):
    with pytest.raises(ValueError, match="`count` must be a positive multiple of 2"):
        make_pairs(["a", "a", "b", "b"] * 10, count, folds)


def test_rows_without_a_subject_are_counted_in_the_error():
    with pytest.raises(ValueError, match="2 of 4 rows have no subject"):
        make_pairs(["a", None, None, "b"], 2, 1)


def test_a_large_corpus_takes_little_memory():
    sizes = np.random.default_rng(0).integers(1, 36, 10_000)
    sizes[:4] = 5000  # 12 million pairs each
    subjects = make_subjects(sizes).tolist()
    tracemalloc.start()
    pairs = make_pairs(subjects, 6000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert_valid(pairs, subjects, 6000, 10)
    assert peak < 2**26
