"""Change the splits, pairs and order of a collection before its images are opened."""

from dataclasses import replace

import numpy as np

from ..pairs import make_pairs
from ..splits import cut_into_bins, parse_shares, split_by_subject, split_stratified
from .layouts.base import Collection, Pair, Row

STRATIFIED_BY = ("expression", "smile", "yaw", "age", "gender")
NUMBERS = ("yaw", "age")


def split_again(collection: Collection, shares: str, seed: int) -> Collection:
    """Merge all splits and split the rows again, without leaks between the new splits.

    If the collection has subjects, no subject is in two splits. Otherwise the splits are stratified by the first of
    expression, smile, yaw, age and gender that the collection has.

    Args:
        collection: Collection that a layout has read.
        shares: Shares of the splits, such as `train=0.8,test=0.2`.
        seed: Seed of the draw.

    Raises:
        ValueError: If `shares` is invalid or names a split `all`, some rows have no subject, or the collection has
            pairs, which belong to its own splits.
    """
    if collection.pairs:
        raise ValueError("A collection with pairs of its own keeps its own splits; leave `split` at official.")
    share_by_split = parse_shares(shares)
    if "all" in share_by_split:
        raise ValueError("No split may be called `all`: `datasets` uses that name for all splits together.")
    rows = [row for split in collection.splits.values() for row in split]
    # A person in both train and test would be recognised, which would make scores too good.
    if "subject" in collection.columns:
        parts = split_by_subject([row.labels.get("subject") for row in rows], share_by_split, seed)
    else:
        parts = split_stratified(_get_strata(collection, rows), share_by_split, seed)
    return replace(collection, splits={name: [rows[row] for row in part] for name, part in parts.items()})


def _get_strata(collection: Collection, rows: list[Row]) -> list:
    """Return the label of each row to stratify by, with numbers cut into bins."""
    column = next((name for name in STRATIFIED_BY if name in collection.columns), None)
    if column is None:
        return [0] * len(rows)
    values = [row.labels.get(column) for row in rows]
    return list(cut_into_bins(values)) if column in NUMBERS else values


def add_pairs(collection: Collection, count: int, folds: int, seed: int) -> Collection:
    """Make verification pairs from the images of every split. Rows without a subject are not used.

    Args:
        collection: Collection with a column `subject`.
        count: Number of pairs per split, as in `make_pairs`.
        folds: Number of folds.
        seed: Seed of the draw.

    Raises:
        ValueError: If there are no subjects, the collection has its own pairs, or a split has too few images.
    """
    if collection.pairs:
        raise ValueError("The collection has pairs of its own; leave `pairs` at 0.")
    if "subject" not in collection.columns:
        raise ValueError("Pairs need to know who is who: this layout has no column `subject`.")
    pairs = {}
    for split, rows in collection.splits.items():
        rows_with_subject = [row for row in rows if row.labels.get("subject") is not None]
        try:
            drawn = make_pairs([row.labels["subject"] for row in rows_with_subject], count, folds, seed)
        except ValueError as error:
            raise ValueError(f"Split `{split}`: {error}") from error
        pairs[split] = [
            Pair(rows_with_subject[first].image, rows_with_subject[second].image, bool(same), int(fold))
            for first, second, same, fold in zip(drawn.first, drawn.second, drawn.same, drawn.fold)
        ]
    return replace(collection, pairs=pairs)


def shuffle_rows(collection: Collection, seed: int) -> Collection:
    """Shuffle the rows of every split."""
    generator = np.random.default_rng(seed)
    splits = {name: [rows[row] for row in generator.permutation(len(rows))] for name, rows in collection.splits.items()}
    return replace(collection, splits=splits)
