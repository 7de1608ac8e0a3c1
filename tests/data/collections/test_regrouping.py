from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel

from modeling_pcl.data.collections.layouts.base import Collection, Pair, Photo, Row
from modeling_pcl.data.collections.regrouping import add_pairs, shuffle_rows, split_again
from modeling_pcl.data.schema import get_features

EXPRESSIONS = {"expression": ClassLabel(names=["calm", "glad"])}


def make_row(number: int, **labels) -> Row:
    return Row(Photo(Path(f"{number}.jpg"), f"{number}.jpg"), {"frame": number, **labels})


def get_numbers(rows: list[Row]) -> list[int]:
    return [row.labels["frame"] for row in rows]


def make_subject_collection(people: int = 20, per_person: int = 5) -> Collection:
    """Make a collection in which every person is in both train and test."""
    rows = [make_row(number, subject=f"s{number % people}") for number in range(people * per_person)]
    return Collection(
        get_features("subject", "frame"), {"train": rows[:70], "test": rows[70:]}, broken=[("x.jpg", "gone")]
    )


def make_labelled_collection(names: dict, *labels: dict) -> Collection:
    return Collection(names, {"train": [make_row(number, **row_labels) for number, row_labels in enumerate(labels)]})


def get_subjects(rows: list[Row]) -> set[str]:
    return {row.labels["subject"] for row in rows}


class TestSplitAgain:
    def test_no_subject_is_in_two_splits_and_no_row_is_lost(self):
        collection = split_again(make_subject_collection(), "train=0.8,test=0.2", seed=0)
        train, test = collection.splits["train"], collection.splits["test"]
        assert (len(train), len(test)) == (80, 20)
        assert (len(get_subjects(train)), len(get_subjects(test))) == (16, 4)
        assert not get_subjects(train) & get_subjects(test)
        assert sorted(get_numbers(train + test)) == list(range(100))
        assert collection.broken == [("x.jpg", "gone")]
        assert collection.columns == make_subject_collection().columns

    def test_the_seed_says_who_goes_where(self):
        draws = [
            get_subjects(split_again(make_subject_collection(), "train=0.8,test=0.2", seed).splits["test"])
            for seed in (0, 0, 1, 2)
        ]
        assert draws[0] == draws[1]
        assert len({frozenset(draw) for draw in draws}) > 1

    def test_without_subjects_the_first_label_of_the_list_is_stratified(self):
        labels = [{"expression": number % 10 // 9, "gender": number % 2} for number in range(200)]
        collection = make_labelled_collection(EXPRESSIONS | get_features("gender"), *labels)
        parts = split_again(collection, "train=0.75,test=0.25", seed=0).splits
        counts = {name: Counter(row.labels["expression"] for row in part) for name, part in parts.items()}
        assert counts == {"train": {0: 135, 1: 15}, "test": {0: 45, 1: 5}}

    @pytest.mark.parametrize("column", ["yaw", "age"])
    def test_numbers_are_stratified_by_tenths(self, column):
        values = np.random.default_rng(0).permutation(100).tolist()
        collection = make_labelled_collection(get_features(column), *({column: float(value)} for value in values))
        test = split_again(collection, "train=0.8,test=0.2", seed=0).splits["test"]
        assert Counter(int(row.labels[column]) // 10 for row in test) == dict.fromkeys(range(10), 2)

    def test_rows_without_any_label_are_split_at_random(self):
        collection = make_labelled_collection({}, *({} for _ in range(50)))
        parts = split_again(collection, "train=0.6,validation=0.2,test=0.2", seed=0).splits
        assert {name: len(part) for name, part in parts.items()} == {"train": 30, "validation": 10, "test": 10}
        assert get_numbers(parts["train"]) != list(range(30))

    def test_missing_labels_are_dealt_to_every_split(self):
        collection = make_labelled_collection(
            EXPRESSIONS, *({"expression": 0} if number % 2 else {} for number in range(40))
        )
        test = split_again(collection, "train=0.5,test=0.5", seed=0).splits["test"]
        assert Counter(row.labels.get("expression") for row in test) == {0: 10, None: 10}

    @pytest.mark.parametrize(
        ("shares", "message"),
        [
            ("train", "must look like `train=0.8,test=0.2`"),
            ("train=0.8,test=0.3", "must sum to 1"),
            ("all=1", "No split may be called `all`"),
        ],
    )
    def test_shares_that_cannot_be_used_are_refused(self, shares, message):
        with pytest.raises(ValueError, match=message):
            split_again(make_subject_collection(), shares, seed=0)

    def test_a_row_without_a_subject_is_refused_where_others_have_one(self):
        collection = make_labelled_collection(get_features("subject"), {"subject": "a"}, {"subject": "b"}, {})
        with pytest.raises(ValueError, match="1 of 3 rows have no subject"):
            split_again(collection, "train=0.5,test=0.5", seed=0)

    def test_a_collection_with_pairs_of_its_own_keeps_its_splits(self):
        collection = make_subject_collection()
        first, second = collection.splits["train"][:2]
        collection.pairs = {"test": [Pair(first.image, second.image, False, 1)]}
        with pytest.raises(ValueError, match="keeps its own splits; leave `split` at official"):
            split_again(collection, "train=0.8,test=0.2", seed=0)


class TestAddPairs:
    def test_every_split_gets_balanced_pairs_of_its_own_images_in_folds_without_a_common_person(self):
        collection = add_pairs(
            split_again(make_subject_collection(), "train=0.8,test=0.2", seed=0), 24, folds=2, seed=0
        )
        for split, rows in collection.splits.items():
            person = {row.image.name: row.labels["subject"] for row in rows}
            pairs = collection.pairs[split]
            assert Counter((pair.fold, pair.same) for pair in pairs) == {
                (fold, same): 6 for fold in (1, 2) for same in (True, False)
            }
            folds = {}
            for pair in pairs:
                people = person[pair.image_a.name], person[pair.image_b.name]
                assert (people[0] == people[1]) == pair.same
                for subject in people:
                    assert folds.setdefault(subject, pair.fold) == pair.fold

    def test_pairs_hold_plain_values_and_follow_the_seed(self):
        pair_lists = [add_pairs(make_subject_collection(), 20, folds=2, seed=seed).pairs["train"] for seed in (0, 0, 1)]
        assert pair_lists[0] == pair_lists[1]
        assert pair_lists[0] != pair_lists[2]
        assert (type(pair_lists[0][0].same), type(pair_lists[0][0].fold)) == (bool, int)

    def test_rows_without_a_subject_take_no_part(self):
        labels = [{"subject": f"s{number % 4}"} if number % 3 else {} for number in range(36)]
        collection = add_pairs(make_labelled_collection(get_features("subject"), *labels), 8, folds=1, seed=0)
        paired = {photo.name for pair in collection.pairs["train"] for photo in (pair.image_a, pair.image_b)}
        assert paired <= {f"{number}.jpg" for number in range(36) if number % 3}
        assert len(collection.splits["train"]) == 36

    def test_a_split_with_too_few_people_is_named(self):
        with pytest.raises(ValueError, match=r"Split `test`: `count=40` needs 10 pairs .* is possible"):
            add_pairs(make_subject_collection(), 40, folds=2, seed=0)

    def test_pairs_need_subjects(self):
        with pytest.raises(ValueError, match="this layout has no column `subject`"):
            add_pairs(make_labelled_collection({}, {}, {}), 2, folds=1, seed=0)

    def test_pairs_of_the_collection_are_not_replaced(self):
        collection = add_pairs(make_subject_collection(), 20, folds=2, seed=0)
        with pytest.raises(ValueError, match="has pairs of its own; leave `pairs` at 0"):
            add_pairs(collection, 20, folds=2, seed=0)


def test_shuffling_keeps_each_split_s_rows_and_every_row_s_labels():
    collection = make_subject_collection()
    shuffled = shuffle_rows(collection, seed=0)
    assert list(shuffled.splits) == ["train", "test"]
    for split, rows in collection.splits.items():
        mixed = shuffled.splits[split]
        assert get_numbers(mixed) != get_numbers(rows)
        assert sorted(get_numbers(mixed)) == get_numbers(rows)
        assert all(row.image.name == f"{row.labels['frame']}.jpg" for row in mixed)
    assert get_numbers(shuffle_rows(collection, seed=0).splits["train"]) == get_numbers(shuffled.splits["train"])
    assert get_numbers(shuffle_rows(collection, seed=1).splits["train"]) != get_numbers(shuffled.splits["train"])
