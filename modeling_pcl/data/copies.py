"""Images of a corpus that are equal byte for byte, and subjects that stand in several splits."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Of copies in several splits, the one in the first of these stays, so that test sets stay whole.
KEPT_FIRST = ("test", "validation", "train")


class Found(NamedTuple):
    """An image of the corpus: its split, the file (`part`) and row that hold it, its name and its digest."""

    split: str
    part: str
    row: int
    name: str
    digest: str


def find_copies(images: Iterable[Found]) -> list[list[Found]]:
    """Groups of equal images, in the order of their first; the one to keep comes first in its group."""
    by_digest = defaultdict(list)
    for image in images:
        by_digest[image.digest].append(image)
    return [sorted(group, key=_rank) for group in by_digest.values() if len(group) > 1]


def _rank(image: Found) -> int:
    return KEPT_FIRST.index(image.split) if image.split in KEPT_FIRST else len(KEPT_FIRST)


def describe_copies(groups: Sequence[Sequence[Found]]) -> dict:
    """For a report: how many there are, how many groups reach over splits, and all their names."""
    return {
        "images": sum(len(group) - 1 for group in groups),
        "groups_over_several_splits": sum(len({image.split for image in group}) > 1 for group in groups),
        "groups": [[f"{image.split}/{image.name}" for image in group] for group in groups],
    }
