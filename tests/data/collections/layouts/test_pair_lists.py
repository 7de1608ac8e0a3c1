from pathlib import Path

import miniatures
import pytest
from miniatures import draw

from modeling_pcl.data.collections.layouts.base import LayoutError
from modeling_pcl.data.collections.layouts.pair_lists import read_calfw, read_cplfw, read_lfw

PEOPLE = {"Aaron_Peirsol": 4, "George_W_Bush": 3, "Ai_Sugiyama": 1}
VIEW_2 = [
    "2\t2",
    "Aaron_Peirsol\t1\t2",
    "George_W_Bush\t1\t3",
    "Aaron_Peirsol\t1\tAi_Sugiyama\t1",
    "George_W_Bush\t2\tAi_Sugiyama\t1",
    "Aaron_Peirsol\t3\t4",
    "George_W_Bush\t2\t3",
    "Aaron_Peirsol\t3\tAi_Sugiyama\t1",
    "George_W_Bush\t3\tAi_Sugiyama\t1",
]
VIEW_1 = ["1", "Aaron_Peirsol\t1\t4", "Aaron_Peirsol\t1\tGeorge_W_Bush\t1"]


def write_lines(path: Path, lines: list[str]) -> Path:
    return miniatures.write(path, *lines)


def write_lfw(root: Path, folder: str = "", **lists: list[str]) -> Path:
    for person, count in PEOPLE.items():
        for number in range(1, count + 1):
            draw(root / folder / person, f"{person}_{number:04d}.jpg")
    for name, lines in lists.items():
        write_lines(root / f"{name}.txt", lines)
    return root


def list_pairs(pairs) -> list[tuple[str, str, bool, int]]:
    return [
        (pair.image_a.name.split("/")[-1], pair.image_b.name.split("/")[-1], pair.same, pair.fold) for pair in pairs
    ]


@pytest.mark.parametrize("folder", ["", "lfw", "lfw_funneled", "lfw-deepfunneled", "lfw-deepfunneled/lfw-deepfunneled"])
def test_lfw_has_all_images_with_their_person_and_the_pairs_of_both_views(tmp_path, folder):
    collection = read_lfw(write_lfw(tmp_path, folder, pairs=VIEW_2, pairsDevTrain=VIEW_1, pairsDevTest=VIEW_1))
    assert list(collection.columns) == ["subject"]
    rows = collection.splits["train"]
    assert [row.labels["subject"] for row in rows] == ["Aaron_Peirsol"] * 4 + ["Ai_Sugiyama"] + ["George_W_Bush"] * 3
    assert rows[0].image.name == f"{folder}/Aaron_Peirsol/Aaron_Peirsol_0001.jpg".lstrip("/")
    assert all(row.image.source.exists() for row in rows)
    assert collection.broken == []
    assert {split: len(pairs) for split, pairs in collection.pairs.items()} == {
        "test": 8,
        "dev_train": 2,
        "dev_test": 2,
    }
    pairs = collection.pairs["test"]
    assert all(pair.image_a.source.exists() and pair.image_b.source.exists() for pair in pairs)
    assert list_pairs(pairs)[:3] == [
        ("Aaron_Peirsol_0001.jpg", "Aaron_Peirsol_0002.jpg", True, 1),
        ("George_W_Bush_0001.jpg", "George_W_Bush_0003.jpg", True, 1),
        ("Aaron_Peirsol_0001.jpg", "Ai_Sugiyama_0001.jpg", False, 1),
    ]
    assert [pair.same for pair in pairs] == [True, True, False, False] * 2
    assert [pair.fold for pair in pairs] == [1] * 4 + [2] * 4
    assert [pair.fold for pair in collection.pairs["dev_train"]] == [1, 1]


def test_lfw_may_have_only_one_list_with_spaces_beside_the_people(tmp_path):
    write_lfw(tmp_path, "lfw_funneled")
    write_lines(tmp_path / "lfw_funneled" / "pairsDevTest.txt", [line.replace("\t", " ") for line in VIEW_1])
    collection = read_lfw(tmp_path)
    assert {split: len(pairs) for split, pairs in collection.pairs.items()} == {"dev_test": 2}


def test_lfw_pairs_of_images_that_are_not_there_are_left_to_who_opens_them(tmp_path):
    collection = read_lfw(write_lfw(tmp_path, pairs=[VIEW_2[0], "Nobody 7 8", *VIEW_2[2:]]))
    assert collection.broken == []
    assert collection.pairs["test"][0].image_b.name == "Nobody/Nobody_0008.jpg"


def test_lfw_lists_with_another_number_of_lines_are_refused(tmp_path):
    write_lfw(tmp_path, pairs=["", *VIEW_2[:-1]])
    with pytest.raises(LayoutError, match=r"pairs\.txt, line 2: says that 2 x 2 x 2 = 8 lines follow, but 7 do"):
        read_lfw(tmp_path)


@pytest.mark.parametrize("header", ["folds 2", "2 2 2", "0 2", "-1", "2.0"])
def test_lfw_lists_with_another_header_are_refused(tmp_path, header):
    write_lfw(tmp_path, pairs=[header, *VIEW_2[1:]])
    with pytest.raises(LayoutError, match=r"pairs\.txt, line 1: must begin with `folds pairs` or `pairs`"):
        read_lfw(tmp_path)


def test_lfw_lists_that_are_empty_or_mostly_bad_are_refused(tmp_path):
    write_lfw(tmp_path, pairs=[""])
    with pytest.raises(LayoutError, match=r"pairs\.txt: must begin"):
        read_lfw(tmp_path)
    write_lines(tmp_path / "pairs.txt", ["2 2", *["a,1,2"] * 5, *VIEW_2[6:]])
    with pytest.raises(LayoutError, match=r"5 of 8 do not fit the layout. The first, pairs\.txt:2: must be"):
        read_lfw(tmp_path)


def write_flat_collection(root: Path, folder: str = "aligned images", width: int = 1) -> Path:
    """Write two images of each of 40 people, with the names of CPLFW (`width` 1) or CALFW (`width` 4)."""
    for person in range(40):
        for number in (1, 2):
            draw(root / folder, f"Ann_{encode_person(person)}_{number:0{width}d}.jpg")
    return root


def encode_person(person: int) -> str:
    return chr(ord("a") + person // 8) + chr(ord("a") + person % 8)


def make_same_lines(person: int, flag: int, width: int = 1) -> list[str]:
    return [f"Ann_{encode_person(person)}_{number:0{width}d}.jpg {flag}" for number in (1, 2)]


def make_different_lines(person: int, width: int = 1) -> list[str]:
    return [f"Ann_{encode_person(each)}_{1:0{width}d}.jpg 0" for each in (person, person + 1)]


def make_pair_lines(flags: list[int], width: int = 1) -> list[str]:
    """Make the lines of 20 pairs of the same person, and then of 20 pairs of different people."""
    lines = [line for person, flag in enumerate(flags) for line in make_same_lines(person, flag, width)]
    return lines + [line for person in range(20) for line in make_different_lines(person, width)]


IN_TENTHS = [line for fold in range(10) for line in (*make_same_lines(fold, 1), *make_different_lines(fold))]
NUMBERED = [fold for fold in range(1, 11) for _ in range(2)]


def test_cplfw_has_all_images_with_their_person_and_pairs_of_two_lines(tmp_path):
    write_lines(write_flat_collection(tmp_path) / "pairs_CPLFW.txt", IN_TENTHS)
    collection = read_cplfw(tmp_path)
    rows = collection.splits["train"]
    assert len(rows) == 80
    assert [row.labels["subject"] for row in rows[:3]] == ["Ann_aa", "Ann_aa", "Ann_ab"]
    assert rows[0].image.name == "aligned images/Ann_aa_1.jpg"
    assert collection.broken == []
    pairs = list_pairs(collection.pairs["test"])
    assert pairs[:2] == [("Ann_aa_1.jpg", "Ann_aa_2.jpg", True, 1), ("Ann_aa_1.jpg", "Ann_ab_1.jpg", False, 1)]
    assert [fold for *_, fold in pairs] == NUMBERED
    assert collection.pairs["test"][0].image_a.source == tmp_path / "aligned images" / "Ann_aa_1.jpg"


@pytest.mark.parametrize("flags", [[1] * 20, NUMBERED])
def test_same_pairs_first_are_dealt_in_order(tmp_path, flags):
    write_lines(write_flat_collection(tmp_path) / "pairs_CPLFW.txt", make_pair_lines(flags))
    pairs = read_cplfw(tmp_path).pairs["test"]
    assert [pair.same for pair in pairs] == [True] * 20 + [False] * 20
    assert [pair.fold for pair in pairs] == NUMBERED * 2


def test_flags_number_the_folds_of_the_same_pairs_in_any_order(tmp_path):
    write_lines(write_flat_collection(tmp_path) / "pairs_CPLFW.txt", make_pair_lines(NUMBERED[::-1]))
    assert [pair.fold for pair in read_cplfw(tmp_path).pairs["test"]] == NUMBERED[::-1] + NUMBERED


def test_calfw_has_numbers_of_four_digits_and_its_own_list(tmp_path):
    write_flat_collection(tmp_path, "images", width=4)
    (tmp_path / "txts").mkdir()
    write_lines(tmp_path / "txts" / "pairs_CALFW.txt", make_pair_lines(NUMBERED, width=4))
    collection = read_calfw(tmp_path)
    assert collection.splits["train"][0].labels["subject"] == "Ann_aa"
    assert list_pairs(collection.pairs["test"])[0] == ("Ann_aa_0001.jpg", "Ann_aa_0002.jpg", True, 1)
    assert [pair.fold for pair in collection.pairs["test"]] == NUMBERED * 2


def test_balanced_tenths_are_the_folds_whatever_their_flags_are(tmp_path):
    lines = [line for fold in range(10) for line in (*make_same_lines(fold, 2), *make_different_lines(fold))]
    write_lines(write_flat_collection(tmp_path) / "pairs_CPLFW.txt", lines)
    assert [pair.fold for pair in read_cplfw(tmp_path).pairs["test"]] == NUMBERED


@pytest.mark.parametrize("folder", ["aligned images", "aligned_images"])
def test_aligned_images_come_before_others(tmp_path, folder):
    write_flat_collection(tmp_path, "images")
    write_lines(write_flat_collection(tmp_path, folder) / "pairs_CPLFW.txt", IN_TENTHS)
    assert {row.image.name.split("/")[0] for row in read_cplfw(tmp_path).splits["train"]} == {folder}


def test_images_with_misspelt_names_are_broken(tmp_path):
    write_lines(write_flat_collection(tmp_path) / "pairs_CPLFW.txt", IN_TENTHS)
    names = ["Landon_Donovan_3jpg.jpg", "Leni_Bjorklund-2.jpg", "Mike_Montgomery_3.jip.jpg"]
    draw(tmp_path / "aligned images", *names)
    collection = read_cplfw(tmp_path)
    assert [name for name, _ in collection.broken] == [f"aligned images/{name}" for name in names]
    assert len(collection.splits["train"]) == 80


def test_lists_whose_lines_do_not_match_are_refused(tmp_path):
    path = write_flat_collection(tmp_path) / "pairs_CPLFW.txt"
    write_lines(path, IN_TENTHS[:-1])
    with pytest.raises(LayoutError, match=r"pairs_CPLFW\.txt, line 39: has 39 lines, but two make a pair"):
        read_cplfw(tmp_path)
    write_lines(path, IN_TENTHS[1:] + IN_TENTHS[:1])
    with pytest.raises(LayoutError, match=r"line 1: this line and the next have different flags"):
        read_cplfw(tmp_path)
    write_lines(path, VIEW_2[1:])
    with pytest.raises(LayoutError, match=r"line 1: this line and the next are not `name flag`"):
        read_cplfw(tmp_path)
    write_lines(path, [line.replace("Ann", "Bob") for line in IN_TENTHS])
    with pytest.raises(LayoutError, match=r"20 of 20 do not fit the layout. The first, pairs_CPLFW.txt:1: this line"):
        read_cplfw(tmp_path)
    write_lines(path, [])
    with pytest.raises(LayoutError, match="not a single line"):
        read_cplfw(tmp_path)


def test_lists_that_cannot_be_dealt_into_ten_folds_are_refused(tmp_path):
    path = write_flat_collection(tmp_path) / "pairs_CPLFW.txt"
    write_lines(path, IN_TENTHS[:-4])
    with pytest.raises(LayoutError, match="has 9 pairs of the same person and 9 of different people"):
        read_cplfw(tmp_path)
    write_lines(path, IN_TENTHS[:-2] + make_same_lines(30, 1))
    with pytest.raises(LayoutError, match="has 11 pairs of the same person and 9 of different people"):
        read_cplfw(tmp_path)
    write_lines(path, make_pair_lines([1] * 10 + [2] * 10))
    with pytest.raises(LayoutError, match="its flags must be 0, and 1 or the numbers of 10 folds"):
        read_cplfw(tmp_path)
