"""GENKI-4K, whose labels are lines without the names of their images."""

import math
import re
from pathlib import Path

from .base import Collection, LayoutError, Row, base_name, find_images, index_images, photo, read_lines, require
from .pose import angle_labels, pose_collection

# Terms of use, by layout. The owners' pages hold; these lines say where to look.
TERMS = {
    "genki4k": "The MPLab GENKI Database, GENKI-4K subset; images from the web, for research",
}


def read_genki4k(root: Path) -> Collection:
    """GENKI-4K: 4000 photos of faces from the web, smiling or not, with head pose.

        labels.txt
        files/file0001.jpg  ...

    Line N of `labels.txt` is `smile yaw pitch roll` of image N: 1 or 0, and radians with the signs of this package. The
    angles are kept as the collection has them. Its roll is the slope of the eyes in the image, so its turns come in
    another order than this package's: where a head is turned in several ways at once, one angle differs by 10 degrees
    or more in the extreme, by more than 5 in one image of 14.
    """
    path, folder = require(root, "labels.txt"), require(root, "files")
    lines, images = dict(read_lines(path)), find_images(folder)
    last = max(lines, default=0)
    numbered = index_images((image for image in images if _genki_number(image)), _genki_number)
    rows, bad = [], {}
    for number in range(1, last + 1):  # A blank line is its image's, and no shift.
        try:
            labels = _genki_labels(lines.get(number, ""))
        except ValueError as error:
            bad[number] = str(error)
        else:
            rows.append(Row(photo(root, numbered.get(number, folder / f"file{number:04d}.jpg")), labels))
    if 2 * len(bad) > len(rows) + len(bad):
        first = min(bad)
        raise LayoutError(path, f"{bad[first]}, as are {len(bad)} lines. Is this the file of GENKI-4K?", first)
    unlabelled = next((image for number, image in numbered.items() if number > last), None)
    if unlabelled is not None:
        raise LayoutError(
            path,
            f"has {last} lines, and there is an image `{unlabelled.name}`: a line is missing, and all behind it belong "
            "to other images. Download it again.",
        )
    broken = [(f"{path.name}:{number}", reason) for number, reason in bad.items()]
    misnamed = (image.name for image in images if not _genki_number(image))
    broken += [
        (f"{folder.name}/{name}", "is not named `fileNNNN.jpg` after a line of `labels.txt`") for name in misnamed
    ]
    return pose_collection(root, "a line of labels", {"train": rows}, broken, "smile")


def _genki_labels(line: str) -> dict[str, float]:
    fields = line.split()
    if len(fields) != 4:
        raise ValueError(f"must be `smile yaw pitch roll`, and has {len(fields)} fields")
    if fields[0] not in ("0", "1"):
        raise ValueError(f"the smile must be 0 or 1, not `{fields[0]}`")
    return {"smile": int(fields[0]), **angle_labels(*(math.degrees(float(field)) for field in fields[1:]))}


def _genki_number(image: Path) -> int | None:
    """Line of an image of GENKI-4K, None if its name has none."""
    number = re.fullmatch(r"file([0-9]{4,18})", base_name(image))
    return int(number[1]) if number and int(number[1]) else None
