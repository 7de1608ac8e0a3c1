"""Layout of GENKI-4K, whose label file does not contain the names of the images."""

import math
import re
from pathlib import Path

from .base import Collection, Download, LayoutError, Row, find_images, get_base_name, index_once, read_lines
from .pose import make_angle_labels, make_pose_collection


def read_genki4k(root: Path) -> Collection:
    """Read GENKI-4K: 4000 photos of faces from the web, smiling or not, with head pose.

        labels.txt
        files/file0001.jpg  ...

    Line N of `labels.txt` is `smile yaw pitch roll` of image N. The smile is 1 or 0; angles are in radians, with the
    signs of this package. The angles are not converted. Because the roll of the collection is the slope of the eyes in
    the image, its rotations are applied in another order than in this package. For heads that are rotated about several
    axes, one angle differs by more than 5 degrees in one image of 14, and by 10 degrees or more in extreme cases.
    """
    download = Download(root)
    path, folder = download.find("labels.txt"), download.find("files")
    lines, images = dict(read_lines(path)), find_images(folder)
    last = max(lines, default=0)
    image_of_line = index_once((image for image in images if _parse_line_number(image)), _parse_line_number)

    def read(number: int) -> Row:
        image = image_of_line.get(number, folder / f"file{number:04d}.jpg")
        return Row(download.make_photo(image), _parse_labels(lines.get(number, "")))

    # Blank lines are read too: each belongs to the image of its number, and does not shift the others.
    rows = download.read_lines(path, read, ((number, number) for number in range(1, last + 1)))
    surplus = next((image for number, image in image_of_line.items() if number > last), None)
    if surplus is not None:
        raise LayoutError(
            path,
            f"has {last} lines, and there is an image `{surplus.name}`: a line is missing, and all lines after it "
            "belong to other images. Download it again.",
        )
    reason = "is not named `fileNNNN.jpg` after a line of `labels.txt`"
    download.broken += [(download.get_name(image), reason) for image in images if not _parse_line_number(image)]
    return make_pose_collection(download, "a line of labels", {"train": rows}, "smile")


def _parse_labels(line: str) -> dict[str, float]:
    """Parse the labels of a line."""
    fields = line.split()
    if len(fields) != 4:
        raise ValueError(f"must be `smile yaw pitch roll`, and has {len(fields)} fields")
    if fields[0] not in ("0", "1"):
        raise ValueError(f"the smile must be 0 or 1, not `{fields[0]}`")
    return {"smile": int(fields[0]), **make_angle_labels(*(math.degrees(float(field)) for field in fields[1:]))}


def _parse_line_number(image: Path) -> int | None:
    """Parse the number of the line of an image from its name; None if the name has no such number."""
    number = re.fullmatch(r"file([0-9]{4,18})", get_base_name(image))
    return int(number[1]) if number and int(number[1]) else None
