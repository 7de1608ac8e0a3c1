"""Draw what the heads of a model predict for faces, the nearest neighbours of the faces, and swaps:

pcl show hub_cards/pcl-small-faces --corpus orl --subjects s31-s40 --output_dir pictures
"""

from dataclasses import dataclass
from pathlib import Path

from ..options import Parser, check_at_least, option, positional, required
from .main import main


@dataclass
class ShowArguments:
    """The model and the faces to draw."""

    model: str = positional("Folder or Hub id of a model, with its heads in the folders below it.", "MODEL")
    output_dir: Path = required("Folder for answers.png, neighbours.png and swaps.png; created if it does not exist.")
    corpus: str = option(
        "orl", "Hub id, image folder, parquet file, saved dataset or `orl`. Every image must be of one face."
    )
    subjects: str | None = option(None, "Draw these subjects only: `s1-s30`, or names separated by commas.")
    images: int = option(8, "Number of faces, taken at equal distances from the corpus.")

    def __post_init__(self):
        check_at_least(self, images=1)


def parse(argv: list[str], prog: str) -> ShowArguments:
    (arguments,) = Parser(ShowArguments, prog=prog, description=__doc__).parse_args_into_dataclasses(argv)
    return arguments


def run(arguments: ShowArguments) -> str:
    import torch
    from huggingface_hub import snapshot_download

    from ..hub.models import open_model
    from ..pictures.faces import draw_face_rows, swap_rows
    from ..probes.answers import choose_faces, decode_rows, draw_answers, draw_neighbours

    model = open_model(arguments.model).eval()
    folder = Path(arguments.model if Path(arguments.model).is_dir() else snapshot_download(arguments.model))
    corpus, rows = choose_faces(arguments.corpus, arguments.subjects, arguments.images)
    side_px = model.config.image_size
    pictures = {
        "answers": draw_answers(folder, corpus, rows),
        "neighbours": draw_neighbours(model.base_model, corpus, rows, side_px),
    }
    if hasattr(model, "decode") and model.config.disentangling_weight:  # Otherwise the decoder was never trained.
        images = torch.stack(list(decode_rows(corpus, rows, side_px).values())).float() / 255
        title = "face of each row, turned and tilted as each column"
        pictures["swaps"] = draw_face_rows(swap_rows(model, images, "turn"), title)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    files = [f"{name}.png" for name, picture in pictures.items() if picture is not None]
    for file in files:
        pictures[file.removesuffix(".png")].save(arguments.output_dir / file)
    return f"Written to {arguments.output_dir}: {', '.join(files)}"


if __name__ == "__main__":
    main("show")
