"""Which rows of a corpus, or of a list of pairs, are worth a look."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from ..data.label_columns import class_order, names, numbers
from ..head_pose_pcl import ANGLES

EXTREMES = 2  # Rows of each end of each angle.


def choose_samples(corpus: Dataset, count: int, seed: int) -> dict[int, str]:
    """The two lowest and two highest of each angle, then random rows, about equally many of each class.

    Args:
        corpus: As `load_corpus` returns it; classes are those of `expression`, or of `smile` where there is none.
        count: How many rows, if there are so many.
        seed: Of the draw.

    Returns:
        Row number to what it is the extreme of, `""` for the random ones; these stand in the order of the classes.

    Raises:
        ValueError: If the corpus has no rows, or `count` is below 1.
    """
    _check(corpus, count)
    extremes = dict(list(_extremes(corpus).items())[:count])
    column = next((name for name in ("expression", "smile") if name in corpus.column_names), None)
    classes = names(corpus, column) if column else [None] * len(corpus)
    drawn = [row for row in _balanced(classes, seed) if row not in extremes][: count - len(extremes)]
    order = class_order(classes, corpus.features[column]) if column else []
    return extremes | dict.fromkeys(_sorted_by_class(drawn, classes, order), "")


def choose_pairs(pairs: Dataset, count: int, seed: int) -> list[int]:
    """Random rows, about as many pairs of the same person, which come first, as of different people.

    Args:
        pairs: As `load_pairs` returns it.
        count: How many rows, if there are so many.
        seed: Of the draw.

    Raises:
        ValueError: If the list has no rows, or `count` is below 1.
    """
    _check(pairs, count)
    same = names(pairs, "same")
    return _sorted_by_class(_balanced(same, seed)[:count], same, ["True", "False"])


def _check(rows: Dataset, count: int):
    if not len(rows) or count < 1:
        raise ValueError(f"There must be rows to draw, and `samples` of at least 1; there are {len(rows)}, {count}.")


def _extremes(corpus: Dataset) -> dict[int, str]:
    marks: dict[int, list[str]] = {}
    for angle in filter(corpus.column_names.__contains__, ANGLES):
        values = numbers(corpus, angle)
        order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()].tolist()  # NaN comes last.
        for row in order[:EXTREMES]:
            marks.setdefault(row, []).append(f"lowest {angle}")
        for row in order[EXTREMES:][-EXTREMES:]:
            marks.setdefault(row, []).append(f"highest {angle}")
    return {row: ", ".join(words) for row, words in marks.items()}


def _balanced(classes: Sequence[str | None], seed: int) -> list[int]:
    """All rows in random order, one of each class in turn; those without a class come last."""
    turns: Counter = Counter()
    taken = []
    for row in np.random.default_rng(seed).permutation(len(classes)).tolist():
        taken.append((classes[row] is None, turns[classes[row]], row))
        turns[classes[row]] += 1
    return [row for *_, row in sorted(taken, key=lambda entry: entry[:2])]


def _sorted_by_class(rows: list[int], classes: Sequence[str | None], order: Sequence[str]) -> list[int]:
    places = {name: place for place, name in enumerate(order)}
    return sorted(rows, key=lambda row: places.get(classes[row], len(order)))
