"""Measure what a PCL encoder knows, and save the head that was trained:

python scripts/probe.py --task verification --model runs/quickstart-seed0 --test orl --test_subjects s31-s40 \
    --pairs 900 --folds 2 --output_dir runs/quickstart-seed0/verification
python scripts/probe.py --task expression --model runs/mine --train corpora/fer2013 --output_dir runs/mine/expression
"""

import argparse

from probing import disentanglement, head_run, verification
from probing.arguments import ProbeArguments, check_arguments
from transformers import HfArgumentParser
from transformers.utils.logging import disable_progress_bar

TASKS = {"verification": verification, "disentanglement": disentanglement}


def probe(arguments: ProbeArguments) -> str:
    """Run one probe; its results are in `--output_dir`, and a table of them in words is returned.

    Raises:
        ValueError, OSError: If an option, a corpus or the model is not as it must be.
    """
    check_arguments(arguments)
    return TASKS.get(arguments.task, head_run).run(arguments)


def main():
    parser = HfArgumentParser(ProbeArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    (arguments,) = parser.parse_args_into_dataclasses()
    disable_progress_bar()  # transformers' own, for the weights
    try:
        print(probe(arguments))
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
