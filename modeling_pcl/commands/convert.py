"""Convert a checkpoint of the paper's authors to a folder that transformers can open:

pcl convert checkpoint.pth --output_dir converted
"""

from dataclasses import dataclass
from typing import Literal

from ..options import Parser, option, positional, required
from .main import main


@dataclass
class ConversionArguments:
    """The checkpoint to convert. The last three options are for linear-evaluation checkpoints."""

    checkpoint: str = positional("Checkpoint file of the authors.", "CHECKPOINT")
    output_dir: str = required("Folder for config, weights, code and image processor; created if it does not exist.")
    task: Literal["classification", "head_pose"] = option("classification", "What the linear_classifier predicts.")
    head_feature: Literal["trunk", "face", "pose", "face+pose"] = option(
        "trunk", "Feature that the linear_classifier reads."
    )
    image_size: int | None = option(
        None, "Image side in px at which the linear_classifier was trained; by default inferred from its width."
    )


def parse(argv: list[str], prog: str) -> ConversionArguments:
    (arguments,) = Parser(ConversionArguments, prog=prog, description=__doc__).parse_args_into_dataclasses(argv)
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
