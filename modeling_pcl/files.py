"""Files that are written whole or not at all."""

import json
import os
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
