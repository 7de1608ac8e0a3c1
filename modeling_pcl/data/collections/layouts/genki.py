"""GENKI-4K, whose labels are lines without the names of their images."""

import math
import re
from pathlib import Path

from .base import Collection, Download, LayoutError, Row, base_name, find_images, index_once, read_lines
from .pose import angle_labels, pose_collection


def read_genki4k(root: Path) -> Collection:
    """GENKI-4K: 4000 photos of faces from the web, smiling or not, with head pose.

        labels.txt
        files/file0001.jpg  ...

    Line N of `labels.txt` is `smile yaw pitch roll` of image N: 1 or 0, and radians with the signs of this package. The
    angles are kept as the collection has them. Its roll is the slope of the eyes in the image, so its turns come in
    another order than this package's: where a head is turned in several ways at once, one angle differs by 10 degrees
    or more in the extreme, by more than 5 in one image of 14.
    """
    download = Download(root)
    path, folder = download.require("labels.txt"), download.require("files")
    lines, images = dict(read_lines(path)), find_images(folder)
    last = max(lines, default=0)
    numbered = index_once((image for image in images if _line_of(image)), _line_of)

    def read(number: int) -> Row:
        image = numbered.get(number, folder / f"file{number:04d}.jpg")
        return Row(download.photo(image), _genki_labels(lines.get(number, "")))

    # A blank line is its image's, and no shift.
    rows = download.read_lines(path, read, ((number, number) for number in range(1, last + 1)))
    surplus = next((image for number, image in numbered.items() if number > last), None)
    if surplus is not None:
        raise LayoutError(
            path,
            f"has {last} lines, and there is an image `{surplus.name}`: a line is missing, and all behind it belong "
            "to other images. Download it again.",
        )
    reason = "is not named `fileNNNN.jpg` after a line of `labels.txt`"
    download.broken += [(download.name(image), reason) for image in images if not _line_of(image)]
    return pose_collection(download, "a line of labels", {"train": rows}, "smile")


def _genki_labels(line: str) -> dict[str, float]:
    fields = line.split()
    if len(fields) != 4:
        raise ValueError(f"must be `smile yaw pitch roll`, and has {len(fields)} fields")
    if fields[0] not in ("0", "1"):
        raise ValueError(f"the smile must be 0 or 1, not `{fields[0]}`")
    return {"smile": int(fields[0]), **angle_labels(*(math.degrees(float(field)) for field in fields[1:]))}


def _line_of(image: Path) -> int | None:
    """Line of an image, None if its name has none."""
    number = re.fullmatch(r"file([0-9]{4,18})", base_name(image))
    return int(number[1]) if number and int(number[1]) else None
