"""Compare training recipes, or follow a long run, by a few scores on validation data:

    pcl search run --corpus faces.parquet --variants scripts/recipe_search.txt --jobs 2 $SCORES
    pcl search score runs/mine random:0:0.25 --output scores.csv --features trunk $SCORES
    pcl search follow runs/long --every_min 60 $SCORES
    pcl search table hub_cards/study.csv

SCORES stands for the corpora on which scores are measured, `--expressions_train fer2013_train.parquet
--expressions_validation fer2013_public_test.parquet --identities celeba.parquet --head_pose corpora/genki4k --portraits
utkface.parquet`. Training and scoring use one thread each; `run` trains `--jobs` variants at once. It is faster with
jemalloc in LD_PRELOAD.
"""

import argparse

from ..options import HelpFormatter, Parser
from ..probes.search_arguments import FollowArguments, ScoreModelsArguments, SearchArguments, TableArguments
from .main import main

KINDS = {"run": SearchArguments, "score": ScoreModelsArguments, "follow": FollowArguments, "table": TableArguments}
Arguments = SearchArguments | ScoreModelsArguments | FollowArguments | TableArguments


def parse(argv: list[str], prog: str) -> Arguments:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("what", choices=KINDS, help="`pcl search run --help` and so on show the options of each.")
    kind = parser.parse_args(argv[:1]).what
    kind_parser = Parser(KINDS[kind], prog=f"{prog} {kind}", description=__doc__)
    (arguments,) = kind_parser.parse_args_into_dataclasses(argv[1:])
    return arguments


def run(arguments: Arguments) -> str:
    import torch

    from ..probes.recipe_search import follow_run, score_models, search_recipes
    from ..probes.search_table import tabulate_search

    torch.set_num_threads(1)
    functions = dict(zip(KINDS.values(), (search_recipes, score_models, follow_run, tabulate_search)))
    return functions[type(arguments)](arguments) or ""


if __name__ == "__main__":
    main("search")
