"""The facts in `run.json`, from which the numbers of a run can be traced and the run repeated."""

import importlib.metadata
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import torch

PACKAGES = (
    "modeling_pcl",
    "torch",
    "torchvision",
    "transformers",
    "datasets",
    "accelerate",
    "huggingface_hub",
    "numpy",
)


def describe_run(options: dict, data_revision: str) -> dict:
    """Collect the facts of a run at its start.

    Args:
        options: All options by name, JSON-serialisable.
        data_revision: Identifier of the corpus.

    Returns:
        Options, command, git revision of the code (None outside of a checkout), data revision, versions, machine, date.
    """
    return {
        "command": [Path(sys.executable).name, *sys.argv],
        "options": options,
        "git_revision": _read_git_revision(),
        "data_revision": data_revision,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": {
            "system": platform.platform(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
            "threads": torch.get_num_threads(),
        },
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _read_git_revision() -> str | None:
    def run_git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        suffix = "-dirty" if run_git("status", "--porcelain", "--untracked-files=no") else ""
        return run_git("rev-parse", "HEAD") + suffix
    except (OSError, subprocess.CalledProcessError):
        return None
