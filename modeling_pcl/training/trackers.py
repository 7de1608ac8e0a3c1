"""Experiment trackers: checks, options, and logging of pictures."""

import importlib
import secrets
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType
from PIL import Image


def check_trackers(names: list[str]) -> list[str]:
    """Check the names of trackers, because Accelerate silently ignores trackers that are not installed.

    Args:
        names: Names of trackers in Accelerate (`tensorboard`, `trackio`, `wandb`, ...), or `["none"]`.

    Returns:
        Names of the trackers to start.

    Raises:
        ValueError: If Accelerate does not support a tracker, or its package is not installed.
    """
    if names == ["none"]:
        return []
    supported = [kind.value for kind in LoggerType if kind is not LoggerType.ALL]
    for name in names:
        if name not in supported:
            raise ValueError(f"`--report_to` does not know {name!r}: it takes {', '.join(supported)}, or `none` alone.")
        if find_spec(name) is None:
            raise ValueError(f"`--report_to {name}` needs its package: pip install {name.replace('_', '-')}")
    return names


def build_tracker_options(output_dir: Path, is_new: bool) -> dict[str, dict]:
    """Build the options of trackers that identify runs by a name or id, so that a resumed run continues its log.

    Args:
        output_dir: Output folder, whose name becomes the name of the run. An id in `logs/run_id` distinguishes it from
            other runs with this name.
        is_new: Whether the run starts, as opposed to being resumed.
    """
    id_file = output_dir / "logs" / "run_id"
    if is_new or not id_file.exists():
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(secrets.token_hex(4))
    run_id = id_file.read_text()
    return {
        "wandb": {"name": output_dir.name, "id": run_id, "resume": "allow", "dir": id_file.parent},
        "trackio": {"name": f"{output_dir.name}-{run_id}", "resume": "allow"},
    }


def log_picture(tracker: GeneralTracker, name: str, picture: Image.Image, step: int):
    """Log a picture with a tracker, if the tracker supports pictures."""
    if tracker.name == "tensorboard":
        tracker.log_images({name: np.asarray(picture)[None]}, step=step, dataformats="NHWC")
    elif tracker.name == "trackio":  # Accelerate does not implement `log_images` for it.
        tracker.log({name: importlib.import_module("trackio").Image(picture)}, step=step)
    elif hasattr(tracker, "log_images"):
        tracker.log_images({name: [picture]}, step=step)
