"""A model that runs in milliseconds, and inputs for it."""

from pathlib import Path

import torch

from modeling_pcl import PCLConfig, PCLImageProcessor
from modeling_pcl.modeling_pcl import PCLPreTrainedModel

RUN = {  # What pretrain.py writes of a run, as far as anything reads it.
    "options": {"steps": 800, "corpus": "/home/me/faces.parquet"},
    "parameters": 1_083_939,
    "images_seen": 204_800,
    "processes": 2,
    "resumed_from_step": 300,
    "machine": {"device": "NVIDIA H100", "threads": 16},
    "started": "2026-11-24T10:00:00+00:00",
    "finished": "2026-11-24T11:30:00+00:00",
}


def config(**changes) -> PCLConfig:
    """A config whose widths all differ, so that no two can be mixed up unseen."""
    sizes = {
        "image_size": 32,
        "hidden_sizes": [4, 6, 10, 12],
        "feature_channels": 8,
        "projection_hidden_size": 24,
        "projection_size": 20,
        "decoder_size": 16,
    }
    return PCLConfig(**(sizes | changes))


def save(folder: Path, model_class: type[PCLPreTrainedModel], **changes) -> PCLPreTrainedModel:
    """A model, always the same, and its image processor, as scripts leave them in a folder."""
    torch.manual_seed(0)
    model = model_class(config(**changes)).eval()
    model.save_pretrained(folder)
    PCLImageProcessor.for_image_size(model.config.image_size).save_pretrained(folder)
    return model


def images(config: PCLConfig, *batch: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random images `(*batch, channels, size, size)` in [0, 1], each of its own colour under the noise."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.rand((*batch, config.num_channels, 1, 1), generator=generator, dtype=torch.float64)
    shape = (*batch, config.num_channels, config.image_size, config.image_size)
    noise = torch.rand(shape, generator=generator, dtype=torch.float64)
    return ((colours + noise) / 2).to(dtype)


def disentangling_inputs(config: PCLConfig, count: int = 4, **options) -> dict[str, torch.Tensor]:
    return {
        "pixel_values": images(config, count, seed=1, **options),
        "noise": 0.4 * images(config, 2 * count, seed=2, **options) - 0.2,
    }


def face_contrast_inputs(config: PCLConfig, count: int = 4, **options) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    negatives = 2 * count - 2
    inputs = {
        "face_views": images(config, 2 * count, seed=4, **options),
        "face_mix": torch.rand(2 * count, negatives, generator=generator),
        "face_permutation": torch.randperm(negatives, generator=generator),
    }
    if config.turn_weight:
        turns = 2 * torch.rand(count, 2, generator=generator) - 1
        turns[1] = torch.nan
        inputs["face_turns"] = turns
    return inputs


def pose_contrast_inputs(config: PCLConfig, count: int = 4, negatives: int = 4, **options) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        "pose_views": images(config, 2 * count, seed=6, **options),
        "pose_negative_views": images(config, count, negatives, seed=7, **options),
        "pose_mix": torch.rand(count, negatives, generator=generator),
        "pose_permutation": torch.randperm(negatives, generator=generator),
    }


INPUTS = {
    "disentangling": disentangling_inputs,
    "face_contrast": face_contrast_inputs,
    "pose_contrast": pose_contrast_inputs,
}


def all_inputs(config: PCLConfig, **options) -> dict[str, torch.Tensor]:
    """Inputs of all three objectives."""
    return {name: value for inputs in INPUTS.values() for name, value in inputs(config, **options).items()}
