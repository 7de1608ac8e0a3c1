"""Processes that find the package imported: copies of one server, which begin in milliseconds instead of seconds."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

multiprocessing.set_forkserver_preload(["modeling_pcl.training.run"])


def run_together(work: Callable, arguments: tuple, processes: int):
    """Run `work(index, *arguments)` in several processes at once, and raise what one of them raises."""
    torch.multiprocessing.start_processes(work, arguments, processes, start_method="forkserver")


def start_command(name: str, arguments: list[str], output: Path) -> multiprocessing.Process:
    """Start `pcl <name> <arguments>`, which prints to a file."""
    task = (name, arguments, output, multiprocessing.get_start_method())
    process = multiprocessing.get_context("forkserver").Process(target=_command, args=task)
    process.start()
    return process


def _command(name: str, arguments: list[str], output: Path, start_method: str):
    from modeling_pcl.commands.main import main

    # Its own children start as they do in a new process; those of the server would outlive it if it is killed.
    multiprocessing.set_start_method(start_method, force=True)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["pcl", *arguments]
    main(name)
