"""What all commands do alike: broken models, signals."""

import logging
import os
import runpy
import signal
from pathlib import Path

import pytest
import tiny
from accelerate.state import AcceleratorState, GradientState
from refusals import refused as stopped
from safetensors.torch import load_file, save_file

from modeling_pcl import PCLForPreTraining
from modeling_pcl.commands import swaps
from modeling_pcl.commands.main import COMMANDS

DOORS = {
    "embed": ("--corpus", "faces", "--output_dir", "out"),
    "export": ("--output_dir", "out"),
    "probe": ("--task", "verification", "--test", "faces", "--output_dir", "out"),
    "push": ("user/pcl", "--dry_run", "--onnx", "false"),
    "show": ("--corpus", "faces", "--output_dir", "out"),
    "swaps": ("--corpus", "faces", "--output_dir", "out"),
    "pretrain": ("--corpus", "faces", "--output_dir", "out", "--report_to", "none"),
}


@pytest.fixture
def model(tmp_path) -> Path:
    tiny.save(tmp_path / "model", PCLForPreTraining)
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def fresh_accelerate_state():
    """Of the run that `pretrain` begins."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def set_nan(model: Path):
    tensors = load_file(model / "model.safetensors")
    tensors["pcl.face_branch.conv1.weight"].view(-1)[5] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def cut_short(model: Path):
    os.truncate(model / "model.safetensors", 3000)


@pytest.mark.parametrize("command", DOORS)
@pytest.mark.parametrize(("damage", "reason"), [(set_nan, "are not finite"), (cut_short, "deserializing header")])
def test_every_command_refuses_a_broken_model_in_one_line(
    command, damage, reason, model, refused, tmp_path, monkeypatch, faces
):
    monkeypatch.chdir(tmp_path)
    faces([0, 1, 2, 0]).to_parquet(tmp_path / "faces" / "faces.parquet")
    damage(model)
    given = ("--init_from", model) if command == "pretrain" else (model,)
    assert reason in refused(command, *given, *DOORS[command])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_command_in_one_line(call, monkeypatch, number, tmp_path):
    monkeypatch.setattr(swaps, "run", lambda arguments: os.kill(os.getpid(), number))
    with stopped("^stopped; the same command goes on where it can\n$", status=128 + number):
        call("swaps", "nothing", "--output_dir", tmp_path)


def test_a_log_has_what_this_package_says_and_only_warnings_of_others(call, monkeypatch, capsys, tmp_path):
    def run(arguments):
        for name in ("modeling_pcl.anything", "onnxruntime"):
            logging.getLogger(name).info("said by %s", name)

    with monkeypatch.context() as patch:
        patch.setattr(logging.root, "handlers", [])
        patch.setattr(swaps, "run", run)
        call("swaps", "nothing", "--output_dir", tmp_path)
    errors = capsys.readouterr().err
    assert "INFO said by modeling_pcl.anything" in errors
    assert "onnxruntime" not in errors


SCRIPTS = [
    path
    for path in sorted((Path(__file__).parents[2] / "scripts").glob("*.py"))
    if "from modeling_pcl.commands.main import main" in path.read_text()
]


def test_there_are_scripts():
    assert {"pretrain", "probe", "push_to_hub"} <= {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_the_command_that_it_names(script, monkeypatch):
    called = []
    monkeypatch.setattr("modeling_pcl.commands.main.main", called.append)
    runpy.run_path(str(script), run_name="__main__")
    (name,) = called
    assert name in COMMANDS
    assert f"`pcl {name}`" in script.read_text()
