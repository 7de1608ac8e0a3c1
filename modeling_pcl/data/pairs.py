"""Verification pairs made from a corpus with identities: balanced, in folds that share no person."""

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .splits import rows_by_value

# Draws of two different people per pair wanted, after which the people are no longer kept even: those with few images
# may have run out of pairs.
EVEN_DRAWS = 20


@dataclass(frozen=True)
class PairList:
    """Pairs of rows, by fold, in each fold first those of the same person.

    Args:
        first: Row number of the first image, `(count,)` int64; less than `second`.
        second: Row number of the second image, `(count,)` int64.
        same: Whether they show the same person, `(count,)` bool.
        fold: Number of the fold, from 1, `(count,)` int32.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    fold: np.ndarray


def make_pairs(subjects: Sequence[str], count: int, folds: int = 10, seed: int = 0) -> PairList:
    """Draw verification pairs, half of them of the same person, such that no person is in two folds.

    In every fold people are taken evenly, not images: in turn, as long as they have pairs that were not drawn yet.

    Args:
        subjects: The person of each row.
        count: Number of pairs, a multiple of `2 * folds`: every fold has as many, and as many same as different ones.
        folds: Number of folds.
        seed: Of the draw.

    Returns:
        Pairs of different rows, none twice.

    Raises:
        ValueError: If a subject is missing, `count` is not such a multiple, or a fold cannot supply so many pairs.
    """
    if folds < 1 or count < 1 or count % (2 * folds):
        raise ValueError(f"`count` must be a positive multiple of 2 * `folds`, got {count} for `folds={folds}`.")
    missing = sum(subject is None for subject in subjects)
    if missing:
        raise ValueError(f"{missing} of {len(subjects)} rows have no subject; leave them out first.")
    people = list(rows_by_value(subjects).values())
    per_kind = count // (2 * folds)
    dealt = _deal_people(people, per_kind, folds, seed)
    _check_supply(people, dealt, count, folds, seed)
    draw = random.Random(seed)
    drawn: list[tuple[int, int]] = []
    for members in dealt:
        drawn += _draw_same(members, per_kind, draw) + _draw_different(members, per_kind, draw)
    rows = np.sort(np.array(drawn, dtype=np.int64), axis=1)  # (count, 2)
    same = np.tile(np.repeat([True, False], per_kind), folds)
    return PairList(rows[:, 0], rows[:, 1], same, np.repeat(np.arange(1, folds + 1, dtype=np.int32), 2 * per_kind))


def _same_pairs(members: list[list[int]]) -> np.ndarray:
    sizes = np.array([len(rows) for rows in members], dtype=np.int64)
    return sizes * (sizes - 1) // 2


def _level(possible: np.ndarray, wanted: int) -> int:
    """The largest number such that `wanted` is enough for everyone to give so many, or all that is possible to them."""
    low, high = 0, int(possible.max(initial=0)) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if np.minimum(possible, middle).sum() <= wanted else (low, middle)
    return low


def _deal_people(people: list[list[int]], per_kind: int, folds: int, seed: int) -> list[list[list[int]]]:
    """People of each fold, such that the folds can supply about as many pairs of the same person.

    A person counts for no more pairs than an even draw would take of them, so that none fills a fold alone.
    """
    possible = _same_pairs(people)
    weight = np.minimum(possible, min(_level(possible, per_kind * folds) + 1, per_kind))
    shuffled = np.random.default_rng(seed).permutation(len(people))
    order = shuffled[np.lexsort((-possible[shuffled], -weight[shuffled]))]
    dealt: list[list[list[int]]] = [[] for _ in range(folds)]
    lightest = [(0, 0, fold) for fold in range(folds)]
    for person in order[possible[order] > 0].tolist():
        load, total, fold = lightest[0]
        heapq.heapreplace(lightest, (load + int(weight[person]), total + int(possible[person]), fold))
        dealt[fold].append(people[person])
    smallest = [(len(members), fold) for fold, members in enumerate(dealt)]
    heapq.heapify(smallest)
    for person in order[possible[order] == 0].tolist():
        size, fold = smallest[0]
        heapq.heapreplace(smallest, (size + 1, fold))
        dealt[fold].append(people[person])
    return dealt


def _supply(members: list[list[int]]) -> tuple[int, int]:
    """How many pairs of the same person, and of different people, there are in a fold."""
    rows = sum(map(len, members))
    same = int(_same_pairs(members).sum())
    return same, rows * (rows - 1) // 2 - same


def _check_supply(people: list[list[int]], dealt: list[list[list[int]]], count: int, folds: int, seed: int):
    per_kind = count // (2 * folds)
    supplies = [_supply(members) for members in dealt]
    worst = min(range(folds), key=lambda fold: min(supplies[fold]))
    if min(supplies[worst]) >= per_kind:
        return
    possible, too_many = 0, per_kind
    while too_many - possible > 1:
        middle = (possible + too_many) // 2
        enough = all(min(_supply(members)) >= middle for members in _deal_people(people, middle, folds, seed))
        possible, too_many = (middle, too_many) if enough else (possible, middle)
    same, different = supplies[worst]
    raise ValueError(
        f"`count={count}` asks for {per_kind} pairs of the same person and {per_kind} of different people in each of "
        f"{folds} folds, but fold {worst + 1} has {same} and {different}. With `folds={folds}` a `count` of "
        f"{possible * 2 * folds} is possible; lower `count` or `folds`."
    )


def _draw_same(members: list[list[int]], count: int, draw: random.Random) -> list[tuple[int, int]]:
    possible = _same_pairs(members)
    level = _level(possible, count)
    quotas = np.minimum(possible, level)
    for person in draw.sample(np.flatnonzero(possible > level).tolist(), count - int(quotas.sum())):
        quotas[person] += 1
    pairs = []
    for rows, most, quota in zip(members, possible.tolist(), quotas.tolist()):
        pairs += [_pair_at(rows, place) for place in draw.sample(range(most), quota)]
    draw.shuffle(pairs)
    return pairs


def _pair_at(rows: list[int], place: int) -> tuple[int, int]:
    """The pair at a place of the list (0, 1), (0, 2), (1, 2), (0, 3), ... of all pairs of `rows`."""
    second = (1 + math.isqrt(1 + 8 * place)) // 2
    return rows[place - second * (second - 1) // 2], rows[second]


def _draw_different(members: list[list[int]], count: int, draw: random.Random) -> list[tuple[int, int]]:
    pairs: dict[tuple[int, int], None] = {}
    turns = list(range(len(members)))
    for _ in range(EVEN_DRAWS * count // (len(members) // 2) + 1):
        draw.shuffle(turns)
        for one, other in zip(turns[::2], turns[1::2]):
            pairs[tuple(sorted((draw.choice(members[one]), draw.choice(members[other]))))] = None
            if len(pairs) == count:
                return list(pairs)
    # Go on with pairs of different people that are all equally likely.
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
