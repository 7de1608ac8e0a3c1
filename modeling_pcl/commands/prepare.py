"""Convert a downloaded collection of faces to a corpus for training and probes:

    pcl prepare genki4k downloads/genki4k --output_dir corpora/genki4k --show

LAYOUT names the layout of the collection's files; the layouts are described below. The folder gets parquet files with
the unchanged image files, a dataset card, and report.json, which lists all broken rows, copies, and subjects in several
splits. After an interruption, the same command continues. `--pairs 6000` makes verification pairs for a collection with
identities, which can be opened as `corpora/genki4k:pairs`.
"""

import inspect
import textwrap

from ..data.collections.arguments import PreparationArguments
from ..data.collections.layouts import LAYOUTS
from ..options import Parser
from .main import main


def parse(argv: list[str], prog: str) -> PreparationArguments:
    descriptions = (f"{name}\n{textwrap.indent(inspect.getdoc(read), '    ')}" for name, read in LAYOUTS.items())
    epilog = "layouts:\n\n" + "\n\n".join(descriptions)
    parser = Parser(PreparationArguments, prog=prog, description=__doc__, epilog=epilog)
    next(action for action in parser._actions if action.dest == "layout").choices = list(LAYOUTS)
    (arguments,) = parser.parse_args_into_dataclasses(argv)
    return arguments


def run(arguments: PreparationArguments) -> str:
    from ..data.collections.preparation import describe_report, prepare
    from ..hub.corpus_card import write_corpus_card
    from ..hub.upload import upload_corpus

    report = prepare(arguments)
    write_corpus_card(arguments.output_dir, report, arguments.push_to_hub or arguments.output_dir.resolve().name)
    if arguments.show:
        draw_samples(arguments, report)
    if arguments.push_to_hub:
        upload_corpus(arguments.output_dir, arguments.push_to_hub, private=not arguments.public)
    return describe_report(arguments.output_dir, report)


def draw_samples(arguments: PreparationArguments, report: dict):
    """Draw samples of the corpus to `show.png`, and samples of its pairs to `show_pairs.png`."""
    from datasets import concatenate_datasets

    from ..data.corpora import load_corpus, load_pairs
    from ..pictures.contact_sheet import draw_corpus, draw_pairs

    folder = arguments.output_dir
    corpus = concatenate_datasets([load_corpus(str(folder), split) for split in report["rows"]["data"]])
    draw_corpus(corpus, title=folder.name).save(folder / "show.png")
    pairs = report["rows"].get("pairs")
    if pairs:
        lists = concatenate_datasets([load_pairs(f"{folder}:pairs", split) for split in pairs])
        draw_pairs(lists, title=f"{folder.name}, pairs").save(folder / "show_pairs.png")


if __name__ == "__main__":
    main("prepare")
