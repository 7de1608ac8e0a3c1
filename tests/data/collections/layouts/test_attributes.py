from pathlib import Path

import pytest
from datasets import Value
from miniatures import draw as make
from miniatures import write

from modeling_pcl.data.collections.layouts.attributes import read_celeba, read_utkface
from modeling_pcl.data.collections.layouts.base import LayoutError

NAMES = {
    "1_0_0_20161219140623097.jpg.chip.jpg": (1, 0, 0),
    "26_1_4_20170104.jpg": (26, 1, 4),
    "116_1_2_20170112.jpg.chip.jpg": (116, 1, 2),
}


@pytest.mark.parametrize("folder", ["", "UTKFace/", "part2/", "crop_part1/"])
def test_the_labels_of_utkface_are_in_the_names(tmp_path, folder):
    make(tmp_path, *(folder + name for name in NAMES))
    collection = read_utkface(tmp_path)
    assert list(collection.columns) == ["age", "gender", "attributes"]
    assert collection.columns["gender"].names == ["male", "female"]
    assert collection.columns["attributes"]["race"].names == ["white", "black", "asian", "indian", "others"]
    assert {row.image.name: row.labels for row in collection.splits["train"]} == {
        folder + name: {"age": age, "gender": gender, "attributes": {"race": race}}
        for name, (age, gender, race) in NAMES.items()
    }
    assert collection.broken == []


def test_the_parts_are_read_together_and_copies_in_another_folder_are_not(tmp_path):
    make(tmp_path, *(f"part{part}/{name}" for part in (1, 2, 3) for name in NAMES))
    assert len(read_utkface(tmp_path).splits["train"]) == 9
    make(tmp_path, *(f"crop_part1/{name}" for name in NAMES))
    assert len(read_utkface(tmp_path).splits["train"]) == 3


@pytest.mark.parametrize(
    "name",
    [
        "39_1_20170116174525125.jpg.chip.jpg",
        "61_1_20170109142408075.jpg.chip.jpg",
        "53__0_20170116184028385.jpg",
        "44_1__20170116184028385.jpg",
        "117_0_0_20170116184028385.jpg",
        "30_2_0_20170116184028385.jpg",
        "30_0_5_20170116184028385.jpg",
        "nan_0_0_20170116184028385.jpg",
        "-1_0_0_20170116184028385.jpg",
        "portrait.jpg",
    ],
)
def test_a_name_without_three_labels_is_broken(tmp_path, name):
    make(tmp_path, *NAMES, name)
    collection = read_utkface(tmp_path)
    assert len(collection.splits["train"]) == 3
    ((broken_name, reason),) = collection.broken
    assert broken_name == name
    assert "age_gender_race_date" in reason


def test_other_images_than_those_of_utkface_are_refused(tmp_path):
    with pytest.raises(LayoutError, match="there is no image in it, and none in `UTKFace`"):
        read_utkface(tmp_path)
    make(tmp_path, "a.jpg", "b.jpg", "1_0_0_2016.jpg")
    with pytest.raises(LayoutError, match=r"2 of 3 do not fit the layout. The first, a.jpg: is not named age_"):
        read_utkface(tmp_path)


ATTRIBUTES = ["5_o_Clock_Shadow", "Male", "Smiling", *(f"Attribute_{number}" for number in range(37))]
IMAGES = [f"{number:06}.jpg" for number in range(1, 6)]


def is_set(image: int, attribute: int) -> bool:
    return (3 * image + attribute) % 5 < 2


def make_flags(image: int, false: str = "-1") -> list[str]:
    return ["1" if is_set(image, attribute) else false for attribute in range(40)]


def write_attributes(root: Path, folder: str = ""):
    rows = (f"{name}  {'  '.join(make_flags(number))}" for number, name in enumerate(IMAGES))
    write(root / f"{folder}list_attr_celeba.txt", "5", " ".join(ATTRIBUTES) + " ", *rows)


def write_celeba(root: Path, anno: str = "", evaluation: str = "", images: str = "img_align_celeba"):
    write_attributes(root, anno)
    write(root / f"{anno}identity_CelebA.txt", *(f"{name} {2880 + n}" for n, name in enumerate(IMAGES)))
    boxes = (f"{name}    {95 + n}  71 226 313" for n, name in enumerate(IMAGES))
    write(root / f"{anno}list_bbox_celeba.txt", "5", "image_id x_1 y_1 width height", *boxes)
    write(root / f"{evaluation}list_eval_partition.txt", *(f"{n} {s}" for n, s in zip(IMAGES, "00121")))
    make(root, *(f"{images}/{name}" for name in IMAGES))


def make_expected_flags(image: int) -> dict[str, bool]:
    return {name: is_set(image, number) for number, name in enumerate(ATTRIBUTES)}


PLACES = {
    "all in the root": {},
    "as published": {"anno": "Anno/", "evaluation": "Eval/", "images": "Img/img_align_celeba"},
    "a folder in a folder": {"images": "img_align_celeba/img_align_celeba"},
}


@pytest.mark.parametrize("place", PLACES)
def test_celeba_joins_its_files(tmp_path, place):
    write_celeba(tmp_path, **PLACES[place])
    collection = read_celeba(tmp_path)
    assert collection.columns == {
        "subject": Value("string"),
        "attributes": dict.fromkeys(ATTRIBUTES, Value("bool")),
    }
    folder = PLACES[place].get("images", "img_align_celeba")
    for split, numbers in {"train": [0, 1], "validation": [2, 4], "test": [3]}.items():
        rows = collection.splits[split]
        assert [row.image.name for row in rows] == [f"{folder}/{IMAGES[number]}" for number in numbers]
        assert [row.labels for row in rows] == [
            {"attributes": make_expected_flags(number), "subject": str(2880 + number)} for number in numbers
        ]
        assert all(row.image.box is None and row.image.source.exists() for row in rows)
    assert collection.broken == []


@pytest.mark.parametrize("images", ["img_celeba", "Img/img_celeba"])
def test_boxes_are_given_to_images_in_the_wild(tmp_path, images):
    write_celeba(tmp_path, images=images)
    assert read_celeba(tmp_path).splits["test"][0].image.box == (98, 71, 98 + 226, 71 + 313)


def test_aligned_images_come_before_those_in_the_wild(tmp_path):
    write_celeba(tmp_path)
    make(tmp_path, *(f"img_celeba/{name}" for name in IMAGES))
    image = read_celeba(tmp_path).splits["test"][0].image
    assert (image.name, image.box) == ("img_align_celeba/000004.jpg", None)


def test_kaggle_s_tables_do_as_well(tmp_path):
    rows = (",".join([name, *make_flags(number, "0" if number else "-1")]) for number, name in enumerate(IMAGES))
    write(tmp_path / "list_attr_celeba.csv", ",".join(["image_id", *ATTRIBUTES]), *rows)
    write(tmp_path / "list_eval_partition.csv", "image_id,partition", *(f"{n},{s}" for n, s in zip(IMAGES, "00121")))
    write(tmp_path / "list_bbox_celeba.csv", "image_id,x_1,y_1,width,height", *(f"{n},1,2,30,40" for n in IMAGES))
    make(tmp_path, *(f"img_celeba/{name}" for name in IMAGES))
    collection = read_celeba(tmp_path)
    assert list(collection.columns) == ["attributes"]
    assert [row.labels for row in collection.splits["validation"]] == [
        {"attributes": make_expected_flags(number)} for number in (2, 4)
    ]
    assert collection.splits["train"][1].image.box == (1, 2, 31, 42)


def replace_line(path: Path, number: int, text: str):
    lines = path.read_text().splitlines()
    lines[number - 1] = text
    write(path, *lines)


def test_a_bad_identity_or_box_is_missing_and_the_row_stays(tmp_path):
    write_celeba(tmp_path, images="img_celeba")
    replace_line(tmp_path / "identity_CelebA.txt", 4, "000004.jpg nan")
    replace_line(tmp_path / "list_bbox_celeba.txt", 6, "000004.jpg 0 0 0 0")
    collection = read_celeba(tmp_path)
    (row,) = collection.splits["test"]
    assert row.labels["subject"] is None
    assert row.image.box is None
    names = [name for name, _ in collection.broken]
    assert names == ["identity_CelebA.txt:4", "list_bbox_celeba.txt:6", "identity_CelebA"]


def test_an_image_without_a_split_is_broken(tmp_path):
    write_celeba(tmp_path)
    replace_line(tmp_path / "list_eval_partition.txt", 4, "000004.jpg 3")
    collection = read_celeba(tmp_path)
    assert list(collection.splits) == ["train", "validation"]
    assert collection.broken == [
        ("list_eval_partition.txt:4", "a value of `000004.jpg` is invalid: '3'"),
        ("img_align_celeba/000004.jpg", "is in no split"),
    ]


@pytest.mark.parametrize(
    ("file", "line", "text", "error"),
    [
        (
            "list_attr_celeba.txt",
            1,
            "202599",
            "attr_celeba.txt, line 1: must be the number of rows, it is `202599` and there",
        ),
        ("list_bbox_celeba.txt", 1, "6", "list_bbox_celeba.txt, line 1: .* it is `6` and there are 5"),
        ("list_attr_celeba.txt", 2, "Male Smiling", "line 2: the header must name 40 columns, it has 2 fields"),
        ("list_bbox_celeba.txt", 2, "image_id", "line 2: the header must name 4 columns, it has 1 fields"),
    ],
)
def test_a_wrong_count_or_header_is_refused(tmp_path, file, line, text, error):
    write_celeba(tmp_path, images="img_celeba")
    replace_line(tmp_path / file, line, text)
    with pytest.raises(LayoutError, match=error):
        read_celeba(tmp_path)
