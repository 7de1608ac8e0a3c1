"""A model, and corpora whose labels can be seen in the images."""

import io
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset, Image
from PIL import Image as PILImage

from modeling_pcl import PCLForPreTraining

COLOURS = np.array([(220, 30, 30), (30, 220, 30), (30, 30, 220)])


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(3)
    PCLForPreTraining(tiny.config()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def faces():
    """A corpus of images of nearly one colour each, no two alike, to which columns can be added.

    Colours are `(rows, 3)`, or the number of one of three, `(rows,)`; None stands for an image that does not decode.
    """

    def make(colours, seed: int = 0, **columns) -> Dataset:
        generator = np.random.default_rng(seed)
        images = [{"bytes": _png(colour, generator), "path": None} for colour in colours]
        return Dataset.from_dict({"image": images, **columns}).cast_column("image", Image(decode=False))

    return make


def _png(colour, generator: np.random.Generator) -> bytes:
    if colour is None:
        return b"no image"
    pixels = np.asarray(COLOURS[colour] if np.ndim(colour) == 0 else colour) + generator.integers(-8, 9, (40, 36, 3))
    file = io.BytesIO()
    PILImage.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
