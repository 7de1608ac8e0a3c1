"""Open a folder of images as a corpus. All images in it are used, whatever their names are."""

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
MAX_EXAMPLES = 3  # Names of ignored files in a warning.


@dataclass
class FolderContent:
    """Names of the files in a folder and its subfolders, without hidden ones. Names are relative to it, with `/`.

    Args:
        images: Images in natural order: frame 2 comes before frame 10.
        metadata: Tables with one line per image.
        links: Links to folders. They are not followed.
        others: All other files.
    """

    images: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def log_ignored_files(self, root: Path):
        """Log how many files are not images, with the first names."""
        others = [name for name in self.others if PurePosixPath(name).name != "README.md"]
        for kind, names in {"are not images": others, "are links to folders": self.links}.items():
            if names:
                examples = ", ".join(names[:MAX_EXAMPLES]) + (", ..." if len(names) > MAX_EXAMPLES else "")
                logger.warning("%d files in %s %s and are ignored: %s", len(names), root, kind, examples)


def list_folder(root: Path) -> FolderContent:
    """List the files of a folder and its subfolders, by kind."""
    content = FolderContent()
    for entry in _walk(root):
        name = Path(entry.path).relative_to(root).as_posix()
        if entry.is_symlink() and os.path.isdir(entry.path):  # `isdir` is false for links that form a loop.
            content.links.append(name)
        elif entry.name in METADATA:
            content.metadata.append(name)
        else:
            (content.images if is_image(Path(entry.path)) else content.others).append(name)
    return content


def is_image(path: Path) -> bool:
    """Whether a file has the suffix of an image, or has no suffix and opens as an image."""
    if path.suffix:
        return path.suffix.lower() in IMAGE_SUFFIXES
    if not path.is_file():
        return False
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:  # Decoders raise errors of any class for files that are not images.
        return False


def natural_sort_key(path: Path | os.DirEntry) -> list:
    """Return a sort key that puts `frame2.jpg` before `frame10.jpg`."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)] + [path.name]


def open_image_folder(root: Path) -> DatasetDict | None:
    """Open a folder of images.

    Splits: if every subfolder with images has the name of a split (train, val, test, ...) and no image lies beside
    them, the subfolders are the splits. Otherwise all images are in `train`.

    Columns: `image`, and the columns of `metadata.csv`, `.jsonl` or `.parquet`, whose column `file_name` selects images
    by their path relative to the table. Without such a table there is a column `label` with the name of the folder, if
    the images lie in several folders that are equally deep.

    Returns:
        The datasets by split; None if the folder has no image, or not more images than parquet files.

    Raises:
        ValueError: If a table has no column `file_name`.
    """
    root = root.absolute()
    content = list_folder(root)
    parquet_files = sum(name.endswith(".parquet") for name in content.others)
    if len(content.images) <= parquet_files:
        return None
    content.log_ignored_files(root)
    images = sorted(content.images)
    top_folders = {name.partition("/")[0].lower() if "/" in name else "" for name in images}
    has_splits = top_folders <= SPLITS.keys()
    rows = _read_metadata_rows(root, content) if content.metadata else _label_by_folder(images, has_splits)
    splits = defaultdict(list)
    for row in rows:
        split = SPLITS.get(row["image"].partition("/")[0].lower(), "train") if has_splits else "train"
        splits[split].append(row | {"image": str(root / row["image"])})
    tables = {split: pd.DataFrame(rows) for split, rows in splits.items()}
    corpora = DatasetDict({split: Dataset.from_pandas(table, preserve_index=False) for split, table in tables.items()})
    labels = sorted({row["label"] for row in rows if "label" in row}) if not content.metadata else []
    return corpora.cast_column("label", ClassLabel(names=labels)) if labels else corpora


def _label_by_folder(images: list[str], has_splits: bool) -> list[dict]:
    folders = [name.split("/")[1 if has_splits else 0 : -1] for name in images]
    labels = {parents[-1] for parents in folders if parents}
    is_labelled = len(labels) > 1 and len({len(parents) for parents in folders}) == 1
    return [{"image": name} | ({"label": parents[-1]} if is_labelled else {}) for name, parents in zip(images, folders)]


def _read_metadata_rows(root: Path, content: FolderContent) -> list[dict]:
    readers = {".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True), ".parquet": pd.read_parquet}
    rows = []
    for name in content.metadata:
        table = readers[PurePosixPath(name).suffix](root / name)
        if "file_name" not in table:
            raise ValueError(f"{root / name} needs a column `file_name`; it has {', '.join(map(str, table))}.")
        folder = PurePosixPath(name).parent
        table.insert(0, "image", [str(folder / str(file)) for file in table.pop("file_name")])
        rows += table.to_dict("records")
    unlisted = len(set(content.images) - {row["image"] for row in rows})
    if unlisted:
        logger.warning("%d images in %s have no line in %s", unlisted, root, ", ".join(content.metadata))
    return rows


def _walk(folder: Path | str) -> Iterator[os.DirEntry]:
    """Iterate over files and links to folders. `scandir` tells files from folders without a disk access for each."""
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=natural_sort_key)
    for entry in visible:
        if not entry.is_dir(follow_symlinks=False):
            yield entry
        elif not entry.name.startswith("__"):  # `__MACOSX` and `__pycache__`.
            yield from _walk(entry.path)
