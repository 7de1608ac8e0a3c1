"""Pose-disentangled Contrastive Learning (PCL) for faces, as a transformers model package."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_pcl import PCLConfig
from .image_processing_pcl import PCLImageProcessor
from .modeling_pcl import (
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLModel,
)
from .pipelines_pcl import FaceSwapPosePipeline, FaceVerificationPipeline, HeadPoseEstimationPipeline

__version__ = "0.1.0"
__all__ = [
    "FaceSwapPosePipeline",
    "FaceVerificationPipeline",
    "HeadPoseEstimationPipeline",
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
# Of several, transformers takes the one that the config's `architectures` names.
AutoModelForImageClassification.register(PCLConfig, (PCLForImageClassification, PCLForHeadPoseEstimation))
AutoImageProcessor.register(PCLConfig, image_processor_classes={"torchvision": PCLImageProcessor})

for _task, _pipeline, _auto_class in (
    ("face-swap-pose", FaceSwapPosePipeline, AutoModelForPreTraining),
    ("face-verification", FaceVerificationPipeline, AutoModel),
    ("head-pose-estimation", HeadPoseEstimationPipeline, AutoModelForImageClassification),
):
    PIPELINE_REGISTRY.register_pipeline(_task, _pipeline, _auto_class, type="image")
