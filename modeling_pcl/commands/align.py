"""Find the faces in photos and videos, and cut them out into a corpus for training and probes:

    pcl align photos corpora/mine
    pcl align holiday.mp4 corpora/mine --every_s 0.5 --like runs/mine
    pcl align group.jpg corpora/mine --align eyes --margin 0.3

Faces in a video are followed from frame to frame: in each shot a person has one `subject` and one `video`, and after a
cut everyone gets a new one. OUTPUT/faces.jpg shows detected faces, and report.json lists photos without a face. After
an interruption, the same command continues. Needs `pip install modeling_pcl[align]`.
"""

from ..data.alignment.arguments import AlignmentArguments
from ..options import Parser
from .main import main


def parse(argv: list[str], prog: str) -> AlignmentArguments:
    (arguments,) = Parser(AlignmentArguments, prog=prog, description=__doc__).parse_args_into_dataclasses(argv)
    return arguments


def run(arguments: AlignmentArguments) -> str:
    from ..data.alignment.alignment import align, describe_report
    from ..hub.corpus_card import write_corpus_card

    report = align(arguments)
    write_corpus_card(arguments.output_dir, report, arguments.output_dir.resolve().name)
    return describe_report(arguments.output_dir, report)


if __name__ == "__main__":
    main("align")
