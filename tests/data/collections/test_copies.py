import random
from collections import Counter

import pytest

from modeling_pcl.data.collections.copies import StoredImage, describe_copies, find_copies


def make_image(split: str, row: int, digest: str) -> StoredImage:
    return StoredImage(split, f"data-{split}-00000", row, f"{row}.jpg", digest)


def get_names(groups: list[list[StoredImage]]) -> list[list[str]]:
    return [[f"{image.split}/{image.name}" for image in group] for group in groups]


def test_images_that_stand_once_are_no_copies():
    assert find_copies([make_image("train", 0, "a"), make_image("train", 1, "b")]) == []
    assert find_copies([]) == []


def test_groups_come_in_the_order_of_their_first_image():
    images = [make_image("train", row, digest) for row, digest in enumerate("abcbaa")]
    assert get_names(find_copies(images)) == [
        ["train/0.jpg", "train/4.jpg", "train/5.jpg"],
        ["train/1.jpg", "train/3.jpg"],
    ]


@pytest.mark.parametrize(
    ("splits", "kept"),
    [
        (["train", "validation", "test"], "test"),
        (["train", "validation"], "validation"),
        (["train", "holdout"], "holdout"),
        (["train", "holdout", "validation"], "validation"),
        (["dev", "train", "holdout"], "dev"),
    ],
)
def test_the_copy_of_the_split_that_must_stay_whole_comes_first(splits, kept):
    ((first, *_),) = find_copies([make_image(split, row, "a") for row, split in enumerate(splits)])
    assert first.split == kept


def test_within_a_split_the_first_copy_is_kept():
    ((first, *others),) = find_copies([make_image("test", row, "a") for row in (2, 5, 7)])
    assert first.row == 2
    assert [image.row for image in others] == [5, 7]


def test_random_corpora_agree_with_a_count_of_their_digests():
    draw = random.Random(0)
    images = [
        make_image(draw.choice(["train", "test", "validation"]), row, str(draw.randrange(60))) for row in range(120)
    ]
    counts = Counter(image.digest for image in images)
    groups = find_copies(images)
    assert [group[0].digest for group in groups] == [digest for digest, count in counts.items() if count > 1]
    assert all(len(group) == counts[group[0].digest] for group in groups)
    assert describe_copies(groups)["images"] == 120 - len(counts)


def test_the_description_counts_what_could_be_dropped_and_groups_over_splits():
    images = [
        make_image("train", 0, "a"),
        make_image("train", 1, "a"),
        make_image("train", 2, "b"),
        make_image("test", 3, "b"),
    ]
    assert describe_copies(find_copies(images)) == {
        "images": 2,
        "groups_over_several_splits": 1,
        "groups": [["train/0.jpg", "train/1.jpg"], ["test/3.jpg", "train/2.jpg"]],
    }
