"""Commands called as from a command line."""

import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState
from labelled_faces import faces, model  # noqa: F401 they are fixtures
from PIL import Image

from modeling_pcl.commands.main import main
from modeling_pcl.commands.probe import parse as parse_probe
from modeling_pcl.pictures import faces as faces_module
from modeling_pcl.pictures import style
from modeling_pcl.probes.probe import run_probe

SIDE_PX = 32


@pytest.fixture(autouse=True)
def fresh_accelerate_state():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


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
def probe(model, tmp_path_factory):  # noqa: F811 the fixture
    """Run a probe of the tiny model, or of another, into a folder; features are shared by all tests.

    Pictures, which take a third of a probe's time, are blank unless a test asks for them.
    """
    features = tmp_path_factory.mktemp("features")

    def run(folder: Path, task: str, *options, size: int = SIDE_PX, model: Path = model, drawn: bool = False) -> str:
        common = (model, "--output_dir", folder, "--image_size", size, "--cache_dir", features, "--task", task)
        with pytest.MonkeyPatch.context() as patch:
            for module in () if drawn else (style, faces_module):
                patch.setattr(module, "render_figure", lambda figure: Image.new("RGB", (8, 8)))
            return run_probe(parse_probe([str(word) for word in (*common, *options)], "pcl probe"))

    return run
