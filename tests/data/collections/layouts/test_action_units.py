from pathlib import Path

import pytest
from miniatures import BP4D, DISFA
from miniatures import draw as make

from modeling_pcl.data.collections.layouts.action_units import read_bp4d, read_disfa
from modeling_pcl.data.collections.layouts.base import LayoutError
from modeling_pcl.data.schema import INTENSITY, PRESENCE


def compute_intensity(unit: int, frame: int) -> int:
    return (unit + frame) % 6


def write_disfa(root: Path, subject: str = "SN001", frames: int = 4):
    for unit in DISFA:
        path = root / f"ActionUnit_Labels/{subject}/{subject}_au{unit}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{frame},{compute_intensity(unit, frame)}\n" for frame in range(1, frames + 1)))


def replace_line(root: Path, line: str, unit: int = 6):
    path = root / f"ActionUnit_Labels/SN001/SN001_au{unit}.txt"
    lines = path.read_text().splitlines()
    lines[1] = line
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    "folder", ["Images/SN001", "images/LeftVideoSN001_Comp", "Frames/LeftVideoSN001_comp", "Image/SN001"]
)
def test_frames_of_disfa_have_the_intensities_of_their_number(tmp_path, folder):
    write_disfa(tmp_path)
    make(tmp_path, f"{folder}/1.jpg", f"{folder}/frame_0002.png", f"{folder}/4.jpg")
    collection = read_disfa(tmp_path)
    names = [f"AU{unit}" for unit in DISFA]
    assert list(collection.columns) == ["subject", "frame", *names]
    assert all(collection.columns[name] == INTENSITY for name in names)
    rows = collection.splits["train"]
    assert {row.image.name: row.labels for row in rows} == {
        f"{folder}/{file}": {
            "subject": "SN001",
            "frame": frame,
            **{f"AU{unit}": compute_intensity(unit, frame) for unit in DISFA},
        }
        for file, frame in {"1.jpg": 1, "frame_0002.png": 2, "4.jpg": 4}.items()
    }
    assert collection.broken == []


def test_a_frame_that_an_action_unit_lacks_is_missing_there_alone(tmp_path):
    write_disfa(tmp_path)
    replace_line(tmp_path, "")
    make(tmp_path, "Images/SN001/2.jpg")
    collection = read_disfa(tmp_path)
    (row,) = collection.splits["train"]
    assert [name for name, value in row.labels.items() if value is None] == ["AU6"]
    assert collection.broken == []


def test_frames_without_labels_are_broken(tmp_path):
    write_disfa(tmp_path)
    make(tmp_path, "Images/SN001/1.jpg", "Images/SN001/5.jpg", "Images/SN001/cover.jpg")
    collection = read_disfa(tmp_path)
    assert [row.labels["frame"] for row in collection.splits["train"]] == [1]
    assert collection.broken == [
        ("Images/SN001/5.jpg", "no labels"),
        ("Images/SN001/cover.jpg", "no number of a frame"),
    ]


def test_subjects_without_labels_or_images_are_broken_once(tmp_path):
    for subject in ("SN001", "SN002"):
        write_disfa(tmp_path, subject)
    make(tmp_path, "Images/SN001/1.jpg", "Images/SN003/1.jpg", "Images/SN003/2.jpg")
    collection = read_disfa(tmp_path)
    assert {row.labels["subject"] for row in collection.splits["train"]} == {"SN001"}
    assert collection.broken == [
        ("ActionUnit_Labels/SN002", "no images of this subject"),
        ("Images/SN003", "no labels of this subject"),
    ]


@pytest.mark.parametrize("images", ["Images/SN002/1.jpg", "Images/SN001/9.jpg"])
def test_disfa_without_a_single_labelled_frame_is_refused(tmp_path, images):
    write_disfa(tmp_path)
    make(tmp_path, images)
    with pytest.raises(LayoutError, match="no image of a frame that has labels"):
        read_disfa(tmp_path)


def test_frames_counted_from_0_are_refused_because_all_labels_would_be_shifted(tmp_path):
    write_disfa(tmp_path)
    make(tmp_path, "Images/SN001/0.jpg", "Images/SN001/1.jpg")
    with pytest.raises(LayoutError, match=r"Images/SN001/0.jpg: is frame 0, but DISFA's labels count from 1"):
        read_disfa(tmp_path)


def test_left_and_right_camera_together_are_refused(tmp_path):
    write_disfa(tmp_path)
    make(tmp_path, "Images/LeftVideoSN001_comp/1.jpg", "Images/RightVideoSN001_comp/1.jpg")
    with pytest.raises(LayoutError, match=r"second folder of `SN001`, beside `.*LeftVideoSN001_comp`"):
        read_disfa(tmp_path)


def compute_code(unit: int, frame: int) -> int:
    return 9 if unit == 23 else (unit + frame) % 2


def write_bp4d(root: Path, sequence: str = "F001_T1", folder: str = "AUCoding/AU_OCC", corner: str = "0") -> Path:
    path = root / folder / f"{sequence}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [[corner, *range(1, 100)]]
    lines += [[frame, *(compute_code(unit, frame) for unit in range(1, 100))] for frame in range(2440, 2445)]
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("corner", ["0", "", "Frame"])
@pytest.mark.parametrize("folder", ["AUCoding/AU_OCC", "AUCoding", "AU_OCC", "AU-OCC", ""])
@pytest.mark.parametrize("images", ["2D+3D/F001/T1/", "Images/F001/T1/", "F001/T1/"])
def test_coded_frames_of_bp4d_have_their_codes(tmp_path, corner, folder, images):
    write_bp4d(tmp_path, folder=folder, corner=corner)
    files = ["2440.jpg", "02441.jpg", "2442.jpg", "002443.jpg", "2444.png"]
    make(tmp_path, *(f"{images}{file}" for file in files), f"{images}0001.jpg")
    collection = read_bp4d(tmp_path)
    assert list(collection.columns) == ["subject", "video", "frame", *(f"AU{unit}" for unit in BP4D)]
    assert all(collection.columns[f"AU{unit}"] == PRESENCE for unit in BP4D)
    rows = collection.splits["train"]
    assert [row.image.name for row in rows] == [f"{images}{file}" for file in files]
    for frame, row in enumerate(rows, 2440):
        units = {f"AU{unit}": None if unit == 23 else compute_code(unit, frame) for unit in BP4D}
        assert row.labels == {"subject": "F001", "video": "T1", "frame": frame, **units}
    assert collection.broken == []


def test_sequences_come_by_subject_and_number_of_the_task(tmp_path):
    for sequence in ("M001_T1", "F002_T10", "F002_T2"):
        write_bp4d(tmp_path, sequence)
        make(tmp_path, f"2D+3D/{sequence.replace('_', '/')}/2441.jpg")
    (tmp_path / "AUCoding/AU_INT/AU06").mkdir(parents=True)
    (tmp_path / "AUCoding/AU_INT/F002_T2_AU06.csv").write_text("an intensity, which is no occurrence")
    collection = read_bp4d(tmp_path)
    assert [(row.labels["subject"], row.labels["video"]) for row in collection.splits["train"]] == [
        ("F002", "T2"),
        ("F002", "T10"),
        ("M001", "T1"),
    ]


def test_coded_frames_without_an_image_are_counted_by_sequence(tmp_path):
    write_bp4d(tmp_path)
    write_bp4d(tmp_path, "F001_T2")
    make(tmp_path, "2D+3D/F001/T1/2441.jpg", "2D+3D/F001/T1/2442.jpg")
    collection = read_bp4d(tmp_path)
    assert [row.labels["frame"] for row in collection.splits["train"]] == [2441, 2442]
    assert collection.broken == [
        ("F001_T1.csv", "3 of 5 coded frames have no image"),
        ("F001_T2.csv", "5 of 5 coded frames have no image"),
    ]


def test_an_unknown_code_is_missing_and_reported_and_the_frame_keeps_its_others(tmp_path):
    path = write_bp4d(tmp_path)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[2][1] = "5"
    path.write_text("\n".join(map(",".join, lines)))
    make(tmp_path, *(f"F001/T1/{frame}.jpg" for frame in (2440, 2441)))
    collection = read_bp4d(tmp_path)
    labels = [row.labels for row in collection.splits["train"]]
    assert [(row["AU1"], row["AU2"]) for row in labels] == [(1, 0), (None, 1)]
    assert collection.broken[0] == ("F001_T1.csv:3", "frame 2441 has codes that are not 0, 1 or 9: 5 of AU1")
    for line in lines[3:]:
        line[1] = "5"
    path.write_text("\n".join(map(",".join, lines)))
    with pytest.raises(LayoutError, match=r"4 of 5 lines have other codes\. The first, F001_T1\.csv:3: frame 2441"):
        read_bp4d(tmp_path)


def test_a_header_without_an_action_unit_is_refused(tmp_path):
    path = write_bp4d(tmp_path)
    path.write_text("0,1,2,4,6,7,10,12,14,15,17\n1,0,0,0,0,0,0,0,0,0,0\n")
    with pytest.raises(LayoutError, match=r"F001_T1.csv, line 1: the header lacks the action units 23, 24"):
        read_bp4d(tmp_path)
    path.write_text("")
    with pytest.raises(LayoutError, match="line 1: the header lacks the action units 1, 2"):
        read_bp4d(tmp_path)


def test_codes_or_images_in_two_places_are_refused(tmp_path):
    write_bp4d(tmp_path)
    make(tmp_path, "2D+3D/F001/T1/2441.jpg", "Thermal/F001/T1/2441.jpg")
    with pytest.raises(LayoutError, match=r"Thermal/F001/T1: holds images of this sequence, and so does .*2D\+3D"):
        read_bp4d(tmp_path)
    write_bp4d(tmp_path, folder="AU_OCC")
    with pytest.raises(LayoutError, match="is a second file of `F001_T1`"):
        read_bp4d(tmp_path)
