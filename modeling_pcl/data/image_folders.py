"""A folder of images as a corpus: every image in it, whatever its name."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict
from PIL import Image

from ..images_pcl import FORMATS

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
NAMED = 3  # So many of what is left out.


@dataclass
class FolderContent:
    """What lies in a folder and below, hidden files and folders aside. Names are relative to it, with `/`.

    Args:
        images: In the order of `by_number`: frame 2 before frame 10.
        metadata: Tables with a line for each image.
        links: Links to folders, which are not followed.
        others: All other files.
    """

    images: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def report_others(self, root: Path):
        """Say in the log how many files are no images, and name the first."""
        others = [name for name in self.others if PurePosixPath(name).name != "README.md"]
        for kind, names in {"are no images": others, "are links to folders": self.links}.items():
            if names:
                examples = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
                logger.warning("%d files in %s %s and are left out: %s", len(names), root, kind, examples)


def list_folder(root: Path) -> FolderContent:
    """Sort the files of a folder and all below it into images and others."""
    content = FolderContent()
    for entry in _walk(root):
        name = Path(entry.path).relative_to(root).as_posix()
        if entry.is_symlink() and os.path.isdir(entry.path):  # False of a link in a loop.
            content.links.append(name)
        elif entry.name in METADATA:
            content.metadata.append(name)
        else:
            (content.images if is_image(Path(entry.path)) else content.others).append(name)
    return content


def is_image(path: Path) -> bool:
    """Whether the suffix of a file is one of an image, or it has none and is an image."""
    if path.suffix:
        return path.suffix.lower() in IMAGE_SUFFIXES
    if not path.is_file():
        return False
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:  # Whatever a decoder stumbles on, it is no image.
        return False


def by_number(path: Path | os.DirEntry) -> list:
    """Sort key by which `frame2.jpg` comes before `frame10.jpg`."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)] + [path.name]


def open_image_folder(root: Path) -> DatasetDict | None:
    """The images of a folder, by split.

    Its folders are splits where all of them that hold images are named like one (train, val, test, ...), and no image
    lies beside them; else there is the split `train`. Columns are `image`, and those of `metadata.csv`, `.jsonl` or
    `.parquet`, whose column `file_name` is a path from its own folder and chooses the images; without such a table
    `label`, the name of the folder, where all images lie equally deep in several folders.

    Returns:
        None if the folder holds no image, or is rather one of parquet files.

    Raises:
        ValueError: If a table has no column `file_name`.
    """
    root = root.absolute()
    content = list_folder(root)
    tables = sum(name.endswith(".parquet") for name in content.others)
    if len(content.images) <= tables:
        return None
    content.report_others(root)
    images = sorted(content.images)
    firsts = {name.partition("/")[0].lower() if "/" in name else "" for name in images}
    has_splits = firsts <= SPLITS.keys()
    rows = _metadata_rows(root, content) if content.metadata else _labelled(images, has_splits)
    splits = defaultdict(list)
    for row in rows:
        split = SPLITS.get(row["image"].partition("/")[0].lower(), "train") if has_splits else "train"
        splits[split].append(row | {"image": str(root / row["image"])})
    named = {split: pd.DataFrame(rows) for split, rows in splits.items()}
    corpora = DatasetDict({split: Dataset.from_pandas(table, preserve_index=False) for split, table in named.items()})
    labels = sorted({row["label"] for row in rows if "label" in row}) if not content.metadata else []
    return corpora.cast_column("label", ClassLabel(names=labels)) if labels else corpora


def _labelled(images: list[str], has_splits: bool) -> list[dict]:
    folders = [name.split("/")[1 if has_splits else 0 : -1] for name in images]
    labels = {parents[-1] for parents in folders if parents}
    is_labelled = len(labels) > 1 and len({len(parents) for parents in folders}) == 1
    return [{"image": name} | ({"label": parents[-1]} if is_labelled else {}) for name, parents in zip(images, folders)]


def _metadata_rows(root: Path, content: FolderContent) -> list[dict]:
    readers = {".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True), ".parquet": pd.read_parquet}
    rows = []
    for name in content.metadata:
        table = readers[PurePosixPath(name).suffix](root / name)
        if "file_name" not in table:
            raise ValueError(f"{root / name} needs a column `file_name`; it has {', '.join(map(str, table))}.")
        folder = PurePosixPath(name).parent
        table.insert(0, "image", [str(folder / str(file)) for file in table.pop("file_name")])
        rows += table.to_dict("records")
    unnamed = len(set(content.images) - {row["image"] for row in rows})
    if unnamed:
        logger.warning("%d images in %s have no line in %s", unnamed, root, ", ".join(content.metadata))
    return rows


def _walk(folder: Path | str) -> Iterator[os.DirEntry]:
    """Files, and links to folders, without a question to the disk for each: `scandir` knows what is a folder."""
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=by_number)
    for entry in visible:
        if not entry.is_dir(follow_symlinks=False):
            yield entry
        elif not entry.name.startswith("__"):  # `__MACOSX` and `__pycache__`.
            yield from _walk(entry.path)
