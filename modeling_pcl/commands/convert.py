"""Turn an authors' checkpoint into a folder that transformers opens:

pcl convert checkpoint.pth --output_dir converted
"""

from dataclasses import dataclass
from typing import Literal

from ..options import Parser, option, positional, required
from .main import main


@dataclass
class ConversionArguments:
    """What to convert; the last three are for a linear-evaluation checkpoint."""

    checkpoint: str = positional("The authors' checkpoint file.", "CHECKPOINT")
    output_dir: str = required("Folder for config, weights, code and image processor; made.")
    task: Literal["classification", "head_pose"] = option("classification", "What its linear_classifier predicts.")
    head_feature: Literal["trunk", "face", "pose", "face+pose"] = option(
        "trunk", "Which feature its linear_classifier reads."
    )
    image_size: int | None = option(None, "Image side in px that it was trained at; by default from its width.")


def parse(words: list[str], prog: str) -> ConversionArguments:
    (arguments,) = Parser(ConversionArguments, prog=prog, description=__doc__).parse_args_into_dataclasses(words)
    return arguments


def run(arguments: ConversionArguments) -> str:
    from .. import PCLImageProcessor
    from ..hub.conversion import build_converted_model, convert_reference_state_dict, load_reference_checkpoint

    tensors = convert_reference_state_dict(load_reference_checkpoint(arguments.checkpoint))
    model = build_converted_model(tensors, arguments.task, arguments.head_feature, arguments.image_size)
    model.save_pretrained(arguments.output_dir)
    PCLImageProcessor.for_image_size(model.config.image_size).save_pretrained(arguments.output_dir)
    return f"{type(model).__name__} with {model.num_parameters():,} parameters written to {arguments.output_dir}"


if __name__ == "__main__":
    main("convert")
