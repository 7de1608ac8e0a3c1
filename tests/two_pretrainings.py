"""What `test_pretrain.py` runs in each of two processes, which are started once for all of it."""

import os
import shutil
from functools import partial
from pathlib import Path

import torch
import two_processes
from accelerate.state import AcceleratorState, GradientState

from modeling_pcl.training.options import parse_options
from modeling_pcl.training.run import pretrain

CUT_STEP = 2  # of a whole run: what is resumed is its checkpoint of this step.


def work(index: int, folder: str, options: list[str]):
    """Train without shards and with them, and resume either run as the other: `ddp`, `fsdp`, `ddp-fsdp`, `fsdp-ddp`.

    The first run in shards is asked for by the option, and the resumed one by `accelerate launch`.
    """
    # Fused Adam rounds the last few elements of a tensor in another way, and so those of a shard; the loop does not.
    torch.optim.Adam = partial(_unfused, torch.optim.Adam)
    for way, flags in {"ddp": (), "fsdp": ("--fsdp",)}.items():
        train(index, Path(folder) / way, [*options, *flags])
    for before, after in (("ddp", "fsdp"), ("fsdp", "ddp")):
        run = Path(folder) / f"{before}-{after}"
        if index == 0:
            cut(Path(folder) / before, run)
        os.environ |= two_processes.shards_of_a_launch() if after == "fsdp" else {}
        train(index, run, [*options, "--resume"])


def _unfused(adam, parameters, fused: bool, **options):
    return adam(parameters, fused=False, **options)


def train(index: int, run: Path, options: list[str]):
    two_processes.join_group(index, run.with_suffix(".group"))
    pretrain(parse_options([*options, f"--output_dir={run}"]))
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def cut(whole: Path, run: Path):
    """A run that ended with the checkpoint of `CUT_STEP` of another."""
    checkpoint = Path("checkpoints") / f"step-{CUT_STEP:08d}"
    shutil.copytree(whole / checkpoint, run / checkpoint)
