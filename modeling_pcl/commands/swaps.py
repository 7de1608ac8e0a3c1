"""Draw every face in every pose with a pre-trained model, every face turned as every other, and its reconstructions:

pcl swaps runs/mine --corpus orl --subjects s31-s40 --output_dir runs/mine/pictures
"""

from dataclasses import dataclass
from pathlib import Path

from ..options import Parser, check_at_least, option, positional, required
from .main import main


@dataclass
class SwapArguments:
    """The model and the faces to draw."""

    model: str = positional("Folder or Hub id of a model that `pcl pretrain` wrote.", "MODEL")
    output_dir: Path = required("Folder for the three pictures; created if it does not exist.")
    corpus: str = option("orl", "Hub id, image folder, parquet file, saved dataset or `orl`.")
    subjects: str | None = option(None, "Draw these subjects only: `s1-s30`, or names separated by commas.")
    images: int = option(8, "Number of images, taken at equal distances from the corpus.")

    def __post_init__(self):
        check_at_least(self, images=1)


def parse(argv: list[str], prog: str) -> SwapArguments:
    (arguments,) = Parser(SwapArguments, prog=prog, description=__doc__).parse_args_into_dataclasses(argv)
    return arguments


def run(arguments: SwapArguments) -> str:
    import torch

    from .. import PCLForPreTraining
    from ..hub.models import open_encoder
    from ..pictures.faces import draw_face_rows, reconstruct_rows, swap_rows
    from ..probes.answers import choose_faces, decode_rows

    model = open_encoder(arguments.model, PCLForPreTraining)
    corpus, rows = choose_faces(arguments.corpus, arguments.subjects, arguments.images)
    images = torch.stack(list(decode_rows(corpus, rows, model.config.image_size).values())).float() / 255
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    pictures = {
        "swaps": (swap_rows(model, images), "face of each row in the pose of each column"),
        "turns": (swap_rows(model, images, "turn"), "face of each row, turned and tilted as each column"),
        "reconstructions": (reconstruct_rows(model, images), "reconstructions"),
    }
    for name, (rows, title) in pictures.items():
        draw_face_rows(rows, title).save(arguments.output_dir / f"{name}.png")
    return f"Written to {arguments.output_dir}: {', '.join(f'{name}.png' for name in pictures)}"


if __name__ == "__main__":
    main("swaps")
