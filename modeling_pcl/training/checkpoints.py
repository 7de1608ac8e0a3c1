"""Checkpoints of a run, which are written atomically and hold hashes to detect damage.

    checkpoints/
      step-00000500/
        model/            model for `from_pretrained`: config, safetensors, code, image processor
        optimizer.pt      optimizer state by parameter name, learning-rate schedule, loss scaler
        process-0.pt      random states and loader position, one file per process
        state.json        step and options, the SHA-256 of every other file, and of itself without this entry

A checkpoint is written to a folder whose name begins with a dot, and renamed when it is complete, so that a process
killed at any time leaves the newest complete one. A file that is damaged later no longer matches its hash: `newest`
logs a warning and returns an older checkpoint. Weights and optimizer state are not sharded, even if they were in
training.
"""

import hashlib
import json
import logging
import math
import os
import re
import shutil
from pathlib import Path

from ..files import file_digest

logger = logging.getLogger(__name__)

_WRITING, _DELETING = ".writing-", ".deleting-"


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: Folder of the checkpoints, created on the first save.
        keep: Number of intact checkpoints to keep, at least 1.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        self.folder, self.keep = Path(folder), keep

    def newest(self) -> Path | None:
        """Find the intact checkpoint with the most steps. None if there is no checkpoint.

        Newer checkpoints that are damaged are logged as warnings.

        Raises:
            ValueError: If there are checkpoints, but all are damaged.
        """
        damages = []
        for path in self._list_newest_first():
            damage = find_damage(path)
            if damage is None:
                for damaged_path, reason in damages:
                    logger.warning(
                        "The checkpoint %s is damaged, %s: going on from %s", damaged_path, reason, path.name
                    )
                return path
            damages.append((path, damage))
        if damages:
            reasons = "; ".join(f"{path.name}: {damage}" for path, damage in damages)
            raise ValueError(
                f"Every checkpoint in {self.folder} is damaged ({reasons}). Bring one back from a copy, or start anew "
                "in another `--output_dir`."
            )
        return None

    def begin(self, step: int) -> Path:
        """Create the folder to write the checkpoint of `step` to. All processes may call this and get the same path."""
        path = self.folder / f"{_WRITING}{_format_name(step)}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, step: int, state: dict) -> Path:
        """Complete the checkpoint of `step`: write its `state.json`, rename it, and delete the oldest checkpoints.

        The main process calls this after all processes have written their parts.

        Args:
            step: As for `begin`.
            state: JSON-serialisable state; `state["step"]` determines the order of checkpoints.

        Returns:
            Path of the checkpoint.
        """
        writing, final = self.begin(step), self.folder / _format_name(step)
        (writing / "state.json").write_text(json.dumps(_add_hashes(writing, state), indent=2))
        # The rename may reach the disk before the data: after a power cut, a checkpoint with a final name would be
        # incomplete.
        for path in [*writing.rglob("*"), writing]:
            _flush(path)
        previous = self._set_aside(final) if final.exists() else None
        writing.rename(final)
        _flush(self.folder)
        if previous is not None:
            shutil.rmtree(previous)
        self._delete_old(final)
        return final

    def clean(self):
        """Remove the folders that a killed process left partly written or partly deleted."""
        for prefix in (_WRITING, _DELETING):
            for path in self.folder.glob(f"{prefix}*"):
                shutil.rmtree(path)

    def _list_newest_first(self) -> list[Path]:
        """List all checkpoints, damaged or not. A checkpoint without state.json is recognised by its name."""
        with_state = {path.parent for path in self.folder.glob("[!.]*/state.json")}
        with_name = {path for path in self.folder.glob("step-*") if path.is_dir()}
        return sorted(with_state | with_name, key=_read_step, reverse=True)

    def _delete_old(self, newest: Path):
        """Delete intact checkpoints beyond the number to keep, and damaged ones that are older than `newest`."""
        intact = 0
        for path in self._list_newest_first():
            # The hashes of older checkpoints are checked again (0.7 s per GB): otherwise one that was damaged since
            # would be kept, and an intact one deleted.
            damage = None if path == newest else find_damage(path)
            if damage is not None and _read_step(path) < _read_step(newest):
                logger.warning("The checkpoint %s is damaged, %s: removed, there is a newer one", path, damage)
                shutil.rmtree(self._set_aside(path))
            elif damage is None:
                intact += 1
                if intact > self.keep:
                    shutil.rmtree(self._set_aside(path))

    def _set_aside(self, path: Path) -> Path:
        """Rename a checkpoint before it is deleted, so that a partly deleted folder does not look complete."""
        return path.rename(path.with_name(f"{_DELETING}{path.name}"))


def read_state(checkpoint: Path) -> dict:
    """Read the `state.json` of a checkpoint.

    Raises:
        ValueError: If the file cannot be read, or is not what `CheckpointFolder.finish` wrote. The message says why.
    """
    try:
        content = (checkpoint / "state.json").read_bytes()
    except OSError as error:
        raise ValueError(f"state.json cannot be read ({error.strerror})") from error
    try:
        state = json.loads(content)
    except ValueError as error:
        raise ValueError("state.json is empty" if not content.strip() else "state.json is not JSON") from error
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise ValueError("state.json does not say the step")
    # Checkpoints from before hashes were introduced have neither entry. With one of them the hash is required, so that
    # a damaged name of the other entry is detected.
    if {"files", "sha256"} & state.keys() and state.get("sha256") != _compute_state_digest(state):
        raise ValueError("state.json does not have its own hash")
    return state


def find_damage(checkpoint: Path) -> str | None:
    """Describe the damage of a checkpoint; None if it is intact. Checkpoints without hashes count as intact."""
    try:
        hashes = read_state(checkpoint).get("files", {})
        for name, digest in hashes.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if file_digest(path) != digest:
                return f"{name} is empty" if path.stat().st_size == 0 else f"{name} does not have its hash"
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
    return None


def _add_hashes(folder: Path, state: dict) -> dict:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "state.json")
    state = state | {"files": {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}}
    return state | {"sha256": _compute_state_digest(state)}


def _compute_state_digest(state: dict) -> str:
    """Compute the SHA-256 of the state without its digest, as JSON, which is the same after writing and reading."""
    hashed = {name: value for name, value in state.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(hashed).encode()).hexdigest()


def _format_name(step: int) -> str:
    return f"step-{step:08d}"


def _read_step(checkpoint: Path) -> float:
    """Return the step by which checkpoints are sorted: from the state, else from the name, else infinity."""
    try:
        return read_state(checkpoint)["step"]
    except ValueError:
        number = re.fullmatch(r"step-(\d+)", checkpoint.name)
        return int(number[1]) if number else math.inf


def _flush(path: Path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
