"""Find images of a corpus whose files are identical."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Of copies in several splits, the one in the split with the smallest number is kept, so that test sets stay complete.
SPLIT_PRIORITY = {"test": 0, "validation": 1, "train": 3}
OTHER_SPLIT_PRIORITY = 2


class StoredImage(NamedTuple):
    """An image of the corpus: its split, the stem of its part, its row in that part, its name and its digest."""

    split: str
    part: str
    row: int
    name: str
    digest: str


def find_copies(images: Iterable[StoredImage]) -> list[list[StoredImage]]:
    """Group identical images, in the order of their first one. In each group the image to keep comes first."""
    groups: dict[str, list[StoredImage]] = defaultdict(list)
    for image in images:
        groups[image.digest].append(image)
    copies = (group for group in groups.values() if len(group) > 1)
    return [sorted(group, key=lambda image: SPLIT_PRIORITY.get(image.split, OTHER_SPLIT_PRIORITY)) for group in copies]


def describe_copies(groups: Sequence[Sequence[StoredImage]]) -> dict:
    """Describe copies for a report: their number, the number of groups with several splits, and all names."""
    return {
        "images": sum(len(group) - 1 for group in groups),
        "groups_over_several_splits": sum(len({image.split for image in group}) > 1 for group in groups),
        "groups": [[f"{image.split}/{image.name}" for image in group] for group in groups],
    }
