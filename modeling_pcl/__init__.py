"""Pose-disentangled Contrastive Learning (PCL) for faces, as a transformers model package."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
)

from .configuration_pcl import PCLConfig
from .image_processing_pcl import PCLImageProcessor
from .modeling_pcl import (
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLModel,
)

__version__ = "0.1.0"
__all__ = [
    "PCLConfig",
    "PCLForHeadPoseEstimation",
    "PCLForImageClassification",
    "PCLForPreTraining",
    "PCLImageProcessor",
    "PCLModel",
]

AutoConfig.register("pcl", PCLConfig)
AutoModel.register(PCLConfig, PCLModel)
AutoModelForPreTraining.register(PCLConfig, PCLForPreTraining)
AutoModelForImageClassification.register(PCLConfig, PCLForImageClassification)
AutoImageProcessor.register(PCLConfig, PCLImageProcessor)

# What is saved carries its code, so that it opens with `trust_remote_code=True` where this package is absent.
PCLConfig.register_for_auto_class()
PCLImageProcessor.register_for_auto_class()
PCLModel.register_for_auto_class("AutoModel")
PCLForPreTraining.register_for_auto_class("AutoModelForPreTraining")
PCLForImageClassification.register_for_auto_class("AutoModelForImageClassification")
# transformers has no Auto class for head pose; the entry makes its folders carry their code all the same.
PCLForHeadPoseEstimation._auto_class = "AutoModelForHeadPoseEstimation"
