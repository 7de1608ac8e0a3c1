"""Splits that do not leak: by subject, or stratified by a label where the subjects are not known."""

import math
import re
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

BINS = 10  # Few enough that each split gets rows of each where there are a hundred.
SHARE = re.compile(r"(\w+)\s*[=:]\s*(\S+)")


def parse_shares(text: str) -> dict[str, float]:
    """Shares of splits, as on a command line.

    Args:
        text: `train=0.8,validation=0.1,test=0.1`; `:` does for `=`.

    Returns:
        Share by name of the split, in the order of `text`.

    Raises:
        ValueError: If `text` has another form or a name twice, or the shares are not positive or do not sum to 1.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        match = SHARE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"`shares` must look like `train=0.8,test=0.2`, got `{part.strip()}` in `{text}`.")
        name, share = match.groups()
        if name in shares:
            raise ValueError(f"`shares` names the split `{name}` twice in `{text}`.")
        try:
            shares[name] = float(share)
        except ValueError:
            raise ValueError(f"The share of `{name}` must be a number, got `{share}`.") from None
    _check_shares(shares)
    return shares


def split_by_subject(subjects: Sequence[Hashable], shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Split rows such that no subject is in two splits.

    Subjects go one by one, those with most rows first and equals in random order, to the split that lacks most rows.

    Args:
        subjects: The subject of each row.
        shares: Share of the rows by split; approximated as well as whole subjects allow.
        seed: Of the order of the subjects.

    Returns:
        Row numbers by split, ascending; each split has a subject at least.

    Raises:
        ValueError: If a subject is missing, there are fewer subjects than splits, or `shares` is not positive or does
            not sum to 1.
    """
    _check_shares(shares)
    split_of_row = _deal_subjects(subjects, list(shares.values()), seed)
    return {name: np.flatnonzero(split_of_row == number) for number, name in enumerate(shares)}


def subject_folds(subjects: Sequence[Hashable], folds: int, seed: int) -> np.ndarray:
    """Number of each row's fold, from 1: no subject is in two folds, and the folds have about as many rows.

    Args:
        subjects: The subject of each row.
        folds: Number of folds, at least 1.
        seed: Of the order of the subjects.

    Raises:
        ValueError: If a subject is missing, or there are fewer subjects than folds.
    """
    if folds < 1:
        raise ValueError(f"`folds` must be at least 1, got {folds}.")
    return _deal_subjects(subjects, [1 / folds] * folds, seed) + 1


def split_stratified(labels: Sequence[Hashable], shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Split rows such that every label has about the same share of each split.

    Args:
        labels: The label of each row; those that are missing (None, NaN) count as one label. Cut numbers by
            `strata_of`.
        shares: Share of the rows by split.
        seed: Of the order of a label's rows.

    Returns:
        Row numbers by split, ascending, no split empty. A label's rows in a split are its share, rounded down or up;
        of the two, what keeps the split's total closest.

    Raises:
        ValueError: If a split would be empty, or `shares` is not positive or does not sum to 1.
    """
    _check_shares(shares)
    generator = np.random.default_rng(seed)
    share = _normalized(shares.values())
    # Rounding each label by itself would give the larger split all of the remainders: what is owed is carried on.
    split_of_row = np.empty(len(labels), dtype=int)
    owed = np.zeros(len(share))  # Rows that the strata so far should have given to each split, and have not.
    for rows in rows_by_value([None if label != label else label for label in labels]).values():
        counts = _round(share * len(rows), owed)
        owed += share * len(rows) - counts
        split_of_row[generator.permutation(rows)] = np.repeat(np.arange(len(share)), counts)
    parts = {name: np.flatnonzero(split_of_row == number) for number, name in enumerate(shares)}
    empty = [name for name, part in parts.items() if not len(part)]
    if empty:
        raise ValueError(f"The split `{empty[0]}` would get none of {len(labels)} rows; raise its share or drop it.")
    return parts


def cut_off(
    subjects: Sequence[Hashable] | None, strata: Sequence, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a share of the rows off: whole subjects where they are known, else stratified.

    Args:
        subjects: The subject of each row; None where they are not known.
        strata: What each row is stratified by otherwise: classes or names; numbers with a fraction are cut into bins.
        share: Of the rows that are cut off, in (0, 1).
        seed: Of the draw.

    Returns:
        The rows that are kept, and those that are cut off, each ascending.

    Raises:
        ValueError: If there are too few rows or subjects.
    """
    shares = {"kept": 1 - share, "cut": share}
    if subjects is not None:
        parts = split_by_subject(subjects, shares, seed)
    else:
        # Angles and ages have nearly as many values as rows: each would be a stratum of its own.
        is_number = any(isinstance(value, float) for value in strata)
        parts = split_stratified(strata_of(strata) if is_number else strata, shares, seed)
    return parts["kept"], parts["cut"]


def strata_of(values: Sequence[float | None]) -> list[int | None]:
    """Cut numbers, such as yaw or age, into ten quantile bins to stratify by.

    Args:
        values: Numbers; None or NaN where missing.

    Returns:
        Number of each value's bin, from 0, or None where it is missing. Bins hold about as many numbers; equal numbers
        are in the same bin.
    """
    numbers = np.array(values, dtype=float)
    known = numbers[~np.isnan(numbers)]
    if not len(known):
        return [None] * len(numbers)
    edges = np.quantile(known, np.arange(1, BINS) / BINS)
    strata = np.searchsorted(edges, numbers, side="right").tolist()
    return [None if math.isnan(number) else stratum for number, stratum in zip(numbers, strata)]


def _check_shares(shares: Mapping[str, float]):
    for name, share in shares.items():
        if not 0 < share < math.inf:
            raise ValueError(f"The share of `{name}` must be positive, got {share}.")
    total = sum(shares.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"`shares` must sum to 1, got {' + '.join(map(str, shares.values()))} = {total:g}.")


def _normalized(shares) -> np.ndarray:
    shares = np.array(list(shares))
    return shares / shares.sum()


def rows_by_value(values: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """The rows of each value, ascending, in the order in which values first come."""
    rows: dict[Hashable, list[int]] = {}
    for row, value in enumerate(values):
        rows.setdefault(value, []).append(row)
    return rows


def _deal_subjects(subjects: Sequence[Hashable], shares: Sequence[float], seed: int) -> np.ndarray:
    """Number of each row's part, from 0, subjects whole."""
    missing = sum(subject is None or subject != subject for subject in subjects)
    if missing:
        raise ValueError(f"{missing} of {len(subjects)} rows have no subject; leave them out first.")
    rows = list(rows_by_value(subjects).values())
    if len(rows) < len(shares):
        raise ValueError(f"There are {len(rows)} subjects for {len(shares)} splits or folds; ask for fewer.")
    sizes = np.array([len(part_rows) for part_rows in rows])
    order = np.random.default_rng(seed).permutation(len(rows))
    lacking = _normalized(shares) * len(subjects)
    is_empty = np.ones(len(shares), dtype=bool)
    part_of_row = np.empty(len(subjects), dtype=int)
    for done, subject in enumerate(order[np.argsort(-sizes[order], kind="stable")]):
        # The last subjects go to the parts that have none yet.
        must_fill = len(rows) - done == is_empty.sum()
        part = int(np.argmax(np.where(is_empty, lacking, -np.inf) if must_fill else lacking))
        part_of_row[rows[subject]] = part
        lacking[part] -= sizes[subject]
        is_empty[part] = False
    return part_of_row


def _round(exact: np.ndarray, owed: np.ndarray) -> np.ndarray:
    """Whole numbers that sum as `exact`, each rounded down, or up where remainder and `owed` together are largest."""
    exact = exact.round(9)  # 0.29 * 100 is 28.999999999999996
    counts = np.floor(exact).astype(int)
    remainders = exact - counts
    left = round(remainders.sum())
    wish = np.where(remainders > 0, remainders + owed, -np.inf)
    counts[np.argsort(-wish, kind="stable")[:left]] += 1
    return counts
