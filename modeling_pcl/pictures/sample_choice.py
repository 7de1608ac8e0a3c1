"""Choice of the rows of a corpus, or of a list of pairs, to draw."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from ..data.label_columns import names, numbers, order_names
from ..head_pose_pcl import ANGLES

EXTREMES = 2  # Number of rows at each end of the range of each angle.


def choose_samples(corpus: Dataset, count: int, seed: int) -> dict[int, str]:
    """Choose the rows with the two lowest and two highest values of each angle, then random rows of all classes.

    The extremes help to find labels with a wrong sign or unit. The random rows have about equally many of each class.

    Args:
        corpus: Result of `load_corpus`. Classes are those of `expression`, or of `smile` if there is no expression.
        count: Number of rows; fewer if the corpus has fewer.
        seed: Seed of the choice.

    Returns:
        Description of the extreme for each row number, `""` for random rows, which are in the order of the classes.

    Raises:
        ValueError: If the corpus has no rows, or `count` is below 1.
    """
    _check_count(corpus, count)
    extremes = dict(list(_find_extremes(corpus).items())[:count])
    column = next((name for name in ("expression", "smile") if name in corpus.column_names), None)
    classes = names(corpus, column) if column else [None] * len(corpus)
    random_rows = [row for row in _shuffle_balanced(classes, seed) if row not in extremes][: count - len(extremes)]
    order = order_names(classes, corpus.features[column]) if column else []
    return extremes | dict.fromkeys(_sort_by_class(random_rows, classes, order), "")


def choose_pairs(pairs: Dataset, count: int, seed: int) -> list[int]:
    """Choose random rows, about equally many pairs of the same person, which come first, and of different people.

    Args:
        pairs: Result of `load_pairs`.
        count: Number of rows; fewer if the list has fewer.
        seed: Seed of the choice.

    Raises:
        ValueError: If the list has no rows, or `count` is below 1.
    """
    _check_count(pairs, count)
    same = names(pairs, "same")
    return _sort_by_class(_shuffle_balanced(same, seed)[:count], same, ["True", "False"])


def _check_count(rows: Dataset, count: int):
    if not len(rows) or count < 1:
        raise ValueError(f"There must be rows to draw, and `samples` of at least 1; there are {len(rows)}, {count}.")


def _find_extremes(corpus: Dataset) -> dict[int, str]:
    marks: dict[int, list[str]] = {}
    for angle in filter(corpus.column_names.__contains__, ANGLES):
        values = numbers(corpus, angle)
        order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()].tolist()  # NaN is sorted to the end.
        for row in order[:EXTREMES]:
            marks.setdefault(row, []).append(f"lowest {angle}")
        for row in order[EXTREMES:][-EXTREMES:]:
            marks.setdefault(row, []).append(f"highest {angle}")
    return {row: ", ".join(texts) for row, texts in marks.items()}


def _shuffle_balanced(classes: Sequence[str | None], seed: int) -> list[int]:
    """Return all rows in random order, taking one row of each class in turn; rows without a class come last."""
    turns: Counter = Counter()
    entries = []
    for row in np.random.default_rng(seed).permutation(len(classes)).tolist():
        entries.append((classes[row] is None, turns[classes[row]], row))
        turns[classes[row]] += 1
    return [row for *_, row in sorted(entries, key=lambda entry: entry[:2])]


def _sort_by_class(rows: list[int], classes: Sequence[str | None], order: Sequence[str]) -> list[int]:
    places = {name: place for place, name in enumerate(order)}
    return sorted(rows, key=lambda row: places.get(classes[row], len(order)))
