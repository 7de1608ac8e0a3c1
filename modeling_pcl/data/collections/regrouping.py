"""Other splits, pairs and another order for a collection whose images are not opened yet."""

from dataclasses import replace

import numpy as np

from ..pairs import make_pairs
from ..splits import cut_into_bins, parse_shares, split_by_subject, split_stratified
from .layouts.base import Collection, Pair, Row

STRATIFIED_BY = ("expression", "smile", "yaw", "age", "gender")
NUMBERS = ("yaw", "age")


def split_again(collection: Collection, shares: str, seed: int) -> Collection:
    """Put all rows together and split them anew, so that nothing leaks from one split to another.

    Subjects stay whole where the rows have them. Otherwise splits are stratified by the first of expression, smile,
    yaw, age and gender that there is. A collection with pairs of its own keeps its own splits.

    Args:
        collection: As a layout read it.
        shares: `train=0.8,test=0.2`.
        seed: Of the draw.

    Raises:
        ValueError: If `shares` cannot be understood, names a split `all`, a row has no subject where others do, or
            there are pairs.
    """
    if collection.pairs:
        raise ValueError("A collection with pairs of its own keeps its own splits; leave `split` at official.")
    wanted = parse_shares(shares)
    if "all" in wanted:
        raise ValueError("No split may be called `all`: `datasets` takes that for all of them.")
    rows = [row for split in collection.splits.values() for row in split]
    # One person in train and test would be recognised, and every score would be too good.
    if "subject" in collection.columns:
        parts = split_by_subject([row.labels.get("subject") for row in rows], wanted, seed)
    else:
        parts = split_stratified(_strata(collection, rows), wanted, seed)
    return replace(collection, splits={name: [rows[row] for row in part] for name, part in parts.items()})


def _strata(collection: Collection, rows: list[Row]) -> list:
    column = next((name for name in STRATIFIED_BY if name in collection.columns), None)
    if column is None:
        return [0] * len(rows)
    values = [row.labels.get(column) for row in rows]
    return list(cut_into_bins(values)) if column in NUMBERS else values


def add_pairs(collection: Collection, count: int, folds: int, seed: int) -> Collection:
    """Make verification pairs of every split's images; rows without a subject take no part.

    Raises:
        ValueError: If there are no subjects, the collection has pairs of its own, or a split cannot supply so many.
    """
    if collection.pairs:
        raise ValueError("The collection has pairs of its own; leave `pairs` at 0.")
    if "subject" not in collection.columns:
        raise ValueError("Pairs need to know who is who: this layout has no column `subject`.")
    pairs = {}
    for split, rows in collection.splits.items():
        known = [row for row in rows if row.labels.get("subject") is not None]
        try:
            made = make_pairs([row.labels["subject"] for row in known], count, folds, seed)
        except ValueError as error:
            raise ValueError(f"Split `{split}`: {error}") from error
        pairs[split] = [
            Pair(known[first].image, known[second].image, bool(same), int(fold))
            for first, second, same, fold in zip(made.first, made.second, made.same, made.fold)
        ]
    return replace(collection, pairs=pairs)


def shuffle(collection: Collection, seed: int) -> Collection:
    """Mix the rows of every split."""
    generator = np.random.default_rng(seed)
    splits = {name: [rows[row] for row in generator.permutation(len(rows))] for name, rows in collection.splits.items()}
    return replace(collection, splits=splits)
