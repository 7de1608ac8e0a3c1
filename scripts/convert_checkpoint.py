"""Turn an authors' checkpoint into a folder that transformers opens:

python scripts/convert_checkpoint.py checkpoint.pth converted/
"""

from dataclasses import dataclass, field
from typing import Literal

from transformers import HfArgumentParser

from modeling_pcl import (
    PCLConfig,
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLImageProcessor,
)
from modeling_pcl.hub.conversion import classifier_image_size, convert_reference_state_dict, load_reference_checkpoint


@dataclass
class ConversionArguments:
    """What to do with a linear-evaluation checkpoint; a pre-training checkpoint needs none of these."""

    task: Literal["classification", "head_pose"] = field(
        default="classification", metadata={"help": "What its linear_classifier predicts."}
    )
    head_feature: Literal["trunk", "face", "pose"] = field(
        default="trunk", metadata={"help": "Which feature its linear_classifier reads."}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Image side in px that it was trained at; by default from its width."}
    )


def build_model(state_dict: dict, arguments: ConversionArguments):
    """The model class and config that the tensors are for, with the tensors loaded."""
    if "classifier.weight" not in state_dict:
        model = PCLForPreTraining(PCLConfig())
    else:
        weight = state_dict["classifier.weight"]
        image_size = arguments.image_size or classifier_image_size(weight, PCLConfig())
        config = PCLConfig(image_size=image_size, head_feature=arguments.head_feature, num_labels=weight.shape[0])
        if arguments.task == "head_pose":
            model = PCLForHeadPoseEstimation(config)
            state_dict = {name.replace("classifier.", "regressor."): tensor for name, tensor in state_dict.items()}
        else:
            model = PCLForImageClassification(config)
    model.load_state_dict(state_dict)
    return model


def main():
    parser = HfArgumentParser(ConversionArguments, description=__doc__)
    parser.add_argument("input", help="The authors' checkpoint file.")
    parser.add_argument("output_dir", help="Folder to write config, weights, code and image processor to.")
    arguments, paths = parser.parse_args_into_dataclasses()
    try:
        model = build_model(convert_reference_state_dict(load_reference_checkpoint(paths.input)), arguments)
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")
    model.save_pretrained(paths.output_dir)
    PCLImageProcessor.for_image_size(model.config.image_size).save_pretrained(paths.output_dir)
    print(f"{type(model).__name__} with {model.num_parameters():,} parameters written to {paths.output_dir}")


if __name__ == "__main__":
    main()
