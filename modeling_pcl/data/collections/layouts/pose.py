"""Layouts of collections with head pose, in degrees with the signs of `modeling_pcl.head_pose_pcl`."""

import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from ....head_pose_pcl import ANGLES, angles_of
from ...schema import get_features
from .base import (
    Collection,
    Download,
    LayoutError,
    Photo,
    Row,
    check_inside,
    find_folders,
    find_images,
    get_base_name,
    index_once,
    read_lines,
)
from .matlab import read_matlab, read_npz

FOLDERS_WITHOUT_PHOTOS = {"Code", "landmarks"}
HEAD_MM = 240  # Side of the box around the centre of a head, at the distance of the head.
TO_HEAD_AXES = np.diag([-1.0, -1.0, 1.0])

Box = tuple[float, float, float, float]


def read_300wlp(root: Path) -> Collection:
    """Read 300W-LP: photos of faces, each rendered with up to 17 larger yaws and mirrored, with fitted 3D pose.

        AFW/AFW_1051618982_1_0.jpg          HELEN/  IBUG/  LFPW/
        AFW/AFW_1051618982_1_0.mat          HELEN_Flip/  ...
        AFW_Flip/AFW_1051618982_1_0.jpg     Code/  landmarks/    (not read)

    These folders may lie at any depth. `Pose_Para` contains pitch, yaw and roll in radians. Its yaw is positive towards
    the left of the image, so its sign is changed. The box surrounds the landmarks `pt2d` with the margins of Ruiz et
    al. 2018; without landmarks it is `roi`, if that exists. The identities are unknown: `subject` is the photo,
    `AFW/AFW_1051618982_1`, which keeps all renderings and mirror images of a photo in one split.
    """
    download = Download(root)
    files = {image: path for folder in _iterate_subfolders(root) for image, path in _pair_images(folder).items()}
    rows = _read_matlab_rows(download, files)
    for row in rows:
        folder, stem = row.image.source.parent.name, files[row.image.source].stem
        row.labels["subject"] = f"{folder.removesuffix('_Flip')}/{re.sub(r'_[0-9]+$', '', stem)}"
    return make_pose_collection(download, "a folder with `X.jpg` and `X.mat`", {"train": rows}, "subject")


def read_aflw2000(root: Path) -> Collection:
    """Read AFLW2000-3D: a test set of 2000 photos of faces with fitted 3D pose.

        image00002.jpg                      or the same in AFLW2000/
        image00002.mat

    Pose and box are as in 300W-LP. Of the 21 landmarks, those that are not visible are (-1, -1). All images are kept;
    images with angles beyond 99 degrees can be excluded by the protocol of a probe.
    """
    folder = root / "AFLW2000" if (root / "AFLW2000").is_dir() else root
    download = Download(root)
    rows = _read_matlab_rows(download, _pair_images(folder))
    return make_pose_collection(download, "`image00002.jpg` and `image00002.mat`", {"test": rows})


def read_fsanet(root: Path) -> Collection:
    """Read the arrays of FSA-Net: faces of 300W-LP, AFLW2000 or BIWI in 64 x 64 px, with head pose.

        AFW.npz   HELEN.npz   ...   AFLW2000.npz   BIWI_train.npz   BIWI_test.npz

    Any of these files may be missing; subfolders are not searched. `image` is `(n, h, w, 3)` uint8 in BGR, and `pose`
    is `(n, 3)`: yaw, pitch and roll in degrees. The yaw has the sign of 300W-LP, which is changed. Rows are named by
    their number, from 0: `AFW.npz:17`. Files with `AFLW2000` or `test` in their name form the split `test`, all others
    the split `train`. All arrays are held in memory.
    """
    splits: dict[str, list[Row]] = {}
    download = Download(root)

    def read(row: tuple[str, np.ndarray, list[float]]) -> Row:
        name, image, (yaw, pitch, roll) = row
        return Row(Photo(image[..., ::-1], name), make_angle_labels(-yaw, pitch, roll))  # BGR -> RGB

    for path in sorted(root.glob("*.npz")):
        split = "test" if "AFLW2000" in path.name or "test" in path.name else "train"
        images, poses = _read_fsanet_arrays(root, path)
        names = [f"{path.name}:{number}" for number in range(len(images))]
        rows = download.read_each(zip(names, zip(names, images, poses.tolist())), read)
        splits.setdefault(split, []).extend(rows)
    return make_pose_collection(download, "a `.npz` file with `image` and `pose`", splits)


def read_biwi(root: Path) -> Collection:
    """Read BIWI Kinect Head Pose: 24 recordings of 20 people who turn their heads, with pose and camera calibration.

        01/frame_00003_rgb.png              ... 24/, or the same in hpdb/, faces_0/ or another folder
        01/frame_00003_pose.txt
        01/rgb.cal

    If a recording is in two folders, the first one is read. A pose file contains the rotation from the head to the
    camera (x right, y down, z away) in three lines, and the centre of the head in mm in the frame of the depth camera.
    The box is a square of 240 mm around that centre, projected to the colour camera with `rgb.cal`; without that file
    there are no boxes. `video` and `subject` are the number of the recording: four of the 20 people were recorded twice
    and count as two subjects.
    """
    rows: list[Row] = []
    download = Download(root)
    for folder in _find_biwi_recordings(root):
        read = partial(_read_biwi_row, download, _read_calibration(root, folder / "rgb.cal"))
        rows += download.read_images(_find_biwi_frames(folder), read)
    names = ("subject", "video", "frame")
    return make_pose_collection(download, "`01/frame_00003_rgb.png` and its `_pose.txt`", {"train": rows}, *names)


def make_pose_collection(download: Download, required: str, splits: dict[str, list[Row]], *names: str) -> Collection:
    """Make a collection with head pose.

    Args:
        download: Folder of the collection.
        required: Files that the collection must have, for the error.
        splits: Rows by split.
        *names: Label columns besides the angles.

    Raises:
        LayoutError: If the collection has no rows.
    """
    broken = download.broken
    if not any(splits.values()):
        first = f"; the first of {len(broken)} that cannot be read is {': '.join(broken[0])}" if broken else ""
        raise LayoutError(download.root, f"has no image with head pose. There must be {required}{first}.")
    return Collection(get_features(*names, *ANGLES), splits, broken=broken)


def make_angle_labels(yaw_deg: float, pitch_deg: float, roll_deg: float) -> dict[str, float]:
    """Make labels of angles, each shifted to [-180, 180] by full turns."""
    angles = dict(zip(ANGLES, (yaw_deg, pitch_deg, roll_deg)))
    if not all(abs(angle) <= 360 for angle in angles.values()):  # Also refuses NaN.
        raise ValueError(f"the head pose must lie within 360 degrees, not {angles}")
    return {name: math.remainder(angle, 360) for name, angle in angles.items()}


def _iterate_subfolders(folder: Path) -> Iterator[Path]:
    """Iterate over all subfolders that may contain photos. Links are not followed, because they may form loops."""
    for inner in find_folders(folder):
        if inner.name not in FOLDERS_WITHOUT_PHOTOS and not inner.is_symlink():
            yield inner
            yield from _iterate_subfolders(inner)


def _pair_images(folder: Path) -> dict[Path, Path]:
    """Pair each image of a folder with the path of its `.mat` file; empty if no image has one."""
    labels = {path.stem: path for path in folder.iterdir() if path.suffix.lower() == ".mat"}
    # The `_0` of face detectors is removed only if the full name has no `.mat`: names of 300W-LP may end in `_0` too.
    stems = {image: image.stem if image.stem in labels else get_base_name(image) for image in find_images(folder)}
    index_once(stems, stems.get)
    is_paired = any(stem in labels for stem in stems.values())
    return {image: labels.get(stem, folder / f"{stem}.mat") for image, stem in stems.items() if is_paired}


def _read_matlab_rows(download: Download, files: Mapping[Path, Path]) -> list[Row]:
    """Read the pose and the box of each image from its `.mat` file."""

    def read(image: Path) -> Row:
        try:
            values = read_matlab(check_inside(download.root, files[image]), ["Pose_Para"], optional=["pt2d", "roi"])
            return Row(download.make_photo(image, _get_matlab_box(values)), _parse_matlab_angles(values["Pose_Para"]))
        except ValueError as error:
            raise ValueError(f"`{files[image].name}`: {error}") from error

    return download.read_images(files, read)


def _parse_matlab_angles(pose: np.ndarray) -> dict[str, float]:
    """Make labels of `Pose_Para`."""
    if pose.size < 3:
        raise ValueError(f"`Pose_Para` must be pitch, yaw, roll, ..., not of the shape {pose.shape}")
    pitch, yaw, roll = np.degrees(pose.ravel()[:3].astype(float)).tolist()
    return make_angle_labels(-yaw, pitch, roll)


def _get_matlab_box(values: dict[str, np.ndarray]) -> Box | None:
    """Return the box of the landmarks, or `roi` if there are none; None if there is no valid box."""
    if "pt2d" in values:
        return _compute_landmark_box(values["pt2d"].astype(float))
    roi = values.get("roi", np.empty(0)).astype(float).ravel()
    return tuple(roi.tolist()) if len(roi) == 4 and _has_area(roi) else None


def _compute_landmark_box(points: np.ndarray) -> Box | None:
    """Compute the bounds of the visible landmarks `(2, n)` with margins; None if they have no area.

    Source:
        Ruiz et al. 2018 (Hopenet), the crop of its tests, k = 0.2. As in the published code, the right and lower
        margins are shares of a width and height that already contain the left and upper margin.
    """
    if points.ndim != 2 or len(points) != 2:
        raise ValueError(f"`pt2d` must have the shape (2, n), not {points.shape}")
    visible = points[:, np.isfinite(points).all(axis=0) & (points != -1).any(axis=0)]
    if not visible.size:
        return None
    (left, top), (right, bottom) = visible.min(axis=1).tolist(), visible.max(axis=1).tolist()
    left -= 0.4 * (right - left)
    top -= 0.4 * (bottom - top)
    box = (left, top, right + 0.4 * (right - left), bottom + 0.12 * (bottom - top))
    return box if _has_area(box) else None


def _has_area(box: Box | np.ndarray) -> bool:
    return bool(np.isfinite(box).all() and box[0] < box[2] and box[1] < box[3])


def _read_fsanet_arrays(root: Path, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the images and the poses of one file."""
    try:
        arrays = read_npz(check_inside(root, path), ["image", "pose"])
    except ValueError as error:
        raise LayoutError(path, str(error)) from error
    images, poses = arrays["image"], arrays["pose"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise LayoutError(path, f"`image` must be (n, h, w, 3) uint8, not {images.shape} {images.dtype}")
    if poses.shape != (len(images), 3):
        raise LayoutError(path, f"`pose` must have the shape {(len(images), 3)}, as many as images, not {poses.shape}")
    return images, poses


def _read_calibration(root: Path, path: Path) -> list[list[float]] | None:
    """Read the calibration of the colour camera; None if the file does not exist.

    Returns:
        Lines of numbers: intrinsics in px (3 lines), distortion (1 line, all 0 in this collection), rotation (3 lines)
        and translation in mm (1 line) from the depth camera, and the size of the image.
    """
    if not path.exists():
        return None
    try:
        lines = _read_number_lines(check_inside(root, path))
        if [len(line) for line in lines[:3] + lines[4:8]] != [3] * 7:
            raise ValueError("must have lines of intrinsics (3), distortion, rotation (3), translation and image size")
    except ValueError as error:
        reason = f"{getattr(error, 'reason', error)}. Download it again, or delete it to go without boxes."
        raise LayoutError(path, reason) from error
    return lines


def _project_head_box(calibration: list[list[float]], centre_mm: np.ndarray) -> Box:
    """Project a square of `HEAD_MM` around a point in the frame of the depth camera to the colour image."""
    intrinsics, rotation, translation = map(np.array, (calibration[:3], calibration[4:7], calibration[7]))
    point_mm = rotation @ centre_mm + translation  # In the frame of the colour camera.
    if point_mm[2] <= 0:
        raise ValueError(f"the head's centre {centre_mm.tolist()} lies behind the camera")
    x, y = ((intrinsics @ point_mm)[:2] / point_mm[2]).tolist()
    half = (HEAD_MM * intrinsics[0, 0] / point_mm[2] / 2).item()
    return x - half, y - half, x + half, y + half


def _read_number_lines(path: Path) -> list[list[float]]:
    """Read the numbers of each line that is not blank. They must be finite."""
    lines = [[float(word) for word in line.split()] for _, line in read_lines(path)]
    if not all(math.isfinite(number) for line in lines for number in line):
        raise ValueError("has a number that is not finite")
    return lines


def _find_biwi_recordings(root: Path) -> list[Path]:
    """Find the numbered folders with frames, in the root or one level below, each number once."""
    recordings = {}
    for parent in (root, *find_folders(root)):
        for folder in find_folders(parent):
            if re.fullmatch(r"[0-9]{2}", folder.name) and folder.name not in recordings and _find_biwi_frames(folder):
                recordings[folder.name] = folder
    return [recordings[name] for name in sorted(recordings)]


def _find_biwi_frames(folder: Path) -> list[Path]:
    """List the colour frames of a recording."""
    frames = [path for path in find_images(folder) if re.fullmatch(r"frame_[0-9]+_rgb", get_base_name(path))]
    index_once(frames)
    return frames


def _read_biwi_row(download: Download, calibration: list[list[float]] | None, image: Path) -> Row:
    """Read the pose of a frame."""
    pose = image.with_name(get_base_name(image).replace("_rgb", "_pose.txt"))
    lines = _read_number_lines(check_inside(download.root, pose))
    if [len(line) for line in lines] != [3] * 4:
        raise ValueError(f"`{pose.name}` must have 4 lines of 3 numbers: a rotation and the head's centre")
    frame = image.name.split("_")[1]
    if len(frame) > 18:  # The number would not fit into an int64.
        raise ValueError("the number of the frame has more than 18 digits")
    rotation, centre_mm = np.array(lines[:3]), np.array(lines[3])
    # The rotation's axes are right, down and away; those of `angles_of` are left, up and away.
    angles = make_angle_labels(*angles_of(TO_HEAD_AXES @ rotation @ TO_HEAD_AXES))
    recording = image.parent.name
    labels = {"subject": recording, "video": recording, "frame": int(frame), **angles}
    return Row(download.make_photo(image, calibration and _project_head_box(calibration, centre_mm)), labels)
