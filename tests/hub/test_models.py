import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from modeling_pcl import PCLForPreTraining, PCLModel
from modeling_pcl.hub.models import open_encoder, open_model


@pytest.fixture
def folder(tmp_path) -> Path:
    tiny.save(tmp_path / "model", PCLForPreTraining)
    return tmp_path / "model"


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("code-was-run",)


def set_weight(value: float) -> Callable:
    def set_in(folder: Path):
        tensors = load_file(folder / "model.safetensors")
        tensors["pcl.trunk.stages.0.conv1.bias"][1] = value
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return set_in


def change_config(**changes) -> Callable:
    def change(folder: Path):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def pickle_weights(folder: Path):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(RunsCode()))


def save_code_with_weights(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors | {"more": RunsCode()}, folder / "pytorch_model.bin")


DAMAGES = {
    "NaN": (set_weight(float("nan")), r"the weights `(pcl\.)?trunk.stages.0.conv1.bias` of .* are not finite"),
    "infinite": (set_weight(float("-inf")), "are not finite"),
    "truncated": (lambda folder: os.truncate(folder / "model.safetensors", 5000), "deserializing header"),
    "empty": (lambda folder: os.truncate(folder / "model.safetensors", 0), "deserializing header"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no file named"),
    "pickled": (pickle_weights, "pickled and holds more than tensors"),
    "code with weights": (save_code_with_weights, "pickled and holds more than tensors"),
    "a list": (lambda folder: (folder / "config.json").write_text("[1]"), "must hold a JSON object, got a list"),
    "null": (lambda folder: (folder / "config.json").write_text("null"), "must hold a JSON object, got a NoneType"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON"),
    "types": (change_config(hidden_sizes="many"), "hidden_sizes"),
    "names": (change_config(architectures=5), "`architectures` must be a list of names"),
    "sizes": (change_config(hidden_sizes=[4, 6, 10, 14]), r"conv\d.\w+` of .* is \(.*\), and by its config \("),
}


@pytest.mark.parametrize("opens", [open_encoder, open_model])
@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_broken_folder_is_one_line_that_says_what_is_wrong(folder, monkeypatch, opens, damage, message):
    monkeypatch.chdir(folder.parent)
    damage(folder)
    with pytest.raises(ValueError, match=message) as refusal:
        opens(str(folder))
    assert str(refusal.value).startswith(f"The model `{folder}` does not open: ")
    assert "\n" not in str(refusal.value)
    assert not Path("code-was-run").exists()


def test_a_finite_model_opens_with_and_without_an_account_of_its_keys(folder):
    model, account = PCLModel.from_pretrained(folder, output_loading_info=True)
    assert not account["missing_keys"]
    assert torch.equal(model.trunk.stages[0].conv1.bias, PCLModel.from_pretrained(folder).trunk.stages[0].conv1.bias)


def test_other_sizes_open_where_they_are_asked_for(folder):
    change_config(hidden_sizes=[4, 6, 10, 14])(folder)
    assert PCLModel.from_pretrained(folder, ignore_mismatched_sizes=True).config.hidden_sizes == [4, 6, 10, 14]
