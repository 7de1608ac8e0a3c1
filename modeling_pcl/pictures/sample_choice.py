"""Choice of the rows of a corpus, or of a list of pairs, to draw."""

from collections.abc import Sequence

import pandas as pd
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
    order = order_names(classes, corpus.features[column]) if column else []
    rows = _shuffle_balanced(classes, order, seed)
    rows = rows[~rows.index.isin(list(extremes))][: count - len(extremes)]
    return extremes | dict.fromkeys(rows.sort_values(kind="stable").index.tolist(), "")


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
    rows = _shuffle_balanced(names(pairs, "same"), ["True", "False"], seed)
    return rows[:count].sort_values(kind="stable").index.tolist()


def _check_count(rows: Dataset, count: int):
    if not len(rows) or count < 1:
        raise ValueError(f"There must be rows to draw, and `samples` of at least 1; there are {len(rows)}, {count}.")


def _find_extremes(corpus: Dataset) -> dict[int, str]:
    marks: dict[int, list[str]] = {}
    for angle in filter(corpus.column_names.__contains__, ANGLES):
        order = pd.Series(numbers(corpus, angle)).dropna().sort_values(kind="stable").index.tolist()
        for row in order[:EXTREMES]:
            marks.setdefault(row, []).append(f"lowest {angle}")
        for row in order[EXTREMES:][-EXTREMES:]:
            marks.setdefault(row, []).append(f"highest {angle}")
    return {row: ", ".join(texts) for row, texts in marks.items()}


def _shuffle_balanced(classes: Sequence[str | None], order: Sequence[str], seed: int) -> pd.Series:
    """Shuffle all rows, taking one row of each class in turn; rows without a class come last.

    Returns:
        The place of each row's class in `order`, by row number.
    """
    places = pd.Series(pd.Categorical(classes, order).codes, dtype=int).replace(-1, len(order))
    places = places.sample(frac=1, random_state=seed)
    turns = places.groupby(places).cumcount().mask(places == len(order), len(places))
    return places[turns.sort_values(kind="stable").index]
