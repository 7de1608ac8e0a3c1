"""Turn an authors' checkpoint into a folder that transformers opens:

python scripts/convert_checkpoint.py checkpoint.pth converted/
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from huggingface_hub.errors import StrictDataclassError
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
    head_feature: Literal["trunk", "face", "pose", "face+pose"] = field(
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
        model = build_model_with_head(state_dict["classifier.weight"], arguments)
        if arguments.task == "head_pose":
            state_dict = {name.replace("classifier.", "regressor."): tensor for name, tensor in state_dict.items()}
    model.load_state_dict(state_dict)
    return model


def build_model_with_head(weight: torch.Tensor, arguments: ConversionArguments):
    """The model for a linear layer with this weight, if the arguments fit it."""
    labels, features = weight.shape
    image_size = arguments.image_size or classifier_image_size(weight, PCLConfig(head_feature=arguments.head_feature))
    config = PCLConfig(image_size=image_size, head_feature=arguments.head_feature, num_labels=labels)
    if config.head_size != features:
        raise ValueError(
            f"`linear_classifier` reads {features} features, images of {image_size} px have {config.head_size}; "
            "leave `--image_size` out, or give another `--head_feature`."
        )
    if arguments.task == "classification":
        return PCLForImageClassification(config)
    if labels != 3:
        raise ValueError(f"`linear_classifier` predicts {labels} values, head pose has 3: yaw, pitch, roll.")
    return PCLForHeadPoseEstimation(config)


def main():
    parser = HfArgumentParser(ConversionArguments, description=__doc__)
    parser.add_argument("input", help="The authors' checkpoint file.")
    parser.add_argument("output_dir", help="Folder to write config, weights, code and image processor to.")
    arguments, paths = parser.parse_args_into_dataclasses()
    try:
        model = build_model(convert_reference_state_dict(load_reference_checkpoint(paths.input)), arguments)
    except (ValueError, OSError, StrictDataclassError) as error:
        parser.exit(1, f"error: {error}\n")
    model.save_pretrained(paths.output_dir)
    PCLImageProcessor.for_image_size(model.config.image_size).save_pretrained(paths.output_dir)
    print(f"{type(model).__name__} with {model.num_parameters():,} parameters written to {paths.output_dir}")


if __name__ == "__main__":
    main()
