from collections import Counter

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from modeling_pcl.pictures.sample_choice import choose_pairs, choose_samples

NAN = float("nan")
# Neither by alphabet nor by how many there are.
EXPRESSION = ClassLabel(names=["sad", "angry", "happy"])


def table(**columns) -> Dataset:
    kinds = {"expression": EXPRESSION, "smile": ClassLabel(names=["not smiling", "smiling"]), "same": Value("bool")}
    features = {name: kinds.get(name, Value("float32")) for name in columns}
    return Dataset.from_dict(columns, features=Features(features))


def test_the_two_lowest_and_two_highest_of_each_angle_come_first_and_say_so():
    yaw = [0, 50, NAN, -40, 10, -60, 70, None, 5, -5]
    roll = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    chosen = choose_samples(table(yaw=yaw, roll=roll), 8, seed=0)
    assert list(chosen.items())[:7] == [
        (5, "lowest yaw"),
        (3, "lowest yaw"),
        (1, "highest yaw, highest roll"),
        (6, "highest yaw"),
        (9, "lowest roll"),
        (8, "lowest roll"),
        (0, "highest roll"),
    ]
    assert list(chosen.values())[7:] == [""]
    assert list(choose_samples(table(yaw=yaw), 3, seed=0)) == [5, 3, 1]  # Extremes, too, are cut to the number.


@pytest.mark.parametrize(
    ("yaw", "expected"),
    [
        ([1], {0: "lowest yaw"}),
        ([2, 1], {1: "lowest yaw", 0: "lowest yaw"}),
        ([2, 1, 3], {1: "lowest yaw", 0: "lowest yaw", 2: "highest yaw"}),
        ([NAN, None], {0: "", 1: ""}),
        ([NAN, 4.0], {1: "lowest yaw", 0: ""}),
    ],
)
def test_of_few_known_angles_no_row_is_taken_twice(yaw, expected):
    chosen = choose_samples(table(yaw=yaw), 10, seed=0)
    assert chosen == expected


def test_a_rare_class_has_as_many_samples_as_a_common_one_as_far_as_it_has_rows():
    labels = [2] * 500 + [0] * 100 + [1] * 2 + [None] * 50
    chosen = choose_samples(table(expression=labels), 20, seed=0)
    assert Counter(labels[row] for row in chosen) == {2: 9, 0: 9, 1: 2}
    assert len(chosen) == 20


def test_random_samples_stand_in_the_order_of_the_classes_and_unknown_ones_last():
    labels = [None, 2, 0, 1, None, 2, 0, 1]
    chosen = choose_samples(table(expression=labels), 8, seed=3)
    assert [labels[row] for row in chosen] == [0, 0, 1, 1, 2, 2, None, None]
    assert set(chosen.values()) == {""}


def test_smile_balances_where_there_is_no_expression():
    smile = [0] * 90 + [1] * 10
    chosen = choose_samples(table(smile=smile), 10, seed=0)
    assert Counter(smile[row] for row in chosen) == {0: 5, 1: 5}
    both = table(smile=smile, expression=[0] * 50 + [1] * 50)
    assert Counter(row // 50 for row in choose_samples(both, 10, seed=0)) == {0: 5, 1: 5}


@pytest.mark.parametrize("corpus", [table(expression=[0, 1, 2] * 100), table(other=[0] * 300)])
def test_the_seed_decides_and_nothing_else(corpus):
    chosen = choose_samples(corpus, 30, seed=1)
    assert len(chosen) == 30
    assert list(chosen) != sorted(chosen)
    assert chosen == choose_samples(corpus, 30, seed=1)
    assert list(chosen) != list(choose_samples(corpus, 30, seed=2))


def test_half_of_the_pairs_are_of_the_same_person_and_come_first():
    same = [False] * 90 + [True] * 10 + [None] * 5
    chosen = choose_pairs(table(same=same), 12, seed=0)
    assert [same[row] for row in chosen] == [True] * 6 + [False] * 6
    assert [same[row] for row in choose_pairs(table(same=same), 105, seed=0)][-5:] == [None] * 5
    assert chosen != choose_pairs(table(same=same), 12, seed=1)


@pytest.mark.parametrize(("rows", "count"), [(0, 4), (3, 0), (3, -1)])
def test_no_rows_or_no_samples_are_refused(rows, count):
    with pytest.raises(ValueError, match=rf"`samples` of at least 1; there are {rows}, {count}"):
        choose_samples(table(yaw=[0.0] * rows), count, seed=0)
    with pytest.raises(ValueError, match=rf"`samples` of at least 1; there are {rows}, {count}"):
        choose_pairs(table(same=[True] * rows), count, seed=0)
