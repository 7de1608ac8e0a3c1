"""Commands called as from a command line, a model, and corpora whose labels can be seen in the images."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset, Image
from PIL import Image as PILImage

from modeling_pcl import PCLForPreTraining
from modeling_pcl.commands.main import main
from modeling_pcl.commands.probe import parse as parse_probe
from modeling_pcl.probes.probe import probe as run_probe

COLOURS = np.array([(220, 30, 30), (30, 220, 30), (30, 30, 220)])
SIDE_PX = 32


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(3)
    PCLForPreTraining(tiny.config()).save_pretrained(folder)
    return folder


@pytest.fixture
def call(monkeypatch):
    """Run `pcl` with these words."""

    def run(name: str, *words):
        monkeypatch.setattr(sys, "argv", ["pcl", name, *map(str, words)])
        main()

    return run


@pytest.fixture
def refused(call, capsys):
    """Run a command that must end with exit status 1; its one line of error, which the bars of progress go before."""

    def run(name: str, *words) -> str:
        with pytest.raises(SystemExit) as stop:
            call(name, *words)
        assert stop.value.code == 1
        _, error, message = capsys.readouterr().err.strip().partition("error: ")
        assert error
        assert message
        assert "\n" not in message
        return message

    return run


@pytest.fixture(scope="session")
def probe(model, tmp_path_factory):
    """Run a probe of the tiny model, or of another, into a folder; features are shared by all tests."""
    features = tmp_path_factory.mktemp("features")

    def run(folder: Path, task: str, *options, size: int = SIDE_PX, model: Path = model) -> str:
        common = (model, "--output_dir", folder, "--image_size", size, "--cache_dir", features, "--task", task)
        return run_probe(parse_probe([str(word) for word in (*common, *options)], "pcl probe"))

    return run


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
