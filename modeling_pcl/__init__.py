"""Pose-disentangled Contrastive Learning (PCL) for faces, as a transformers model package."""

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .configuration_pcl import PCLConfig
    from .image_processing_pcl import PCLImageProcessor
    from .modeling_pcl import (
        PCLBackbone,
        PCLForHeadPoseEstimation,
        PCLForImageClassification,
        PCLForPreTraining,
        PCLModel,
    )
    from .pipelines_pcl import (
        FaceClassificationPipeline,
        FaceFeatureExtractionPipeline,
        FaceSwapPosePipeline,
        FaceVerificationPipeline,
        HeadPoseEstimationPipeline,
    )

__version__ = "0.1.0"
__all__ = [
    "FaceClassificationPipeline",
    "FaceFeatureExtractionPipeline",
    "FaceSwapPosePipeline",
    "FaceVerificationPipeline",
    "HeadPoseEstimationPipeline",
    "PCLBackbone",
    "PCLConfig",
    "PCLDataCollator",
    "PCLForHeadPoseEstimation",
    "PCLForImageClassification",
    "PCLForPreTraining",
    "PCLImageProcessor",
    "PCLModel",
]


def __getattr__(name: str):
    """Import a class of this package on first access."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = {
        "PCLDataCollator": "data.collator",
        "PCLConfig": "configuration_pcl",
        "PCLImageProcessor": "image_processing_pcl",
    }
    module = modules.get(name, "pipelines_pcl" if name.endswith("Pipeline") else "modeling_pcl")
    return getattr(importlib.import_module(f".{module}", __name__), name)


def register():
    """Register the classes with transformers' Auto classes and with `pipeline`."""
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY

    from . import configuration_pcl, image_processing_pcl, modeling_pcl, pipelines_pcl

    config = configuration_pcl.PCLConfig
    heads = modeling_pcl.PCLForImageClassification, modeling_pcl.PCLForHeadPoseEstimation
    transformers.AutoConfig.register("pcl", config)
    transformers.AutoModel.register(config, modeling_pcl.PCLModel)
    transformers.AutoBackbone.register(config, modeling_pcl.PCLBackbone)
    transformers.AutoModelForPreTraining.register(config, modeling_pcl.PCLForPreTraining)
    # transformers takes the class that the config's `architectures` names, and the first one if it names neither.
    transformers.AutoModelForImageClassification.register(config, heads)
    processor = {"torchvision": image_processing_pcl.PCLImageProcessor}
    transformers.AutoImageProcessor.register(config, image_processor_classes=processor)
    for name, (task, auto_class) in pipelines_pcl.PIPELINES.items():
        pipeline = getattr(pipelines_pcl, name)
        if task in pipelines_pcl.STANDARD:
            # The task already exists: models of other types must still get transformers' pipeline.
            PIPELINE_REGISTRY.supported_tasks[task] |= {
                "impl": pipelines_pcl.dispatch_by_model_type(pipeline, pipelines_pcl.STANDARD[task]),
                "pt": (modeling_pcl.require_all_weights(getattr(transformers, auto_class)),),
            }
        else:
            PIPELINE_REGISTRY.register_pipeline(task, pipeline, modeling_pcl.SavedPCLModel, type="image")


# Importing the models takes five seconds; `--help` needs none of them, nor do workers that prepare images.
if {"-h", "--help", "--without-models"}.isdisjoint(sys.argv[1:]):
    register()
