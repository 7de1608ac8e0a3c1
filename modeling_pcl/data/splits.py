"""Split rows without leaks between splits: by subject, or stratified by a label if the subjects are not known."""

import math
import re
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

BINS = 10  # Few enough that of a hundred rows every split gets some of each bin.
SHARE = re.compile(r"(\w+)\s*[=:]\s*(\S+)")


def parse_shares(text: str) -> dict[str, float]:
    """Parse the shares of splits from a command line option.

    Args:
        text: Text such as `train=0.8,validation=0.1,test=0.1`; `:` is accepted instead of `=`.

    Returns:
        Share by split, in the order of `text`.

    Raises:
        ValueError: If `text` has another form or a split twice, or the shares are not positive or do not sum to 1.
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

    The subjects are sorted by their number of rows, largest first and ties in random order. Each goes to the split that
    lacks the most rows.

    Args:
        subjects: Subject of each row.
        shares: Share of the rows by split. The actual shares differ, because subjects are not divided.
        seed: Seed of the order of the subjects.

    Returns:
        Row numbers by split, ascending. Every split has at least one subject.

    Raises:
        ValueError: If a subject is missing, there are fewer subjects than splits, or `shares` is not positive or does
            not sum to 1.
    """
    _check_shares(shares)
    split_of_row = _deal_subjects(subjects, list(shares.values()), seed)
    return {name: np.flatnonzero(split_of_row == number) for number, name in enumerate(shares)}


def subject_folds(subjects: Sequence[Hashable], folds: int, seed: int) -> np.ndarray:
    """Assign rows to folds of about equal size such that no subject is in two folds.

    Args:
        subjects: Subject of each row.
        folds: Number of folds, at least 1.
        seed: Seed of the order of the subjects.

    Returns:
        Number of the fold of each row, from 1, `(rows,)`.

    Raises:
        ValueError: If a subject is missing, or there are fewer subjects than folds.
    """
    if folds < 1:
        raise ValueError(f"`folds` must be at least 1, got {folds}.")
    return _deal_subjects(subjects, [1 / folds] * folds, seed) + 1


def split_stratified(labels: Sequence[Hashable], shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Split rows such that every label has about the same share of each split.

    Args:
        labels: Label of each row. Missing labels (None, NaN) count as one label. Cut continuous numbers into bins by
            `cut_into_bins` first.
        shares: Share of the rows by split.
        seed: Seed of the order of the rows of a label.

    Returns:
        Row numbers by split, ascending; no split is empty. The number of rows of a label in a split is the exact share
        rounded down or up, whichever keeps the total of the split closer to its share.

    Raises:
        ValueError: If a split would be empty, or `shares` is not positive or does not sum to 1.
    """
    _check_shares(shares)
    generator = np.random.default_rng(seed)
    share = _normalize(shares.values())
    # If every label were rounded by itself, the largest split would get all remainders. So the rounding errors of a
    # split are carried over to the next label.
    split_of_row = np.empty(len(labels), dtype=int)
    owed = np.zeros(len(share))  # Rows that each split still has to get, compared with its exact share so far.
    for rows in group_rows_by_value([None if label != label else label for label in labels]).values():
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
    """Hold out a share of the rows: whole subjects if they are known, otherwise a stratified share.

    Args:
        subjects: Subject of each row; None if the subjects are not known.
        strata: Class or name of each row, to stratify by if the subjects are not known. Floats are cut into bins.
        share: Share of the rows to hold out, in (0, 1).
        seed: Seed of the draw.

    Returns:
        Numbers of the rows that are kept, and of those that are held out, each ascending.

    Raises:
        ValueError: If there are too few rows or subjects.
    """
    shares = {"kept": 1 - share, "cut": share}
    if subjects is not None:
        parts = split_by_subject(subjects, shares, seed)
    else:
        # Angles and ages have nearly as many values as rows: every value would be a stratum of its own.
        is_number = any(isinstance(value, float) for value in strata)
        parts = split_stratified(cut_into_bins(strata) if is_number else strata, shares, seed)
    return parts["kept"], parts["cut"]


def cut_into_bins(values: Sequence[float | None]) -> list[int | None]:
    """Cut numbers, such as yaw or age, into ten quantile bins for stratification.

    Args:
        values: Numbers; None or NaN if missing.

    Returns:
        Number of the bin of each value, from 0; None for a missing value. The bins hold about the same number of
        values, and equal values are in the same bin.
    """
    numbers = np.array(values, dtype=float)
    present = numbers[~np.isnan(numbers)]
    if not len(present):
        return [None] * len(numbers)
    edges = np.quantile(present, np.arange(1, BINS) / BINS)
    strata = np.searchsorted(edges, numbers, side="right").tolist()
    return [None if math.isnan(number) else stratum for number, stratum in zip(numbers, strata)]


def _check_shares(shares: Mapping[str, float]):
    for name, share in shares.items():
        if not 0 < share < math.inf:
            raise ValueError(f"The share of `{name}` must be positive, got {share}.")
    total = sum(shares.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"`shares` must sum to 1, got {' + '.join(map(str, shares.values()))} = {total:g}.")


def _normalize(shares) -> np.ndarray:
    shares = np.array(list(shares))
    return shares / shares.sum()


def group_rows_by_value(values: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """Group the row numbers by value, ascending; values in the order of their first row."""
    rows: dict[Hashable, list[int]] = {}
    for row, value in enumerate(values):
        rows.setdefault(value, []).append(row)
    return rows


def _deal_subjects(subjects: Sequence[Hashable], shares: Sequence[float], seed: int) -> np.ndarray:
    """Return the number of each row's part, from 0. All rows of a subject are in the same part."""
    missing = sum(subject is None or subject != subject for subject in subjects)
    if missing:
        raise ValueError(f"{missing} of {len(subjects)} rows have no subject; leave them out first.")
    rows = list(group_rows_by_value(subjects).values())
    if len(rows) < len(shares):
        raise ValueError(f"There are {len(rows)} subjects for {len(shares)} splits or folds; request fewer.")
    sizes = np.array([len(part_rows) for part_rows in rows])
    order = np.random.default_rng(seed).permutation(len(rows))
    lacking = _normalize(shares) * len(subjects)
    is_empty = np.ones(len(shares), dtype=bool)
    part_of_row = np.empty(len(subjects), dtype=int)
    for dealt, subject in enumerate(order[np.argsort(-sizes[order], kind="stable")]):
        # If there are only as many subjects left as empty parts, each must go to an empty part.
        must_fill = len(rows) - dealt == is_empty.sum()
        part = int(np.argmax(np.where(is_empty, lacking, -np.inf) if must_fill else lacking))
        part_of_row[rows[subject]] = part
        lacking[part] -= sizes[subject]
        is_empty[part] = False
    return part_of_row


def _round(exact: np.ndarray, owed: np.ndarray) -> np.ndarray:
    """Round `exact` to whole numbers with the same sum; up where the sum of remainder and `owed` is largest."""
    exact = exact.round(9)  # 0.29 * 100 is 28.999999999999996
    counts = np.floor(exact).astype(int)
    remainders = exact - counts
    left = round(remainders.sum())
    priorities = np.where(remainders > 0, remainders + owed, -np.inf)
    counts[np.argsort(-priorities, kind="stable")[:left]] += 1
    return counts
