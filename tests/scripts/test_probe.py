import importlib.util
import json
import sys
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from modeling_pcl import PCLForPreTraining, PCLModel

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def call(monkeypatch):
    def run(name: str, *arguments: str):
        specification = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        monkeypatch.setitem(sys.modules, name, module)  # Dataclasses look their module up.
        specification.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        module.main()

    return run


@pytest.fixture
def model_folder(tmp_path) -> Path:
    torch.manual_seed(3)
    PCLForPreTraining(tiny.config()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def subjects(train: str, test: str) -> list[str]:
    return ["--train", "orl", "--train_subjects", train, "--test", "orl", "--test_subjects", test]


def test_verification_writes_what_it_measured_beside_random_initialisations(call, model_folder, tmp_path, capsys):
    out = tmp_path / "out"
    call("probe", "--model", model_folder, *subjects("s1-s4", "s31-s34"), "--random_seeds", "2", "--output_dir", out)
    record = json.loads((out / "results.json").read_text())
    assert set(record["results"]) == {"trunk", "face", "pose"}
    for values in (*record["results"].values(), *(seed["face"] for seed in record["random_initialisations"])):
        assert 0.5 < values["auc"] < 1  # Even random features tell forty ORL images apart better than chance.
        assert 0.4 < values["accuracy"] < 1
    assert len(record["random_initialisations"]) == 2
    assert record["random_initialisations"][0] != record["random_initialisations"][1]
    assert f"{record['results']['face']['auc']:.3f}" in capsys.readouterr().out


def test_the_random_initialisation_measured_is_that_of_the_named_seed(call, model_folder, tmp_path):
    torch.manual_seed(0)
    PCLModel(tiny.config()).save_pretrained(tmp_path / "seed0")
    out = tmp_path / "out"
    options = ("--random_seeds", "1", "--output_dir", out)
    call("probe", "--model", tmp_path / "seed0", *subjects("s1-s3", "s31-s33"), *options)
    record = json.loads((out / "results.json").read_text())
    assert record["random_initialisations"] == [record["results"]]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [("s1-s4", "s4-s6", "same people are in train and test: s4"), ("s1-s4", "s99", "s99")],
)
def test_people_in_both_parts_or_in_none_are_refused(call, model_folder, capsys, train, test, message):
    with pytest.raises(SystemExit) as stop:
        call("probe", "--model", model_folder, *subjects(train, test))
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("picture", ["swaps", "reconstructions"])
def test_swaps_are_drawn_to_a_file(call, model_folder, tmp_path, picture):
    call("show_swaps", "--model", model_folder, "--output", tmp_path / "new" / "swaps.png", "--picture", picture)
    with Image.open(tmp_path / "new" / "swaps.png") as image:
        assert image.size[0] > 800
        assert len(image.convert("L").getcolors()) > 50


def test_a_model_that_does_not_exist_is_one_clear_line(call, capsys):
    with pytest.raises(SystemExit) as stop:
        call("show_swaps", "--model", "/nowhere/model")
    assert stop.value.code == 1
    assert "/nowhere/model" in capsys.readouterr().err
