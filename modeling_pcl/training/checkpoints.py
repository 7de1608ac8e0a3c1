"""Checkpoints that are whole or absent.

    checkpoints/
      step-00000500/
        model/            what `from_pretrained` opens: config, safetensors, code, image processor
        optimizer.pt      optimizer, by parameter name; learning-rate schedule, loss scaler
        process-0.pt      of each process: random states and the loader's position
        state.json        where the run stands

A checkpoint is written under a name that begins with a dot and renamed when it is complete, so a kill at any instant
leaves the newest complete one. Weights and optimizer state are whole, however the processes had shared them out.
"""

import json
import os
import shutil
from pathlib import Path

_WRITING, _DELETING = ".writing-", ".deleting-"


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: Where they lie; made on the first save.
        keep: How many complete checkpoints to keep, at least 1.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        self.folder, self.keep = Path(folder), keep

    def newest(self) -> Path | None:
        """The complete checkpoint with the most steps by its own state, or None."""
        return max(self._complete(), key=_steps, default=None)

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
        (writing / "state.json").write_text(json.dumps(state, indent=2))
        # A rename may reach the disk before the data: after a power cut the checkpoint would be whole in name only.
        for path in [*writing.rglob("*"), writing]:
            _flush(path)
        self._drop([final] if final.exists() else [])
        writing.rename(final)
        _flush(self.folder)
        self._drop(sorted(self._complete(), key=_steps)[: -self.keep])
        return final

    def clean(self):
        """Remove what a killed process left half written or half deleted."""
        for prefix in (_WRITING, _DELETING):
            for path in self.folder.glob(f"{prefix}*"):
                shutil.rmtree(path)

    def _complete(self) -> list[Path]:
        return [path.parent for path in self.folder.glob("[!.]*/state.json")]

    def _drop(self, paths: list[Path]):
        for path in paths:
            doomed = path.with_name(f"{_DELETING}{path.name}")
            path.rename(doomed)  # First, so that no half-deleted folder looks complete.
            shutil.rmtree(doomed)


def read_state(checkpoint: Path) -> dict:
    """The `state.json` of a checkpoint."""
    return json.loads((checkpoint / "state.json").read_text())


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _steps(checkpoint: Path) -> int:
    return read_state(checkpoint)["step"]


def _flush(path: Path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
