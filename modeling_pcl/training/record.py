"""`run.json`: what a run was, so that its numbers can be traced and it can be run again."""

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
    """Facts of a run at its start.

    Args:
        options: Every option by name, JSON-serialisable.
        data_revision: What identifies the corpus.

    Returns:
        Options, command, git revision of the code (None outside of a checkout), data revision, versions, machine, date.
    """
    return {
        "command": [Path(sys.executable).name, *sys.argv],
        "options": options,
        "git_revision": _git_revision(),
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


def _git_revision() -> str | None:
    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = "-dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return None
