"""Experiment trackers by name, and pictures in the form that each of them takes."""

import importlib
import secrets
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType
from PIL import Image


def check_trackers(names: list[str]) -> list[str]:
    """The trackers to start, none for `["none"]`. Accelerate itself leaves out what is not installed without a word.

    Args:
        names: Names that Accelerate knows: `tensorboard`, `trackio`, `wandb`, ...

    Raises:
        ValueError: If Accelerate does not know one, or its package is not installed.
    """
    if names == ["none"]:
        return []
    known = [kind.value for kind in LoggerType if kind is not LoggerType.ALL]
    for name in names:
        if name not in known:
            raise ValueError(f"`--report_to` does not know {name!r}: it takes {', '.join(known)}, or `none` alone.")
        if find_spec(name) is None:
            raise ValueError(f"`--report_to {name}` needs its package: pip install {name.replace('_', '-')}")
    return names


def tracker_options(output_dir: Path, is_new: bool) -> dict[str, dict]:
    """What trackers that keep runs by name are told, so that a run which resumes goes on in the same place.

    Args:
        output_dir: The run's folder; its name is the run's, and `logs/run_id` tells it from namesakes.
        is_new: Whether the run begins, and not resumes.
    """
    written = output_dir / "logs" / "run_id"
    if is_new or not written.exists():
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(secrets.token_hex(4))
    run_id = written.read_text()
    return {
        "wandb": {"name": output_dir.name, "id": run_id, "resume": "allow", "dir": written.parent},
        "trackio": {"name": f"{output_dir.name}-{run_id}", "resume": "allow"},
    }


def log_picture(tracker: GeneralTracker, name: str, picture: Image.Image, step: int):
    """Hand a picture to a tracker; one that takes no pictures goes without."""
    if tracker.name == "tensorboard":
        tracker.log_images({name: np.asarray(picture)[None]}, step=step, dataformats="NHWC")
    elif tracker.name == "trackio":  # Accelerate hands it no pictures.
        tracker.log({name: importlib.import_module("trackio").Image(picture)}, step=step)
    elif hasattr(tracker, "log_images"):
        tracker.log_images({name: [picture]}, step=step)
