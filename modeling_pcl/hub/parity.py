"""Parity tensors: a fixed input and a model's outputs for it, with which anyone can check a copy of the model."""

import json
import os
import subprocess
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..data.child_processes import python_command
from ..files import use_scratch_folder
from ..modeling_pcl import PCLPreTrainedModel
from . import parity_check
from .parity_check import FILE, INPUT, compute_parity_outputs

IMAGES, SEED, TOLERANCE = 2, 0, 1e-4


def write_parity(model: PCLPreTrainedModel, folder: Path) -> Path:
    """Write `parity.safetensors`: `pixel_values`, `(2, channels, image_size, image_size)` in [0, 1], and the outputs.

    Args:
        model: Model in evaluation mode and float32.
        folder: Folder for the file.

    Returns:
        Path of the file.
    """
    generator, config = torch.Generator().manual_seed(SEED), model.config
    size = config.num_channels, config.image_size, config.image_size
    pixel_values = torch.rand((IMAGES, *size), generator=generator)
    outputs = compute_parity_outputs(model, pixel_values)
    tensors = {name: tensor.float().contiguous().clone() for name, tensor in outputs.items()}
    save_file({INPUT: pixel_values} | tensors, folder / FILE)
    return folder / FILE


def check_parity(folder: Path) -> dict[str, float]:
    """Open a folder in a new process without `modeling_pcl`, and compare its outputs with its parity tensors.

    The process uses the code in the folder, as it would on the machine of a user who has not installed this package.

    Returns:
        For each output, the largest difference divided by the largest value.

    Raises:
        ValueError: If the folder cannot be opened there, or an output differs by more than 1e-4.
    """
    with use_scratch_folder(folder.resolve().with_name(f".{folder.name}-scratch")) as scratch:
        # Without the caches and the token of this user; isolated mode keeps the working directory off `sys.path`.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        environment |= {"HF_HOME": str(scratch), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TMPDIR": str(scratch)}
        code = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
        command = python_command(code, parity_check.__file__, str(folder.resolve()), isolated=True)
        checked = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True)
    if checked.returncode:
        reason = (checked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"{folder} does not open where modeling_pcl is not installed: {reason}")
    difference = json.loads(checked.stdout.splitlines()[-1])
    for name, amount in difference.items():
        if not amount <= TOLERANCE:
            raise ValueError(f"{folder} computes another `{name}` than its {FILE} holds: they differ by {amount:.1e}.")
    return difference
