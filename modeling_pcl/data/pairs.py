"""Make verification pairs from a corpus with identities, in balanced folds that share no person."""

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .splits import group_rows_by_value

# Draws per requested pair of different people in which all people are equally likely. After that, all pairs are equally
# likely instead, because people with few images may have no pairs left.
EVEN_DRAWS = 20


@dataclass(frozen=True)
class PairList:
    """Pairs of rows, sorted by fold. In each fold, pairs of the same person come first.

    Args:
        first: Row number of the first image, `(count,)` int64; less than `second`.
        second: Row number of the second image, `(count,)` int64.
        same: Whether both images show the same person, `(count,)` bool.
        fold: Number of the fold, from 1, `(count,)` int32.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    fold: np.ndarray


def make_pairs(subjects: Sequence[str], count: int, folds: int = 10, seed: int = 0) -> PairList:
    """Draw verification pairs, half of them of the same person. No person is in two folds.

    In every fold each person gets the same number of pairs, as long as they have pairs left, so that people with many
    images do not dominate.

    Args:
        subjects: Person of each row.
        count: Number of pairs, a multiple of `2 * folds`. All folds have the same number of pairs, half of them of the
            same person.
        folds: Number of folds, at least 1.
        seed: Seed of the draw.

    Returns:
        Pairs of two different rows. No pair occurs twice.

    Raises:
        ValueError: If a subject is missing, `count` is not a multiple of `2 * folds`, or a fold has too few pairs.
    """
    if folds < 1 or count < 1 or count % (2 * folds):
        raise ValueError(f"`count` must be a positive multiple of 2 * `folds`, got {count} for `folds={folds}`.")
    missing = sum(subject is None for subject in subjects)
    if missing:
        raise ValueError(f"{missing} of {len(subjects)} rows have no subject; leave them out first.")
    people = list(group_rows_by_value(subjects).values())
    per_kind = count // (2 * folds)
    people_by_fold = _deal_people(people, per_kind, folds, seed)
    _check_supply(people, people_by_fold, count, folds, seed)
    draw = random.Random(seed)
    drawn: list[tuple[int, int]] = []
    for members in people_by_fold:
        drawn += _draw_same(members, per_kind, draw) + _draw_different(members, per_kind, draw)
    rows = np.sort(np.array(drawn, dtype=np.int64), axis=1)  # (count, 2)
    same = np.tile(np.repeat([True, False], per_kind), folds)
    return PairList(rows[:, 0], rows[:, 1], same, np.repeat(np.arange(1, folds + 1, dtype=np.int32), 2 * per_kind))


def _count_same_pairs(members: list[list[int]]) -> np.ndarray:
    """Count the pairs of images that each person has."""
    sizes = np.array([len(rows) for rows in members], dtype=np.int64)
    return sizes * (sizes - 1) // 2


def _compute_even_quota(possible: np.ndarray, wanted: int) -> int:
    """Compute the largest quota per person such that all people together give at most `wanted` pairs.

    Args:
        possible: Number of pairs that each person has; people with fewer pairs than the quota give all of them.
        wanted: Number of pairs of all people together.
    """
    low, high = 0, int(possible.max(initial=0)) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if np.minimum(possible, middle).sum() <= wanted else (low, middle)
    return low


def _deal_people(people: list[list[int]], per_kind: int, folds: int, seed: int) -> list[list[list[int]]]:
    """Deal people to folds such that all folds have about the same number of pairs of the same person.

    A person counts for at most the pairs that an even draw would take, so that one person with many images does not
    fill a fold alone.
    """
    possible = _count_same_pairs(people)
    weight = np.minimum(possible, min(_compute_even_quota(possible, per_kind * folds) + 1, per_kind))
    shuffled = np.random.default_rng(seed).permutation(len(people))
    order = shuffled[np.lexsort((-possible[shuffled], -weight[shuffled]))]
    people_by_fold: list[list[list[int]]] = [[] for _ in range(folds)]
    lightest = [(0, 0, fold) for fold in range(folds)]
    for person in order[possible[order] > 0].tolist():
        load, total, fold = lightest[0]
        heapq.heapreplace(lightest, (load + int(weight[person]), total + int(possible[person]), fold))
        people_by_fold[fold].append(people[person])
    smallest = [(len(members), fold) for fold, members in enumerate(people_by_fold)]
    heapq.heapify(smallest)
    for person in order[possible[order] == 0].tolist():
        size, fold = smallest[0]
        heapq.heapreplace(smallest, (size + 1, fold))
        people_by_fold[fold].append(people[person])
    return people_by_fold


def _count_pairs(members: list[list[int]]) -> tuple[int, int]:
    """Count the pairs of the same person and the pairs of different people in a fold."""
    rows = sum(map(len, members))
    same = int(_count_same_pairs(members).sum())
    return same, rows * (rows - 1) // 2 - same


def _check_supply(people: list[list[int]], people_by_fold: list[list[list[int]]], count: int, folds: int, seed: int):
    """Raise a ValueError with the largest possible `count` if a fold has too few pairs."""
    per_kind = count // (2 * folds)
    supplies = [_count_pairs(members) for members in people_by_fold]
    worst = min(range(folds), key=lambda fold: min(supplies[fold]))
    if min(supplies[worst]) >= per_kind:
        return
    possible, too_many = 0, per_kind  # Bisection: the first is enough for every fold, the second is not.
    while too_many - possible > 1:
        middle = (possible + too_many) // 2
        enough = all(min(_count_pairs(members)) >= middle for members in _deal_people(people, middle, folds, seed))
        possible, too_many = (middle, too_many) if enough else (possible, middle)
    same, different = supplies[worst]
    raise ValueError(
        f"`count={count}` needs {per_kind} pairs of the same person and {per_kind} of different people in each of "
        f"{folds} folds, but fold {worst + 1} has {same} and {different}. With `folds={folds}` a `count` of "
        f"{possible * 2 * folds} is possible; lower `count` or `folds`."
    )


def _draw_same(members: list[list[int]], count: int, draw: random.Random) -> list[tuple[int, int]]:
    possible = _count_same_pairs(members)
    level = _compute_even_quota(possible, count)
    quotas = np.minimum(possible, level)
    for person in draw.sample(np.flatnonzero(possible > level).tolist(), count - int(quotas.sum())):
        quotas[person] += 1
    pairs = []
    for rows, pair_count, quota in zip(members, possible.tolist(), quotas.tolist()):
        pairs += [_get_pair(rows, index) for index in draw.sample(range(pair_count), quota)]
    draw.shuffle(pairs)
    return pairs


def _get_pair(rows: list[int], index: int) -> tuple[int, int]:
    """Return one of all pairs of `rows`, by its index in the order (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    # `second` is the largest number with second * (second - 1) / 2 <= index: so many pairs come before its first one.
    second = (1 + math.isqrt(1 + 8 * index)) // 2
    return rows[index - second * (second - 1) // 2], rows[second]


def _draw_different(members: list[list[int]], count: int, draw: random.Random) -> list[tuple[int, int]]:
    pairs: dict[tuple[int, int], None] = {}
    order = list(range(len(members)))
    for _ in range(EVEN_DRAWS * count // (len(members) // 2) + 1):
        draw.shuffle(order)
        for one, other in zip(order[::2], order[1::2]):
            pairs[tuple(sorted((draw.choice(members[one]), draw.choice(members[other]))))] = None
            if len(pairs) == count:
                return list(pairs)
    # From here on, all pairs of different people are equally likely.
    rows = [row for person in members for row in person]
    sizes = [len(person) for person in members]
    ends = np.cumsum(sizes).tolist()
    weights = np.cumsum([size * (len(rows) - size) for size in sizes]).tolist()
    while len(pairs) < count:
        person = draw.choices(range(len(members)), cum_weights=weights)[0]
        other = draw.randrange(len(rows) - sizes[person])
        other += sizes[person] if other >= ends[person] - sizes[person] else 0
        pairs[tuple(sorted((draw.choice(members[person]), rows[other])))] = None
    return list(pairs)
