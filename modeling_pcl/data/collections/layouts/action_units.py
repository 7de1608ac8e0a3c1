"""Video frames with action units coded by FACS experts."""

import re
from collections.abc import Iterator
from pathlib import Path

from ...schema import INTENSITY, PRESENCE, columns
from .base import Collection, LayoutError, Row, find_folders, find_images, photo, read_lines, require
from .expression import broken_lines
from .folders import frame_numbers

# Terms of use, by layout. The owners' pages hold; these lines say where to look.
TERMS = {
    "bp4d": "for research, under a licence of Binghamton University",
    "disfa": "for research, under an agreement with its authors",
}

Codes = dict[int, int | None]  # By frame, or by action unit.

DISFA_UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
DISFA_SUBJECT = re.compile(r"SN\d{3}")
BP4D_UNITS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)  # Those that the literature evaluates.
BP4D_TABLE = re.compile(r"([FM]\d{3})_(T\d+)\.csv")
BP4D_SUBJECT = re.compile(r"[FM]\d{3}")


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
    labelled = _by_subject(require(root, "ActionUnit_Labels"))
    pictured = _by_subject(require(root, "Images", "images", "Frames", "Image"))
    broken = [(_name(root, labelled[subject]), "no images of this subject") for subject in labelled.keys() - pictured]
    broken += [(_name(root, pictured[subject]), "no labels of this subject") for subject in pictured.keys() - labelled]
    broken.sort()
    rows = []
    for subject in sorted(labelled.keys() & pictured):
        intensities, bad = _read_subject(labelled[subject], subject)
        broken += bad
        rows += _disfa_rows(root, pictured[subject], subject, intensities, broken)
    if not rows:
        raise LayoutError(root, "there is no image of a frame that has labels: extract the frames of the videos.")
    features = columns("subject", "frame") | {f"AU{unit}": INTENSITY for unit in DISFA_UNITS}
    return Collection(features, {"train": rows}, broken=broken)


def _by_subject(folder: Path) -> dict[str, Path]:
    matches: dict[str, Path] = {}
    for inner in find_folders(folder):
        match = DISFA_SUBJECT.search(inner.name)
        if match and match[0] in matches:
            raise LayoutError(inner, f"is a second folder of {match[0]}, beside `{matches[match[0]].name}`: keep one.")
        if match:
            matches[match[0]] = inner
    return matches


def _read_subject(folder: Path, subject: str) -> tuple[dict[int, Codes], list[tuple[str, str]]]:
    """Intensities by action unit and frame, and bad lines."""
    intensities, broken = {}, []
    for unit in DISFA_UNITS:
        path = require(folder, f"{subject}_au{unit}.txt")
        intensities[unit], bad = _read_intensities(path)
        broken += bad
    return intensities, broken


def _read_intensities(path: Path) -> tuple[Codes, list[tuple[str, str]]]:
    values: Codes = {}
    bad = []
    lines = list(read_lines(path))
    for line, text in lines:
        try:
            frame, intensity = map(int, text.split(","))
        except ValueError:
            bad.append((line, f"must be `frame,intensity`, is `{text}`"))
            continue
        if not 0 <= intensity <= 5:
            bad.append((line, f"the intensity {intensity} of frame {frame} is not in 0..5"))
        values[frame] = intensity if 0 <= intensity <= 5 else None
    return values, broken_lines(path, bad, len(lines))


def _disfa_rows(
    root: Path, folder: Path, subject: str, intensities: dict[int, Codes], broken: list[tuple[str, str]]
) -> Iterator[Row]:
    for path, frame in frame_numbers(find_images(folder)).items():
        if frame == 0:
            raise LayoutError(path, "is frame 0, but DISFA's labels count from 1: number the frames from 1.")
        units = {f"AU{unit}": values.get(frame) for unit, values in intensities.items()}
        if all(value is None for value in units.values()):
            broken.append((_name(root, path), "no number of a frame" if frame is None else "no labels"))
        else:
            yield Row(photo(root, path), {"subject": subject, "frame": frame, **units})


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
    broken: list[tuple[str, str]] = []
    bases = [root, *find_folders(root)]
    for (subject, task), path in _find_tables(root).items():
        coded, bad = _read_codes(path)
        images = _find_frames([base / subject / task for base in bases])
        names = {"subject": subject, "video": task}
        rows += [
            Row(photo(root, images[frame]), {**names, "frame": frame, **units})
            for frame, units in coded.items()
            if frame in images
        ]
        missing = len(coded.keys() - images)
        broken += bad
        if missing:
            broken.append((path.name, f"{missing} of {len(coded)} coded frames have no image"))
    if not rows:
        raise LayoutError(root, "no coded frame has an image: the images of F001_T1.csv belong into 2D+3D/F001/T1/.")
    features = columns("subject", "video", "frame") | {f"AU{unit}": PRESENCE for unit in BP4D_UNITS}
    return Collection(features, {"train": rows}, broken=broken)


def _find_tables(root: Path) -> dict[tuple[str, str], Path]:
    """Files of codes by subject and task, in order."""
    tables: dict[tuple[str, str], Path] = {}
    for path in sorted(path for pattern in ("*.csv", "*/*.csv", "*/*/*.csv") for path in root.glob(pattern)):
        match = BP4D_TABLE.fullmatch(path.name)
        if match and match.groups() in tables:
            raise LayoutError(path, f"is a second file of this sequence, beside `{tables[match.groups()]}`: keep one.")
        if match:
            tables[match.groups()] = require(root, _name(root, path))
    if not tables:
        raise LayoutError(root, "there is no file of codes like AUCoding/AU_OCC/F001_T1.csv in it.")
    return {key: tables[key] for key in sorted(tables, key=lambda key: (key[0], int(key[1][1:])))}


def _read_codes(path: Path) -> tuple[dict[int, dict[str, int | None]], list[tuple[str, str]]]:
    """Codes by frame and column, and bad lines."""
    (header_line, header), *lines = list(read_lines(path)) or [(1, "")]
    names = [cell.strip() for cell in header.split(",")][1:]
    missing = [str(unit) for unit in BP4D_UNITS if str(unit) not in names]
    if missing:
        raise LayoutError(path, f"the header lacks the action units {', '.join(missing)}.", header_line)
    places = {f"AU{unit}": names.index(str(unit)) + 1 for unit in BP4D_UNITS}
    coded, bad = {}, []
    for line, text in lines:
        cells = text.split(",")
        try:
            frame, codes = int(cells[0]), {name: int(cells[place]) for name, place in places.items()}
        except (ValueError, IndexError):
            bad.append((line, f"must be a frame and {len(names)} codes"))
            continue
        unknown = [f"{code} of {name}" for name, code in codes.items() if code not in (0, 1, 9)]
        if unknown:
            bad.append((line, f"frame {frame} has codes that are not 0, 1 or 9: {', '.join(unknown)}"))
        coded[frame] = {name: code if code in (0, 1) else None for name, code in codes.items()}
    return coded, broken_lines(path, bad, len(lines))


def _find_frames(folders: list[Path]) -> dict[int | None, Path]:
    """Images by frame, of the one of `folders` that has any."""
    matches = [(folder, images) for folder in folders if folder.is_dir() and (images := find_images(folder))]
    if len(matches) > 1:
        raise LayoutError(matches[1][0], f"holds images of this sequence, and so does `{matches[0][0]}`: keep one.")
    return {frame: path for path, frame in frame_numbers(matches[0][1]).items()} if matches else {}


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
