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
AutoImageProcessor.register(PCLConfig, image_processor_classes={"torchvision": PCLImageProcessor})
