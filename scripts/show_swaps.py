"""Draw every face in every pose with a pre-trained model:

python scripts/show_swaps.py --model runs/quickstart-seed0 --corpus orl --subjects s31-s40 --output swaps.png
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from transformers import HfArgumentParser
from transformers.utils.logging import disable_progress_bar

from modeling_pcl import PCLForPreTraining
from modeling_pcl.data.corpora import load_corpus, select_subjects
from modeling_pcl.data.images import decode_image
from modeling_pcl.training.pictures import draw_rows, reconstruction_rows, swap_rows


@dataclass
class SwapArguments:
    """What to draw."""

    model: str = field(metadata={"help": "Folder or Hub id of a model that pretrain.py wrote."})
    corpus: str = field(default="orl", metadata={"help": "Hub id, image folder, parquet file, saved dataset or `orl`."})
    subjects: str | None = field(default=None, metadata={"help": "`s1-s30`, or names with commas between them."})
    images: int = field(default=8, metadata={"help": "Images to draw, taken at equal distances from the corpus."})
    picture: Literal["swaps", "reconstructions"] = field(
        default="swaps", metadata={"help": "Every face in every pose, or the eight rows that training draws."}
    )
    output: str = field(default="swaps.png", metadata={"help": "PNG file to write."})


def choose_images(arguments: SwapArguments, size_px: int) -> torch.Tensor:
    corpus = load_corpus(arguments.corpus)
    corpus = corpus if arguments.subjects is None else select_subjects(corpus, arguments.subjects)
    # At odd distances, so that subjects with ten images each do not all show their first one.
    chosen = torch.linspace(0, len(corpus) - 1, arguments.images).long().tolist()
    images = torch.stack([decode_image(row, size_px) for row in corpus.select(chosen)["image"]])
    return images.float() / 255


def main():
    parser = HfArgumentParser(SwapArguments, description=__doc__)
    (arguments,) = parser.parse_args_into_dataclasses()
    disable_progress_bar()  # transformers' own, for the weights
    try:
        model = PCLForPreTraining.from_pretrained(arguments.model)
        images = choose_images(arguments, model.config.image_size)
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")
    rows = (swap_rows if arguments.picture == "swaps" else reconstruction_rows)(model, images)
    Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
    draw_rows(rows, title=arguments.picture).save(arguments.output)
    print(f"Written to {arguments.output}")


if __name__ == "__main__":
    main()
