"""Commands called as from a command line."""

import sys
from pathlib import Path

import pytest
from labelled_faces import faces, model  # noqa: F401 they are fixtures

from modeling_pcl.commands.main import main
from modeling_pcl.commands.probe import parse as parse_probe
from modeling_pcl.probes.probe import run_probe

SIDE_PX = 32


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
    """Run a probe of the tiny model, or of another, into a folder; features are shared by all tests."""
    features = tmp_path_factory.mktemp("features")

    def run(folder: Path, task: str, *options, size: int = SIDE_PX, model: Path = model) -> str:
        common = (model, "--output_dir", folder, "--image_size", size, "--cache_dir", features, "--task", task)
        return run_probe(parse_probe([str(word) for word in (*common, *options)], "pcl probe"))

    return run
