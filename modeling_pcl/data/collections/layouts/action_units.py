"""Video frames with action units coded by FACS experts."""

import re
from pathlib import Path

from ...image_folders import natural_sort_key
from ...schema import INTENSITY, PRESENCE, get_features
from .base import Collection, Download, LayoutError, Row, find_folders, find_images, index_once, read_lines
from .folders import frame_numbers

DISFA_UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
DISFA_SUBJECT = re.compile(r"SN\d{3}")
BP4D_UNITS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)  # Those that the literature evaluates.
BP4D_TABLE = re.compile(r"[FM]\d{3}_T\d+\.csv")
BP4D_CODES = {"0": 0, "1": 1, "9": None}


def read_disfa(root: Path) -> Collection:
    """DISFA: 27 people who watch a video, every frame with the intensities of twelve action units.

        ROOT/ActionUnit_Labels/SN001/SN001_au1.txt    frame,intensity
        ROOT/Images/SN001/<frame>.jpg                 extracted from the videos of the left camera

    The images' folder may be `images`, `Frames` or `Image`, and a subject's folder anything with SN001 in its name, as
    LeftVideoSN001_comp. The number in an image's name that tells the images apart (`frame_numbers`) is its frame, and
    the first frame is 1, as in the label files. An intensity goes from 0 to 5; one that is missing or bad is null. The
    folds of the literature are made of subjects; all rows are in train.

    Raises:
        LayoutError: If no subject has both labels and images, a label file is missing or most of its lines are bad, a
            subject has two folders of images or two images of one frame, or frames are numbered from 0.
    """
    download = Download(root)
    labelled = _by_subject(download.require("ActionUnit_Labels"))
    pictured = _by_subject(download.require("Images", "images", "Frames", "Image"))
    broken = [(download.name(labelled[each]), "no images of this subject") for each in labelled.keys() - pictured]
    broken += [(download.name(pictured[each]), "no labels of this subject") for each in pictured.keys() - labelled]
    download.broken += sorted(broken)
    rows = []
    for subject in sorted(labelled.keys() & pictured):
        rows += _disfa_rows(download, subject, labelled[subject], pictured[subject])
    if not rows:
        raise LayoutError(root, "there is no image of a frame that has labels: extract the frames of the videos.")
    features = get_features("subject", "frame") | {f"AU{unit}": INTENSITY for unit in DISFA_UNITS}
    return Collection(features, {"train": rows}, broken=download.broken)


def _by_subject(folder: Path) -> dict[str, Path]:
    folders = [inner for inner in find_folders(folder) if DISFA_SUBJECT.search(inner.name)]
    return index_once(folders, lambda inner: DISFA_SUBJECT.search(inner.name)[0], "folder of ")


def _frame_and_intensity(line: str) -> tuple[int, int]:
    try:
        frame, intensity = map(int, line.split(","))
    except ValueError:
        raise ValueError(f"must be `frame,intensity`, is `{line}`") from None
    if not 0 <= intensity <= 5:
        raise ValueError(f"the intensity {intensity} of frame {frame} is not in 0..5")
    return frame, intensity


def _disfa_rows(download: Download, subject: str, labels: Path, pictures: Path) -> list[Row]:
    intensities = {}
    for unit in DISFA_UNITS:
        path = download.require(download.name(labels / f"{subject}_au{unit}.txt"))
        intensities[f"AU{unit}"] = dict(download.read_lines(path, _frame_and_intensity))
    frames = frame_numbers(find_images(pictures))

    def read(path: Path) -> Row:
        units = {name: values.get(frames[path]) for name, values in intensities.items()}
        if all(value is None for value in units.values()):
            raise ValueError("no number of a frame" if frames[path] is None else "no labels")
        return Row(download.photo(path), {"subject": subject, "frame": frames[path], **units})

    for path, frame in frames.items():
        if frame == 0:
            raise LayoutError(path, "is frame 0, but DISFA's labels count from 1: number the frames from 1.")
    return download.read_images(frames, read)


def read_bp4d(root: Path) -> Collection:
    """BP4D: 41 people at eight tasks, with the occurrence of action units in about 20 s of each sequence.

        ROOT/AUCoding/AU_OCC/F001_T1.csv              0,1,2,...,99 then frame,code,code,...
        ROOT/2D+3D/F001/T1/<frame>.jpg

    The csv files may lie in ROOT, or one or two folders below. The images may lie in ROOT/F001/T1/, or in any folder
    instead of `2D+3D`; the number in a name that tells the images apart (`frame_numbers`) is the frame. Of the codes, 0
    is absent, 1 present and 9 not coded, which becomes null. The columns are the twelve action units that are usually
    evaluated. An image of a frame that is not coded is no row; coded frames without an image are counted among the
    broken ones.

    Raises:
        LayoutError: If there is no csv file, one lacks an action unit or is mostly bad, two are of one sequence, a
            sequence has two folders of images or two images of one frame, or no coded frame has an image.
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
            Row(download.photo(images[frame]), {**names, "frame": frame, **units})
            for frame, units in coded.items()
            if frame in images
        ]
        missing = len(coded.keys() - images)
        if missing:
            download.broken.append((path.name, f"{missing} of {len(coded)} coded frames have no image"))
    if not rows:
        raise LayoutError(root, "no coded frame has an image: the images of F001_T1.csv belong into 2D+3D/F001/T1/.")
    features = get_features("subject", "video", "frame") | {f"AU{unit}": PRESENCE for unit in BP4D_UNITS}
    return Collection(features, {"train": rows}, broken=download.broken)


def _find_tables(download: Download) -> list[Path]:
    """Files of codes by subject and number of the task."""
    paths = sorted(path for pattern in ("*.csv", "*/*.csv", "*/*/*.csv") for path in download.root.glob(pattern))
    tables = index_once((path for path in paths if BP4D_TABLE.fullmatch(path.name)), lambda path: path.stem, "file of ")
    if not tables:
        raise LayoutError(download.root, "there is no file of codes like AUCoding/AU_OCC/F001_T1.csv in it.")
    return [download.require(download.name(path)) for path in sorted(tables.values(), key=natural_sort_key)]


def _read_codes(download: Download, path: Path) -> dict[int, dict[str, int | None]]:
    """Codes by frame and column."""
    (header_line, header), *lines = list(read_lines(path)) or [(1, "")]
    names = [cell.strip() for cell in header.split(",")][1:]
    missing = [str(unit) for unit in BP4D_UNITS if str(unit) not in names]
    if missing:
        raise LayoutError(path, f"the header lacks the action units {', '.join(missing)}.", header_line)
    places = {f"AU{unit}": names.index(str(unit)) + 1 for unit in BP4D_UNITS}

    def read(line: str) -> tuple[int, dict[str, int | None]]:
        cells = line.split(",")
        try:
            return int(cells[0]), {name: BP4D_CODES[cells[place].strip()] for name, place in places.items()}
        except (ValueError, IndexError, KeyError):
            raise ValueError(f"must be a frame and {len(names)} codes, each 0, 1 or 9, is `{line}`") from None

    return dict(download.read_lines(path, read, lines))


def _find_frames(folders: list[Path]) -> dict[int | None, Path]:
    """Images by frame, of the one of `folders` that has any."""
    matches = [(folder, images) for folder in folders if folder.is_dir() and (images := find_images(folder))]
    if len(matches) > 1:
        raise LayoutError(matches[1][0], f"holds images of this sequence, and so does `{matches[0][0]}`: keep one.")
    return {frame: path for path, frame in frame_numbers(matches[0][1]).items()} if matches else {}
