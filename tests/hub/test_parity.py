"""A folder is opened by a stranger, and compared with what it was."""

import shutil
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file, save_file

from modeling_pcl import PCLForHeadPoseEstimation, PCLForPreTraining, PCLModel
from modeling_pcl.hub.parity import check_parity, write_parity

MODELS = {
    PCLModel: {"pooler_output", "face_features", "pose_features"},
    PCLForPreTraining: {"pooler_output", "face_features", "pose_features", "decoded"},
    PCLForHeadPoseEstimation: {"pooler_output", "face_features", "pose_features", "logits"},
}


def save(folder: Path, model_class: type) -> Path:
    write_parity(tiny.save(folder, model_class), folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "saved", PCLForPreTraining)


@pytest.mark.parametrize("model_class", MODELS)
def test_the_tensors_are_the_same_again_and_name_every_output(tmp_path, model_class):
    first, second = (save(tmp_path / name, model_class) / "parity.safetensors" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    tensors = load_file(first)
    assert tensors.keys() == MODELS[model_class] | {"pixel_values"}
    assert tensors["pixel_values"].shape == (2, 3, 32, 32)


def test_other_weights_are_noticed(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    weights["pcl.trunk.stages.0.conv1.bias"].add_(1)
    save_file(weights, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"computes another `\w+` than its parity.safetensors holds: they differ by"):
        check_parity(tmp_path / "other")


def test_code_that_is_missing_is_noticed(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / "decoder_pcl.py").unlink()
    with pytest.raises(ValueError, match=r"does not open where modeling_pcl is not installed: .*decoder_pcl"):
        check_parity(tmp_path / "other")
