import os

import numpy as np
import pytest
import scipy.io
from PIL import Image

from modeling_pcl.data.collections.layouts.base import LayoutError
from modeling_pcl.data.collections.layouts.genki import read_genki4k
from modeling_pcl.data.collections.layouts.pose import read_300wlp, read_aflw2000, read_biwi, read_fsanet
from modeling_pcl.data.schema import COLUMNS
from modeling_pcl.head_pose_pcl import axes_in_image, rotation_matrix

ANGLES = ("yaw", "pitch", "roll")


def draw_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), "grey").save(path)
    return path


def get_angles(row) -> list[float]:
    return [row.labels[name] for name in ANGLES]


# 300W-LP and AFLW2000


def write_fitted_face(path, pitch_yaw_roll_deg=(10, -20, 30), compressed=True, **others):
    """Write an image and its `.mat` as published: `Pose_Para` with translation and scale, and 68 landmarks."""
    draw_image(path)
    points = np.linspace([100.0, 210.0], [200.0, 260.0], 68).T
    values = {
        "Pose_Para": np.array([[*np.radians(pitch_yaw_roll_deg), 50.0, 60.0, 0.0, 1e-3]], dtype=np.float32),
        "pt2d": points,
        "Illum_Para": np.ones((1, 10)),
        "roi": np.array([[1, 2, 31, 42]], dtype=np.int16),
    } | others
    values = {name: value for name, value in values.items() if value is not None}
    scipy.io.savemat(path.with_suffix(".mat"), values, do_compression=compressed)
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_300wlp_gives_pitch_yaw_roll_in_degrees_with_yaw_turned(tmp_path, compressed):
    write_fitted_face(tmp_path / "AFW/AFW_12_1_0.jpg", compressed=compressed)
    collection = read_300wlp(tmp_path)
    assert collection.columns == {name: COLUMNS[name] for name in ("subject", *ANGLES)}
    assert list(collection.splits) == ["train"]
    [row] = collection.splits["train"]
    assert get_angles(row) == pytest.approx([20, 10, 30], abs=1e-5)
    assert (row.image.name, row.image.source) == ("AFW/AFW_12_1_0.jpg", tmp_path / "AFW/AFW_12_1_0.jpg")
    assert collection.broken == []


def test_300wlp_renderings_and_mirror_images_of_a_photo_are_one_subject(tmp_path):
    names = ["AFW/AFW_12_1_0", "AFW/AFW_12_1_2", "AFW/AFW_12_1_17", "AFW/AFW_12_2_0", "AFW_Flip/AFW_12_1_0"]
    names += ["LFPW/LFPW_image_test_0001_3", "HELEN/HELEN_12_1_0"]
    for name in names:
        write_fitted_face(tmp_path / "300W_LP" / f"{name}.jpg")
    rows = read_300wlp(tmp_path).splits["train"]
    assert [row.image.name for row in rows] == [f"300W_LP/{name}.jpg" for name in [*names[:5], names[6], names[5]]]
    subjects = ["AFW/AFW_12_1"] * 3 + ["AFW/AFW_12_2", "AFW/AFW_12_1", "HELEN/HELEN_12_1", "LFPW/LFPW_image_test_0001"]
    assert [row.labels["subject"] for row in rows] == subjects


def test_300wlp_leaves_out_code_landmarks_and_folders_without_pairs(tmp_path):
    write_fitted_face(tmp_path / "AFW/AFW_12_1_0.jpg")
    write_fitted_face(tmp_path / "landmarks/AFW/AFW_12_1_0.jpg")
    write_fitted_face(tmp_path / "Code/demo/AFW_12_1_0.jpg")
    draw_image(tmp_path / "previews/a.jpg")
    draw_image(tmp_path / "AFW/overview.png")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    collection = read_300wlp(tmp_path)
    assert [row.image.name for row in collection.splits["train"]] == ["AFW/AFW_12_1_0.jpg"]
    assert [name for name, _ in collection.broken] == ["AFW/overview.png"]  # The only image without labels.


def test_the_box_is_that_of_the_landmarks_with_hopenets_margins(tmp_path):
    write_fitted_face(tmp_path / "AFW/a_0.jpg")
    # As published, one after the other: x_min, y_min, x_max, y_max with k = 0.2.
    x_min, y_min, x_max, y_max, k = 100.0, 210.0, 200.0, 260.0, 0.2
    x_min -= 2 * k * abs(x_max - x_min)
    y_min -= 2 * k * abs(y_max - y_min)
    x_max += 2 * k * abs(x_max - x_min)
    y_max += 0.6 * k * abs(y_max - y_min)
    assert (x_min, y_min, x_max, y_max) == pytest.approx((60, 190, 256, 268.4))
    [row] = read_300wlp(tmp_path).splits["train"]
    assert row.image.box == pytest.approx((x_min, y_min, x_max, y_max))


@pytest.mark.parametrize(
    ("others", "box"),
    [
        ({"pt2d": np.array([[-1, 10, -1.0, 20, -1], [-1, -1, -1.0, 30, np.nan]])}, (6, -13.4, 21.6 + 4, 35.208)),
        ({"pt2d": None}, (1, 2, 31, 42)),
        ({"pt2d": None, "roi": None}, None),
        ({"pt2d": None, "roi": np.array([[31, 2, 1, 42]])}, None),
        ({"pt2d": -np.ones((2, 21))}, None),
        ({"pt2d": np.full((2, 21), 7.0)}, None),
    ],
)
def test_invisible_landmarks_do_not_count_and_roi_stands_in_for_none(tmp_path, others, box):
    write_fitted_face(tmp_path / "AFW/a_0.jpg", **others)
    [row] = read_300wlp(tmp_path).splits["train"]
    assert row.image.box == (box and pytest.approx(box))


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"Pose_Para": None}, "lacks `Pose_Para`; it has"),
        ({"Pose_Para": np.array([[0.1, 0.2]])}, "`Pose_Para` must be pitch, yaw, roll"),
        ({"Pose_Para": np.array([[0.1, np.nan, 0.3]])}, "must lie within 360 degrees"),
        ({"Pose_Para": np.array([[0.1, 0.2, 6.3]])}, "must lie within 360 degrees"),
        ({"Pose_Para": np.array([{}, 1], dtype=object)}, "kind `cell`"),
        ({"pt2d": np.ones((68, 2))}, r"`pt2d` must have the shape \(2, n\), not \(68, 2\)"),
    ],
)
def test_a_bad_matlab_file_makes_a_broken_row(tmp_path, others, reason):
    write_fitted_face(tmp_path / "AFW/good_0.jpg")
    write_fitted_face(tmp_path / "AFW/bad_0.jpg", **others)
    collection = read_300wlp(tmp_path)
    assert [row.image.name for row in collection.splits["train"]] == ["AFW/good_0.jpg"]
    [(name, found)] = collection.broken
    assert name == "AFW/bad_0.jpg"
    with pytest.raises(ValueError, match=reason):
        raise ValueError(found)


def test_a_missing_damaged_or_outer_matlab_file_makes_a_broken_row(tmp_path):
    root = tmp_path / "root"
    write_fitted_face(root / "AFW/good_0.jpg")
    draw_image(root / "AFW/alone_0.jpg")
    damaged = write_fitted_face(root / "AFW/cut_0.jpg").with_suffix(".mat")
    damaged.write_bytes(damaged.read_bytes()[:300])
    outer = write_fitted_face(tmp_path / "outer.jpg").with_suffix(".mat")
    draw_image(root / "AFW/link_0.jpg").with_suffix(".mat").symlink_to(outer)
    collection = read_300wlp(root)
    assert len(collection.splits["train"]) == 1
    broken = dict(collection.broken)
    assert list(broken) == ["AFW/alone_0.jpg", "AFW/cut_0.jpg", "AFW/link_0.jpg"]
    assert "`alone_0.mat`: cannot be opened: No such file" in broken["AFW/alone_0.jpg"]
    assert "`cut_0.mat`: is damaged" in broken["AFW/cut_0.jpg"]
    assert "a symbolic link leads out" in broken["AFW/link_0.jpg"]


@pytest.mark.parametrize("read", [read_300wlp, read_aflw2000, read_fsanet, read_biwi])
def test_a_folder_without_head_pose_is_no_such_layout(tmp_path, read):
    draw_image(tmp_path / "photos/a.jpg")
    with pytest.raises(LayoutError, match=r"has no image with head pose\. There must be"):
        read(tmp_path)


def test_if_no_row_can_be_read_the_first_reason_is_given(tmp_path):
    for number in range(3):
        write_fitted_face(tmp_path / f"AFW/a_{number}.jpg", Pose_Para=None)
    with pytest.raises(LayoutError, match=r"the first of 3 that cannot be read is AFW/a_0\.jpg: `a_0\.mat`: lacks"):
        read_300wlp(tmp_path)


@pytest.mark.parametrize("folder", ["", "AFLW2000/"])
def test_aflw2000_is_a_test_split_that_keeps_large_angles(tmp_path, folder):
    write_fitted_face(tmp_path / f"{folder}image00010.jpg", (-120, 100, 5))
    write_fitted_face(tmp_path / f"{folder}image00002.jpg", (1, 2, 190), pt2d=-np.ones((2, 21)))
    collection = read_aflw2000(tmp_path)
    assert list(collection.splits) == ["test"]
    assert list(collection.columns) == list(ANGLES)
    first, second = collection.splits["test"]
    assert (first.image.name, second.image.name) == (f"{folder}image00002.jpg", f"{folder}image00010.jpg")
    assert get_angles(first) == pytest.approx([-2, 1, -170], abs=1e-4)  # -170 and 190 degrees are the same rotation.
    assert get_angles(second) == pytest.approx([-100, -120, 5], abs=1e-4)


# FSA-Net


def test_fsanet_images_become_rgb_views_and_yaw_is_turned(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "AFW.npz", image=images, pose=np.array([[10, 20, 30], [-4.5, 5, 6]]), img_size=64)
    collection = read_fsanet(tmp_path)
    first, second = collection.splits["train"]
    assert [get_angles(first), get_angles(second)] == [[-10, 20, 30], [4.5, 5, 6]]
    assert (first.image.name, second.image.name) == ("AFW.npz:0", "AFW.npz:1")
    np.testing.assert_array_equal(second.image.source, images[1][:, :, [2, 1, 0]])
    assert second.image.source.base is not None
    assert np.asarray(Image.fromarray(second.image.source))[3, 4].tolist() == images[1, 3, 4].tolist()[::-1]


def test_fsanet_test_files_are_told_by_their_name(tmp_path):
    for name in ("AFLW2000", "AFW_Flip", "BIWI_test", "BIWI_train"):
        np.savez(tmp_path / f"{name}.npz", image=np.zeros((1, 64, 64, 3), np.uint8), pose=np.ones((1, 3)), img_size=64)
    splits = read_fsanet(tmp_path).splits
    names = {split: [row.image.name for row in rows] for split, rows in splits.items()}
    assert names == {"test": ["AFLW2000.npz:0", "BIWI_test.npz:0"], "train": ["AFW_Flip.npz:0", "BIWI_train.npz:0"]}


def test_fsanet_rows_with_nan_are_broken(tmp_path):
    pose = np.array([[1, 2, 3], [1, np.nan, 3], [1, 2, 4]])
    np.savez(tmp_path / "AFW.npz", image=np.zeros((3, 64, 64, 3), np.uint8), pose=pose)
    collection = read_fsanet(tmp_path)
    assert [row.image.name for row in collection.splits["train"]] == ["AFW.npz:0", "AFW.npz:2"]
    assert [name for name, _ in collection.broken] == ["AFW.npz:1"]


IMAGES = np.zeros((2, 64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"image": IMAGES}, "lacks `pose`"),
        ({"image": IMAGES, "pose": np.ones((3, 3))}, r"`pose` must have the shape \(2, 3\)"),
        ({"image": IMAGES.astype(float), "pose": np.ones((2, 3))}, "`image` must be .* uint8"),
        ({"image": IMAGES[..., 0], "pose": np.ones((2, 3))}, "`image` must be .* uint8"),
        ({"image": IMAGES, "pose": np.array([[{}] * 3] * 2)}, "Object arrays cannot be loaded"),
    ],
)
def test_fsanet_names_the_file_with_other_arrays(tmp_path, arrays, reason):
    np.savez(tmp_path / "AFW.npz", **arrays)
    with pytest.raises(LayoutError, match=rf"AFW\.npz: .*{reason}"):
        read_fsanet(tmp_path)


# BIWI

CALIBRATION = """517.679 0 320
0 500.5 240.5
0 0 1

0 0 0 0

0 -1 0
1 0 0
0 0 1

-24.0198 5.8896 -13.2308

640 480
"""


def draw_rotation(generator) -> np.ndarray:
    """Draw a uniformly distributed rotation."""
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    return rotation * np.linalg.det(rotation)


def write_biwi_frame(folder, number=3, rotation=None, centre="10.5 -20.25 900 "):
    """Write a frame and its pose file as published, with blanks at the ends of lines."""
    image = draw_image(folder / f"frame_{number:05d}_rgb.png")
    lines = [" ".join(f"{value:.6f}" for value in line) + " " for line in np.eye(3) if rotation is None]
    lines += [" ".join(f"{value:.6f}" for value in line) + " " for line in (() if rotation is None else rotation)]
    pose = image.with_name(image.name.replace("rgb.png", "pose.txt"))
    pose.write_text("\n".join([*lines, "", centre, ""]))
    return pose


def test_biwi_angles_are_those_of_the_published_formulas_with_yaw_turned(tmp_path):
    generator = np.random.default_rng(0)
    rotations = [draw_rotation(generator) for _ in range(50)]
    for number, rotation in enumerate(rotations):
        write_biwi_frame(tmp_path / "01", number, rotation)
    rows = read_biwi(tmp_path).splits["train"]
    assert len(rows) == 50
    for rotation, row in zip(rotations, rows):
        m = rotation.T
        roll = -np.arctan2(m[1, 0], m[0, 0])
        yaw = -np.arctan2(-m[2, 0], np.sqrt(m[2, 1] ** 2 + m[2, 2] ** 2))
        pitch = np.arctan2(m[2, 1], m[2, 2])
        # The files have six decimals; near a yaw of 90 degrees, pitch and roll depend on the last ones.
        assert get_angles(row) == pytest.approx(np.degrees([-yaw, pitch, roll]).tolist(), abs=0.02)


@pytest.mark.parametrize("pose", [(30, 0, 0), (0, 20, 0), (0, 0, 10), (30, 20, 10)])
def test_biwi_nose_and_crown_point_where_the_camera_sees_them(tmp_path, pose):
    to_camera = np.diag([-1, -1, 1])
    rotation = to_camera @ rotation_matrix(*pose) @ to_camera
    write_biwi_frame(tmp_path / "01", rotation=rotation)
    [row] = read_biwi(tmp_path).splits["train"]
    assert get_angles(row) == pytest.approx(pose, abs=1e-3)
    axes = axes_in_image(*get_angles(row))  # Right and down, as the camera's x and y.
    np.testing.assert_allclose(axes["nose"], (rotation @ [0, 0, -1])[:2], atol=1e-4)
    np.testing.assert_allclose(axes["top"], (rotation @ [0, -1, 0])[:2], atol=1e-4)


def test_biwi_recordings_are_subjects_and_videos(tmp_path):
    for folder, number in (("01", 10), ("01", 9), ("24", 3)):
        write_biwi_frame(tmp_path / folder, number)
    draw_image(tmp_path / "01/frame_00009_mask.png")
    collection = read_biwi(tmp_path)
    rows = collection.splits["train"]
    assert list(collection.columns) == ["subject", "video", "frame", *ANGLES]
    labels = [(row.labels["subject"], row.labels["video"], row.labels["frame"]) for row in rows]
    assert labels == [("01", "01", 9), ("01", "01", 10), ("24", "24", 3)]
    assert [row.image.name for row in rows][2] == "24/frame_00003_rgb.png"
    assert rows[0].image.box is None


def test_biwi_is_found_one_level_down_and_each_recording_once(tmp_path):
    write_biwi_frame(tmp_path / "faces_0/01", 3)
    write_biwi_frame(tmp_path / "hpdb/01", 3)
    write_biwi_frame(tmp_path / "hpdb/02", 4)
    (tmp_path / "faces_0/02").mkdir()
    names = [row.image.name for row in read_biwi(tmp_path).splits["train"]]
    assert names == ["faces_0/01/frame_00003_rgb.png", "hpdb/02/frame_00004_rgb.png"]


def test_biwi_box_is_a_square_around_the_heads_centre_in_the_colour_image(tmp_path):
    write_biwi_frame(tmp_path / "01", centre="100 -20 900")
    (tmp_path / "01/rgb.cal").write_text(CALIBRATION)
    [row] = read_biwi(tmp_path).splits["train"]
    # The calibration rotates (100, -20, 900) by 90 degrees about z to (20, 100, 900), and shifts it.
    x, y, z = 20 - 24.0198, 100 + 5.8896, 900 - 13.2308
    u, v, half = 517.679 * x / z + 320, 500.5 * y / z + 240.5, 120 * 517.679 / z
    assert row.image.box == pytest.approx((u - half, v - half, u + half, v + half))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be opened"),
        ("", "must have 4 lines of 3 numbers"),
        ("1 0 0\n0 1 0\n0 0 1\n\n1 2\n", "must have 4 lines of 3 numbers"),
        ("1 0 0\n0 1 0\n0 0 x\n\n1 2 900\n", "could not convert"),
        ("1 0 0\n0 1 0\n0 0 nan\n\n1 2 900\n", "not finite"),
        ("1 0 0\n0 1 0\n0 0 2\n\n1 2 900\n", "not a 3 x 3 rotation"),
        ("1 0 0\n0 1 0\n0 0 -1\n\n1 2 900\n", "mirrors"),
        ("1 0 0\n0 1 0\n0 0 1\n\n1 2 -900\n", "behind the camera"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_biwi_frames_without_a_good_pose_file_are_broken(tmp_path, content, reason):
    write_biwi_frame(tmp_path / "01", 3)
    (tmp_path / "01/rgb.cal").write_text(CALIBRATION)
    bad = write_biwi_frame(tmp_path / "01", 4)
    if content is None:
        bad.unlink()
    else:
        bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    collection = read_biwi(tmp_path)
    assert [row.labels["frame"] for row in collection.splits["train"]] == [3]
    [(name, found)] = collection.broken
    assert name == "01/frame_00004_rgb.png"
    assert reason in found


@pytest.mark.parametrize("content", ["", CALIBRATION.replace("240.5", ""), CALIBRATION.replace("500.5", "nan"), "x"])
def test_biwi_names_a_calibration_that_is_none(tmp_path, content):
    write_biwi_frame(tmp_path / "01")
    (tmp_path / "01/rgb.cal").write_text(content)
    with pytest.raises(LayoutError, match=r"rgb\.cal: .*delete it to go without boxes"):
        read_biwi(tmp_path)


# GENKI-4K

LINES = ["1 -0.021162 0.059530 -0.039662", "0 0.5 -0.25 0.125", "1 0 0 0"]


def write_genki(root, lines=LINES, images=3):
    for number in range(1, images + 1):
        draw_image(root / f"files/file{number:04d}.jpg")
    (root / "labels.txt").write_text("\n".join(lines) + "\n")


def test_genki4k_gives_smile_and_angles_in_degrees(tmp_path):
    write_genki(tmp_path)
    collection = read_genki4k(tmp_path)
    assert collection.columns == {name: COLUMNS[name] for name in ("smile", *ANGLES)}
    first, second, third = collection.splits["train"]
    assert [row.labels["smile"] for row in (first, second, third)] == [1, 0, 1]
    assert get_angles(first) == pytest.approx([-1.212493, 3.410818, -2.272465])
    assert get_angles(second) == pytest.approx(np.degrees([0.5, -0.25, 0.125]))
    assert second.image.name == "files/file0002.jpg"
    assert collection.broken == []


def test_genki4k_blank_lines_at_the_end_are_no_lines(tmp_path):
    write_genki(tmp_path, [*LINES, "", ""])
    collection = read_genki4k(tmp_path)
    assert (len(collection.splits["train"]), collection.broken) == (3, [])


def test_genki4k_a_line_without_a_file_is_a_row_and_a_file_of_another_name_is_broken(tmp_path):
    write_genki(tmp_path)
    os.remove(tmp_path / "files/file0002.jpg")
    draw_image(tmp_path / "files/other.jpg")
    collection = read_genki4k(tmp_path)
    assert [row.image.name for row in collection.splits["train"]][1] == "files/file0002.jpg"
    assert [name for name, _ in collection.broken] == ["files/other.jpg"]


def test_genki4k_a_lost_line_is_refused_as_all_behind_it_would_be_anothers(tmp_path):
    write_genki(tmp_path, images=4)
    with pytest.raises(LayoutError, match=r"has 3 lines, and there is an image `file0004.jpg`: a line is missing"):
        read_genki4k(tmp_path)
