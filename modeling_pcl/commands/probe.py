"""Measure the features of a PCL encoder on a task, and save the trained head:

    pcl probe runs/mine --task expression --train corpora/fer2013 --output_dir runs/mine/expression
    pcl probe runs/mine --task verification --test corpora/lfw:pairs --output_dir runs/mine/verification

Each task has options of its own; `pcl probe --task TASK --help` shows all options for that task.
"""

import argparse
from dataclasses import fields

from ..options import Parser
from ..probes.arguments import TASKS, ProbeArguments
from .main import main


def parse(argv: list[str], prog: str) -> ProbeArguments:
    # The task is parsed first, because it determines the other options.
    task_parser = argparse.ArgumentParser(prog, add_help=False, allow_abbrev=False)
    task_parser.add_argument("--task", choices=TASKS, default="expression")
    task = task_parser.parse_known_args(argv)[0].task
    parser = Parser(TASKS[task], prog=prog, description=__doc__, epilog=describe_tasks())
    (arguments,) = parser.parse_args_into_dataclasses(argv)
    return arguments


def describe_tasks() -> str:
    """List the options of each task, for the help."""
    shared = {field.name for field in fields(ProbeArguments)}
    lines = ["tasks and their options:"]
    for task, kind in TASKS.items():
        names = " ".join(f"--{field.name}" for field in fields(kind) if field.name not in shared)
        lines.append(f"\n{task}: {kind.__doc__}\n    {names}")
    return "\n".join(lines)


def run(arguments: ProbeArguments) -> str:
    from ..probes.probe import run_probe

    return run_probe(arguments)


if __name__ == "__main__":
    main("probe")
