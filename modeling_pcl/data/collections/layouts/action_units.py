"""Layouts of video frames with action units that FACS experts coded."""

import re
from pathlib import Path

from ...image_folders import natural_sort_key
from ...schema import INTENSITY, PRESENCE, get_features
from .base import Collection, Download, LayoutError, Row, find_folders, find_images, index_once, read_lines
from .folders import parse_frame_numbers

DISFA_UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
DISFA_SUBJECT = re.compile(r"SN\d{3}")
BP4D_UNITS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)  # The action units that the literature evaluates.
BP4D_TABLE = re.compile(r"[FM]\d{3}_T\d+\.csv")
BP4D_CODES = {0: 0, 1: 1, 9: None}


def read_disfa(root: Path) -> Collection:
    """Read DISFA: 27 people who watch a video, with the intensities of twelve action units in every frame.

        ROOT/ActionUnit_Labels/SN001/SN001_au1.txt    frame,intensity
        ROOT/Images/SN001/<frame>.jpg                 extracted from the videos of the left camera

    The folder of images may also be called `images`, `Frames` or `Image`, and the folder of a subject may have any name
    that contains SN001, such as LeftVideoSN001_comp. The number of a frame is the number that differs between names
    (`parse_frame_numbers`); the first frame is 1, as in the label files. Intensities are from 0 to 5, and null if they
    are missing or invalid. All rows are in train, because the folds of the literature are folds of subjects.

    Raises:
        LayoutError: If no subject has both labels and images, a label file is missing or most of its lines are invalid,
            a subject has two folders of images or two images of one frame, or frames are numbered from 0.
    """
    download = Download(root)
    label_folders = _index_subjects(download.find("ActionUnit_Labels"))
    image_folders = _index_subjects(download.find("Images", "images", "Frames", "Image"))
    without_images, without_labels = label_folders.keys() - image_folders, image_folders.keys() - label_folders
    broken = [(download.get_name(label_folders[subject]), "no images of this subject") for subject in without_images]
    broken += [(download.get_name(image_folders[subject]), "no labels of this subject") for subject in without_labels]
    download.broken += sorted(broken)
    rows = []
    for subject in sorted(label_folders.keys() & image_folders):
        rows += _read_disfa_rows(download, subject, label_folders[subject], image_folders[subject])
    if not rows:
        raise LayoutError(root, "there is no image of a frame that has labels: extract the frames of the videos.")
    features = get_features("subject", "frame") | {f"AU{unit}": INTENSITY for unit in DISFA_UNITS}
    return Collection(features, {"train": rows}, broken=download.broken)


def _index_subjects(folder: Path) -> dict[str, Path]:
    """Index the folders of subjects by subject."""
    folders = [inner for inner in find_folders(folder) if DISFA_SUBJECT.search(inner.name)]
    return index_once(folders, lambda inner: DISFA_SUBJECT.search(inner.name)[0], "folder of ")


def _parse_intensity(line: str) -> tuple[int, int]:
    """Parse the frame and the intensity of a line."""
    try:
        frame, intensity = map(int, line.split(","))
    except ValueError:
        raise ValueError(f"must be `frame,intensity`, is `{line}`") from None
    if not 0 <= intensity <= 5:
        raise ValueError(f"the intensity {intensity} of frame {frame} is not in 0..5")
    return frame, intensity


def _read_disfa_rows(download: Download, subject: str, labels: Path, pictures: Path) -> list[Row]:
    """Read the rows of one subject from its folders of labels and of images."""
    intensities = {}
    for unit in DISFA_UNITS:
        path = download.find(download.get_name(labels / f"{subject}_au{unit}.txt"))
        intensities[f"AU{unit}"] = dict(download.read_lines(path, _parse_intensity))
    frames = parse_frame_numbers(find_images(pictures))

    def read(path: Path) -> Row:
        units = {name: values.get(frames[path]) for name, values in intensities.items()}
        if all(value is None for value in units.values()):
            raise ValueError("no number of a frame" if frames[path] is None else "no labels")
        return Row(download.make_photo(path), {"subject": subject, "frame": frames[path], **units})

    for path, frame in frames.items():
        if frame == 0:
            raise LayoutError(path, "is frame 0, but DISFA's labels count from 1: number the frames from 1.")
    return download.read_images(frames, read)


def read_bp4d(root: Path) -> Collection:
    """Read BP4D: 41 people in eight tasks, with the occurrence of action units in about 20 s of each sequence.

        ROOT/AUCoding/AU_OCC/F001_T1.csv              0,1,2,...,99 then frame,code,code,...
        ROOT/2D+3D/F001/T1/<frame>.jpg

    The csv files may also lie in ROOT, or one or two folders below. The images may lie in ROOT/F001/T1/, or in any
    folder instead of `2D+3D`. The number of a frame is the number that differs between names (`parse_frame_numbers`).
    Code 0 is absent, 1 is present, and 9 (not coded) becomes null. Other codes also become null, and are counted as
    broken. The columns are the twelve action units that the literature evaluates. Frames that are not coded are left
    out; coded frames without an image are counted as broken.

    Raises:
        LayoutError: If there is no csv file, a csv file lacks an action unit or most of its lines are invalid, two csv
            files belong to one sequence, a sequence has two folders of images or two images of one frame, or no coded
            frame has an image.
    """
    rows: list[Row] = []
    download = Download(root)
    bases = [root, *find_folders(root)]
    for path in _find_tables(download):
        subject, task = path.stem.split("_")
        coded = _read_codes(download, path)
        images = _find_frames([base / subject / task for base in bases])
        names = {"subject": subject, "video": task}
        rows += [
            Row(download.make_photo(images[frame]), {**names, "frame": frame, **units})
            for frame, units in coded.items()
            if frame in images
        ]
        missing = len(coded.keys() - images)
        if missing:
            download.broken.append((path.name, f"{missing} of {len(coded)} coded frames have no image"))
    if not rows:
        raise LayoutError(root, "no coded frame has an image: the images of F001_T1.csv belong in 2D+3D/F001/T1/.")
    features = get_features("subject", "video", "frame") | {f"AU{unit}": PRESENCE for unit in BP4D_UNITS}
    return Collection(features, {"train": rows}, broken=download.broken)


def _find_tables(download: Download) -> list[Path]:
    """List the csv files of codes, sorted by subject and number of the task."""
    paths = sorted(path for pattern in ("*.csv", "*/*.csv", "*/*/*.csv") for path in download.root.glob(pattern))
    tables = index_once((path for path in paths if BP4D_TABLE.fullmatch(path.name)), lambda path: path.stem, "file of ")
    if not tables:
        raise LayoutError(download.root, "there is no file of codes like AUCoding/AU_OCC/F001_T1.csv in it.")
    return [download.find(download.get_name(path)) for path in sorted(tables.values(), key=natural_sort_key)]


def _read_codes(download: Download, path: Path) -> dict[int, dict[str, int | None]]:
    """Read the codes of a csv file, by frame and column."""
    (header_line, header), *lines = list(read_lines(path)) or [(1, "")]
    names = [cell.strip() for cell in header.split(",")][1:]
    missing = [str(unit) for unit in BP4D_UNITS if str(unit) not in names]
    if missing:
        raise LayoutError(path, f"the header lacks the action units {', '.join(missing)}.", header_line)
    cell_of_unit = {f"AU{unit}": names.index(str(unit)) + 1 for unit in BP4D_UNITS}

    unknown_codes = []  # Name of the line, and reason.

    def read(numbered_line: tuple[int, str]) -> tuple[int, dict[str, int | None]]:
        number, line = numbered_line
        cells = line.split(",")
        try:
            frame, codes = int(cells[0]), {name: int(cells[cell]) for name, cell in cell_of_unit.items()}
        except (ValueError, IndexError):
            raise ValueError(f"must be a frame and {len(names)} codes, each 0, 1 or 9, is `{line}`") from None
        unknown = [f"{code} of {name}" for name, code in codes.items() if code not in BP4D_CODES]
        if unknown:  # The frame keeps its other codes.
            reason = f"frame {frame} has codes that are not 0, 1 or 9: {', '.join(unknown)}"
            unknown_codes.append((f"{path.name}:{number}", reason))
        return frame, {name: BP4D_CODES.get(code) for name, code in codes.items()}

    coded = dict(download.read_lines(path, read, [(number, (number, line)) for number, line in lines]))
    if 2 * len(unknown_codes) > len(lines):
        count = f"{len(unknown_codes)} of {len(lines)}"
        raise LayoutError(path, f"{count} lines have other codes. The first, {': '.join(unknown_codes[0])}.")
    download.broken += unknown_codes
    return coded


def _find_frames(folders: list[Path]) -> dict[int | None, Path]:
    """Index the images of a sequence by frame. Only one of the folders may have images."""
    matches = [(folder, images) for folder in folders if folder.is_dir() and (images := find_images(folder))]
    if len(matches) > 1:
        raise LayoutError(matches[1][0], f"holds images of this sequence, and so does `{matches[0][0]}`: keep one.")
    return {frame: path for path, frame in parse_frame_numbers(matches[0][1]).items()} if matches else {}
