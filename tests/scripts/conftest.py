"""Scripts called as from a command line, a model, and corpora whose labels can be seen in the images."""

import importlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset, Image
from PIL import Image as PILImage
from transformers import HfArgumentParser

from modeling_pcl import PCLForPreTraining

SCRIPTS = Path(__file__).parents[2] / "scripts"
COLOURS = np.array([(220, 30, 30), (30, 220, 30), (30, 30, 220)])
SIDE_PX = 32


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(3)
    PCLForPreTraining(tiny.config()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def scripts():
    """The scripts as modules, by name."""
    sys.path.insert(0, str(SCRIPTS))
    yield importlib.import_module
    sys.path.remove(str(SCRIPTS))


@pytest.fixture
def call(scripts, monkeypatch):
    """Run a script's `main` with these arguments."""

    def run(name: str, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        scripts(name).main()

    return run


@pytest.fixture
def refused(call, capsys):
    """Run a script that must end with exit code 1; its one line of error, which the bars of progress go before."""

    def run(name: str, *arguments) -> str:
        with pytest.raises(SystemExit) as stop:
            call(name, *arguments)
        assert stop.value.code == 1
        _, error, said = capsys.readouterr().err.strip().partition("error: ")
        assert error
        assert said
        assert "\n" not in said
        return said

    return run


@pytest.fixture(scope="session")
def probe(scripts, model, tmp_path_factory):
    """Run a probe of the tiny model into a folder; features are shared by all tests."""
    features = tmp_path_factory.mktemp("features")

    def run(folder: Path, task: str, *options, size: int = SIDE_PX) -> str:
        script = scripts("probe")
        own = ["--model", model, "--output_dir", folder, "--image_size", size, "--cache_dir", features]
        parser = HfArgumentParser(script.ProbeArguments)
        words = [str(word) for word in ("--task", task, *own, *options)]  # Options of a test come last, and win.
        (arguments,) = parser.parse_args_into_dataclasses(words)
        return script.probe(arguments)

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
