"""Compare models with each other and with random initialisation, on every task that one of them was probed on:

    pcl probe runs/mine --task expression --train corpora/fer2013 --output_dir runs/mine/expression
    pcl compare runs/mine runs/simclr --output_dir runs/comparison

A model that was not probed on a task is probed now, with the options of the other model's probe. Results of the same
weights with the same options are not measured again.
"""

from ..options import Parser
from ..probes.arguments import ComparisonArguments
from .main import main


def parse(argv: list[str], prog: str) -> ComparisonArguments:
    (arguments,) = Parser(ComparisonArguments, prog=prog, description=__doc__).parse_args_into_dataclasses(argv)
    return arguments


def run(arguments: ComparisonArguments) -> str:
    from ..probes.comparison import compare

    return compare(arguments)


if __name__ == "__main__":
    main("compare")
