"""Atomic writing of files, one-line errors for files that cannot be opened, and folder locks."""

import hashlib
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends without an error.

    Readers never see a file that is only partly written.

    Args:
        path: The file; its folder is created if it does not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name holds the process id, because a second run or a left-over worker may write the same file.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)  # After an error, a partial file must not use up a full disk.


def write_json(path: Path, record: Mapping):
    """Write a record as indented JSON."""
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(record, indent=2) + "\n")


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):  # Python 3.10 has no hashlib.file_digest.
            digest.update(part)
    return digest.hexdigest()


@contextmanager
def report_open_errors(name: str) -> Iterator[None]:
    """Turn any error that the block raises while it opens a file into a `ValueError` of one line.

    Libraries raise errors of every class for broken files: KeyError, TypeError, RuntimeError, those of pickle and
    safetensors.

    Args:
        name: Name of the file or folder in the error message.

    Raises:
        ValueError: If the block raises an exception.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__  # Messages of transformers have several lines.
        if isinstance(error, pickle.UnpicklingError):  # torch's message advises to load the file unsafely.
            reason = "it is pickled and holds more than tensors; code in it is not run"
        raise ValueError(f"{name} does not open: {reason}") from error


@contextmanager
def only_process(folder: Path, option: str = "--output_dir") -> Iterator[None]:
    """Lock a folder for this process while the block runs. The kernel releases the lock however the process ends.

    Args:
        folder: The folder, created if it does not exist. It gets a file `.lock`.
        option: Command-line option that names the folder, for the error message.

    Raises:
        ValueError: If another process holds the lock.
    """
    from filelock import FileLock, Timeout  # Not at the top: only training and probes need this package.

    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"Another process is writing to `{option}` {folder}.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def use_scratch_folder(path: Path) -> Iterator[Path]:
    """Create an empty folder for temporary files, make it Python's temporary folder, and remove it after the block.

    The folder lies beside the results and not in the system's temporary folder, so that the next run of the same
    command removes what a killed process left in it.
    """
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    previous, tempfile.tempdir = tempfile.tempdir, str(path)
    try:
        yield path
    finally:
        tempfile.tempdir = previous
        shutil.rmtree(path, ignore_errors=True)
