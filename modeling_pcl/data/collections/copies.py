"""Images of a corpus that are equal byte for byte."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Of copies in several splits the one in the first of these stays, so that test sets stay whole and train gives way.
KEPT_FIRST = {"test": 0, "validation": 1, "train": 3}
OTHER_SPLIT = 2


class Found(NamedTuple):
    """An image of the corpus: its split, the file (`part`) and row that hold it, its name and its digest."""

    split: str
    part: str
    row: int
    name: str
    digest: str


def find_copies(images: Iterable[Found]) -> list[list[Found]]:
    """Groups of equal images, in the order of their first; the one to keep comes first in its group."""
    groups: dict[str, list[Found]] = defaultdict(list)
    for image in images:
        groups[image.digest].append(image)
    equal = (group for group in groups.values() if len(group) > 1)
    return [sorted(group, key=lambda image: KEPT_FIRST.get(image.split, OTHER_SPLIT)) for group in equal]


def describe_copies(groups: Sequence[Sequence[Found]]) -> dict:
    """For a report: how many there are, how many groups reach over splits, and all their names."""
    return {
        "images": sum(len(group) - 1 for group in groups),
        "groups_over_several_splits": sum(len({image.split for image in group}) > 1 for group in groups),
        "groups": [[f"{image.split}/{image.name}" for image in group] for group in groups],
    }
