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
    """Import a class of this package when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {
        "PCLDataCollator": "data.collator",
        "PCLConfig": "configuration_pcl",
        "PCLImageProcessor": "image_processing_pcl",
    }
    home = homes.get(name, "pipelines_pcl" if name.endswith("Pipeline") else "modeling_pcl")
    return getattr(importlib.import_module(f".{home}", __name__), name)


def register():
    """Make the classes known to transformers: to its Auto classes and to `pipeline`."""
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY

    from . import configuration_pcl, image_processing_pcl, modeling_pcl, pipelines_pcl

    config = configuration_pcl.PCLConfig
    heads = modeling_pcl.PCLForImageClassification, modeling_pcl.PCLForHeadPoseEstimation
    transformers.AutoConfig.register("pcl", config)
    transformers.AutoModel.register(config, modeling_pcl.PCLModel)
    transformers.AutoBackbone.register(config, modeling_pcl.PCLBackbone)
    transformers.AutoModelForPreTraining.register(config, modeling_pcl.PCLForPreTraining)
    # Of several, transformers takes the one that the config's `architectures` names, or else the first.
    transformers.AutoModelForImageClassification.register(config, heads)
    processor = {"torchvision": image_processing_pcl.PCLImageProcessor}
    transformers.AutoImageProcessor.register(config, image_processor_classes=processor)
    for name, (task, auto_class) in pipelines_pcl.PIPELINES.items():
        pipeline = getattr(pipelines_pcl, name)
        if task in pipelines_pcl.STANDARD:
            # Ours for PCL models; for the models of others the task stays transformers' own.
            PIPELINE_REGISTRY.supported_tasks[task] |= {
                "impl": pipelines_pcl.for_all_models(pipeline, pipelines_pcl.STANDARD[task]),
                "pt": (modeling_pcl.with_all_weights(getattr(transformers, auto_class)),),
            }
        else:
            PIPELINE_REGISTRY.register_pipeline(task, pipeline, modeling_pcl.SavedPCLModel, type="image")


# The models take five seconds to import, and a process that is only asked for its help needs none of them.
if {"-h", "--help"}.isdisjoint(sys.argv[1:]):
    register()
