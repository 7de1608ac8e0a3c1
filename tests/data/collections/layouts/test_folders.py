from collections.abc import Iterable
from pathlib import Path

import pytest
from datasets import Value
from miniatures import draw as make

from modeling_pcl.data.collections.layouts.base import LayoutError
from modeling_pcl.data.collections.layouts.folders import parse_frame_numbers, read_folders, read_voxceleb


def get_labels(rows: Iterable) -> dict:
    return {row.image.name: row.labels for row in rows}


def test_folders_are_subjects_and_deeper_images_belong_to_them(tmp_path):
    make(tmp_path, "bob/10.jpg", "bob/9.png", "bob/2019/trip/1.jpg", "ann/a.JPG", "ann/.hidden.jpg")
    (tmp_path / "ann/readme.txt").write_text("no image")
    collection = read_folders(tmp_path)
    rows = collection.splits["train"]
    assert [row.image.name for row in rows] == ["ann/a.JPG", "bob/9.png", "bob/10.jpg", "bob/2019/trip/1.jpg"]
    assert [row.labels for row in rows] == [{"subject": "ann"}] + 3 * [{"subject": "bob"}]
    assert rows[0].image.source == tmp_path / "ann/a.JPG"
    assert collection.columns == {"subject": Value("string")}
    assert list(collection.splits) == ["train"]
    assert collection.broken == []


def test_folders_are_classes_numbered_over_all_splits(tmp_path):
    make(tmp_path, "Training/sad/1.png", "val/happy/2.png", "testing/angry/3.png", "testing/sad/4.png")
    collection = read_folders(tmp_path, folder_is="expression")
    assert collection.columns["expression"].names == ["angry", "happy", "sad"]
    assert {split: [row.labels["expression"] for row in rows] for split, rows in collection.splits.items()} == {
        "train": [2],
        "validation": [1],
        "test": [0, 2],
    }


def test_a_folder_that_is_no_split_makes_all_of_them_subjects(tmp_path):
    make(tmp_path, "train/a/1.png", "test/a/1.png", "others/a/1.png")
    rows = read_folders(tmp_path).splits["train"]
    assert {row.labels["subject"] for row in rows} == {"train", "test", "others"}


@pytest.mark.parametrize("places", [{"": "train"}, {"train/": "train", "valid/": "validation"}])
def test_flat_images_have_no_labels(tmp_path, places):
    make(tmp_path, *(f"{place}{number}.png" for place in places for number in (1, 2)))
    collection = read_folders(tmp_path)
    assert collection.columns == {}
    assert {split: [row.labels for row in rows] for split, rows in collection.splits.items()} == {
        split: [{}, {}] for split in places.values()
    }


@pytest.mark.parametrize(
    ("stray", "reason"), [("stray.png", "no folder of a split"), ("train/stray.png", "no folder of one subject")]
)
def test_an_image_beside_the_folders_is_broken(tmp_path, stray, reason):
    make(tmp_path, "train/a/1.png", "train/a/2.png", stray)
    collection = read_folders(tmp_path)
    assert get_labels(collection.splits["train"]) == {f"train/a/{n}.png": {"subject": "a"} for n in (1, 2)}
    assert collection.broken == [(stray, f"lies in {reason}")]


def test_images_that_lie_mostly_beside_the_folders_are_refused(tmp_path):
    make(tmp_path, "a/1.png", "stray1.png", "stray2.png")
    with pytest.raises(LayoutError, match=r"2 of 3 do not fit the layout. The first, stray1.png: lies in no"):
        read_folders(tmp_path)


def test_a_link_to_a_folder_is_reported_and_not_followed(tmp_path):
    make(tmp_path, "a/1.png", "a/2.png")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    collection = read_folders(tmp_path)
    assert list(get_labels(collection.splits["train"])) == ["a/1.png", "a/2.png"]
    assert collection.broken == [("a/loop", "a link to a folder, which is not followed")]


@pytest.mark.parametrize("read", [read_folders, read_voxceleb])
def test_no_image_anywhere_is_refused(tmp_path, read):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/notes.txt").write_text("nothing")
    with pytest.raises(LayoutError, match=r"no image in it or below, no \.bmp"):
        read(tmp_path)


def test_voxceleb_has_identity_video_and_frame_in_its_paths(tmp_path):
    make(tmp_path, "id2/-x.1/0000100.jpg", "id2/-x.1/0000025.jpg", "id10/b/face.jpg", "id10/a/f7.jpg")
    collection = read_voxceleb(tmp_path)
    rows = collection.splits["train"]
    assert [row.image.name for row in rows][:2] == ["id2/-x.1/0000025.jpg", "id2/-x.1/0000100.jpg"]
    assert [row.labels for row in rows] == [
        {"subject": "id2", "video": "-x.1", "frame": 25},
        {"subject": "id2", "video": "-x.1", "frame": 100},
        {"subject": "id10", "video": "a", "frame": 7},
        {"subject": "id10", "video": "b", "frame": None},
    ]
    assert list(collection.columns) == ["subject", "video", "frame"]


def test_a_voxceleb_image_at_another_depth_is_broken(tmp_path):
    make(tmp_path, "a/v/1.jpg", "a/v/2.jpg", "a/v/3.jpg", "cover.jpg", "a/portrait.jpg", "a/v/deep/4.jpg")
    collection = read_voxceleb(tmp_path)
    assert len(collection.splits["train"]) == 3
    assert collection.broken == [
        (name, f"must lie in `<identity>/<video>/`, {depth} folders deep is not 2")
        for name, depth in {"a/portrait.jpg": 1, "a/v/deep/4.jpg": 3, "cover.jpg": 0}.items()
    ]


def test_voxceleb_with_a_level_too_many_is_refused(tmp_path):
    make(tmp_path, "vox/a/v/1.jpg", "vox/a/v/2.jpg")
    with pytest.raises(LayoutError, match=r"2 of 2 .* vox/a/v/1.jpg: must lie in `<identity>/<video>/`, 3 folders"):
        read_voxceleb(tmp_path)


@pytest.mark.parametrize(
    ("names", "frames"),
    [
        (["0012.jpg"], [12]),
        (["v1_f034_face.png"], [34]),
        (["face.jpg"], [None]),
        ([f"{'9' * 19}.jpg"], [None]),
        (["SN001_00001_crop256.jpg"], [1]),
        (["SN001_00001_crop256.jpg", "SN001_00002_crop256.jpg"], [1, 2]),
        (["0001_112x112.jpg", "0010_112x112.jpg"], [1, 10]),
        (["0001_2.jpg", "0002_2.jpg", "0003_1.jpg"], [1, 2, 3]),
        (["7_0.png", "9_0.png"], [7, 9]),
        (["frame7_left_2019.jpg", "frame8_left_2019.jpg", "cover.jpg"], [7, 8, None]),
        (["crop_0003.jpg", "crop_0005.jpg"], [3, 5]),
        (["face1.jpg", "face2.jpg"], [1, 2]),
        (["001-224px.jpg", "002-224px.jpg"], [1, 2]),
    ],
)
def test_the_frame_is_the_number_that_tells_the_images_of_a_sequence_apart(names, frames):
    assert list(parse_frame_numbers([Path(name) for name in names]).values()) == frames


@pytest.mark.parametrize(
    "names",
    [("0001.jpg", "0001.png"), ("0007_crop1.jpg", "0007_crop2.jpg"), ("1.jpg", "001.jpg"), ("a_5.jpg", "b_5.jpg")],
)
def test_two_images_of_one_frame_are_an_error_that_names_both(tmp_path, names):
    make(tmp_path, *(f"id10001/video/{name}" for name in names))
    with pytest.raises(LayoutError, match="is a second image of frame") as error:
        read_voxceleb(tmp_path)
    assert all(name in str(error.value) for name in names)
