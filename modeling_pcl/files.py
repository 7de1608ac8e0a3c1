"""Files that are written whole or not at all, opened with one line about what is wrong, in folders of one process."""

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
    """Give a path to write to, which takes the place of `path` when the block ends without an error.

    Args:
        path: Its folder is made where there is none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of this process alone: a second run, or a worker of one that was killed, may be at the same file.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)  # On a full disk it would be in the way.


def write_json(path: Path, record: Mapping):
    """Write a record as indented JSON."""
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(record, indent=2) + "\n")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):  # hashlib.file_digest is not in Python 3.10.
            digest.update(part)
    return digest.hexdigest()


@contextmanager
def opening(what: str) -> Iterator[None]:
    """Turn whatever the block raises over a broken file into one line.

    Args:
        what: What is opened, as the error is to name it.

    Raises:
        ValueError: If the block raises anything: of a file that is cut short, of another format or of other types,
            libraries raise errors of every class (KeyError, TypeError, RuntimeError, those of pickle and safetensors).
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__  # transformers takes several lines.
        if isinstance(error, pickle.UnpicklingError):  # torch advises to run it all the same.
            reason = "it is pickled and holds more than tensors; code in it is not run"
        raise ValueError(f"{what} does not open: {reason}") from error


@contextmanager
def only_process(folder: Path, option: str = "--output_dir") -> Iterator[None]:
    """Hold a folder for this process alone while the block runs. The kernel lets go of it, however the process ends.

    Args:
        folder: Made where there is none; gets a file `.lock`.
        option: What names the folder on the command line.

    Raises:
        ValueError: If another process holds it.
    """
    from filelock import FileLock, Timeout  # Training and probes need it; what only opens models may lack it.

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
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder for temporary files of this process and of the libraries that it uses, removed with the block.

    It lies where results go and not in the system's folder: what a killed process leaves of it, the next one of the
    same command removes.
    """
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    before, tempfile.tempdir = tempfile.tempdir, str(path)
    try:
        yield path
    finally:
        tempfile.tempdir = before
        shutil.rmtree(path, ignore_errors=True)
