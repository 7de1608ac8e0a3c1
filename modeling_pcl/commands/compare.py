"""Set models beside each other and beside random initialisation, on every task that one of them was probed on:

    pcl probe runs/mine --task expression --train corpora/fer2013 --output_dir runs/mine/expression
    pcl compare runs/mine runs/simclr --output_dir runs/comparison

What a model was not probed on is measured now, with the options of the other's probe. What is measured already, of the
same weights with the same options, is not measured again.
"""

from ..options import Parser
from ..probes.arguments import ComparisonArguments
from .main import main


def parse(words: list[str], prog: str) -> ComparisonArguments:
    (arguments,) = Parser(ComparisonArguments, prog=prog, description=__doc__).parse_args_into_dataclasses(words)
    return arguments


def run(arguments: ComparisonArguments) -> str:
    from ..probes.comparison import compare

    return compare(arguments)


if __name__ == "__main__":
    main("compare")
