"""Checkpoints that are whole or absent, and of which damage is seen.

    checkpoints/
      step-00000500/
        model/            what `from_pretrained` opens: config, safetensors, code, image processor
        optimizer.pt      optimizer, by parameter name; learning-rate schedule, loss scaler
        process-0.pt      of each process: random states and the loader's position
        state.json        where the run stands, the SHA-256 of every other file, and of itself without this entry

A checkpoint is written under a name that begins with a dot and renamed when it is complete, so a kill at any instant
leaves the newest complete one. What a disk damages later no longer has its hash: `newest` names it and takes an older
one. Weights and optimizer state are whole, however the processes had shared them out.
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
        folder: Where they lie; made on the first save.
        keep: How many whole checkpoints to keep, at least 1.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        self.folder, self.keep = Path(folder), keep

    def newest(self) -> Path | None:
        """The whole checkpoint with the most steps by its own state, or None where there is no checkpoint.

        A damaged one that would be newer is named in a warning.

        Raises:
            ValueError: If there are checkpoints and every one is damaged.
        """
        damages = []
        for path in self._newest_first():
            damage = find_damage(path)
            if damage is None:
                for name, what in damages:
                    logger.warning("The checkpoint %s is damaged, %s: going on from %s", name, what, path.name)
                return path
            damages.append((path, damage))
        if damages:
            named = "; ".join(f"{path.name}: {damage}" for path, damage in damages)
            raise ValueError(
                f"Every checkpoint in {self.folder} is damaged ({named}). Bring one back from a copy, or start anew in "
                "another `--output_dir`."
            )
        return None

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of `step` to; every process may call it with the same result."""
        path = self.folder / f"{_WRITING}{_name(step)}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, step: int, state: dict) -> Path:
        """Make the checkpoint of `step` count: write its `state.json`, rename it, drop the oldest ones.

        Args:
            step: As given to `begin`, in the main process, once every process has written its part.
            state: JSON-serialisable; `state["step"]` is what orders checkpoints.
        """
        writing, final = self.begin(step), self.folder / _name(step)
        (writing / "state.json").write_text(json.dumps(_with_hashes(writing, state), indent=2))
        # A rename may reach the disk before the data: after a power cut the checkpoint would be whole in name only.
        for path in [*writing.rglob("*"), writing]:
            _flush(path)
        earlier = self._set_aside(final) if final.exists() else None
        writing.rename(final)
        _flush(self.folder)
        if earlier is not None:
            shutil.rmtree(earlier)
        self._drop_old(final)
        return final

    def clean(self):
        """Remove what a killed process left half written or half deleted."""
        for prefix in (_WRITING, _DELETING):
            for path in self.folder.glob(f"{prefix}*"):
                shutil.rmtree(path)

    def _newest_first(self) -> list[Path]:
        """Every checkpoint, damaged or not: one whose state.json is gone still has its name."""
        states = {path.parent for path in self.folder.glob("[!.]*/state.json")}
        named = {path for path in self.folder.glob("step-*") if path.is_dir()}
        return sorted(states | named, key=_steps, reverse=True)

    def _drop_old(self, newest: Path):
        """Drop what is older than the whole checkpoints to keep, and damaged ones that `newest` replaces."""
        whole = 0
        for path in self._newest_first():
            # The others are read again, too (0.7 s a GB): one that was damaged meanwhile would be
            # kept in place of one that is whole.
            damage = None if path == newest else find_damage(path)
            if damage is not None and _steps(path) < _steps(newest):
                logger.warning("The checkpoint %s is damaged, %s: removed, there is a newer one", path, damage)
                shutil.rmtree(self._set_aside(path))
            elif damage is None:
                whole += 1
                if whole > self.keep:
                    shutil.rmtree(self._set_aside(path))

    def _set_aside(self, path: Path) -> Path:
        """Rename what is to be deleted first, so that no half-deleted folder looks complete."""
        return path.rename(path.with_name(f"{_DELETING}{path.name}"))


def read_state(checkpoint: Path) -> dict:
    """The `state.json` of a checkpoint.

    Raises:
        ValueError: If it is not what was written, and what is wrong with it.
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
    # One of the two entries is enough to ask for the other: else a damaged name would pass for an older checkpoint,
    # which has neither.
    if {"files", "sha256"} & state.keys() and state.get("sha256") != _state_digest(state):
        raise ValueError("state.json does not have its own hash")
    return state


def find_damage(checkpoint: Path) -> str | None:
    """Say what is wrong with a checkpoint, None if it is whole. One from before there were hashes passes for whole."""
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


def _with_hashes(folder: Path, state: dict) -> dict:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "state.json")
    state = state | {"files": {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}}
    return state | {"sha256": _state_digest(state)}


def _state_digest(state: dict) -> str:
    """Of all but the digest itself; as text of JSON, which reading and writing again does not change."""
    others = {name: value for name, value in state.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(others).encode()).hexdigest()


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _steps(checkpoint: Path) -> float:
    """What orders checkpoints: the step in the state; of one that cannot say it, that in its name, or infinity."""
    try:
        return read_state(checkpoint)["step"]
    except ValueError:
        number = re.fullmatch(r"step-(\d+)", checkpoint.name)
        return int(number[1]) if number else math.inf


def _flush(path: Path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
