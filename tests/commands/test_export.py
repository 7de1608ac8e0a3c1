"""The command that writes ONNX files, and the command that runs them over a corpus."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from datasets import load_dataset
from exported import exported  # noqa: F401 a fixture
from onnxruntime import InferenceSession
from transformers import BertConfig

from modeling_pcl import PCLForHeadPoseEstimation, PCLModel

PARTS = ["last_hidden_state", "pooler_output", "face_features", "pose_features"]


@pytest.fixture
def files(exported) -> Path:  # noqa: F811
    return exported / "onnx"


def test_a_pre_training_model_gives_encoder_small_encoder_and_decoder_and_how_far_they_are_from_torch(files):
    assert {path.name for path in files.iterdir()} == {
        "model.onnx",
        "model_quantized.onnx",
        "decoder_model.onnx",
        "export.json",
    }
    record = json.loads((files / "export.json").read_text())
    assert (record["model"], record["class"]) == ("user/exported", "PCLForPreTraining")
    assert record["image_size"] == 32
    assert {"torch", "onnx", "onnxruntime"} == record["versions"].keys()
    differences = record["files"]["model.onnx"]["largest_difference"]
    assert list(differences) == PARTS
    assert 0 < max(differences.values()) < 1e-5
    assert 0 < record["files"]["decoder_model.onnx"]["largest_difference"]["images"] < 1e-5
    errors = record["files"]["model_quantized.onnx"]["relative_error"]
    assert list(errors) == PARTS
    assert all(1e-4 < error < 0.1 for error in errors.values())


@torch.no_grad()
def test_the_command_exports_the_class_that_was_saved_and_prints_a_table(call, tmp_path, capsys):
    model = PCLForHeadPoseEstimation(tiny.config(head_feature="face+pose")).eval()
    model.save_pretrained(tmp_path / "model")
    call("export", tmp_path / "model", "--output_dir", tmp_path / "model" / "onnx")
    folder = tmp_path / "model" / "onnx"
    assert sorted(path.name for path in folder.iterdir()) == ["export.json", "model.onnx"]
    images = tiny.images(model.config, 3)
    session = InferenceSession(folder / "model.onnx")
    logits, face = session.run(["logits", "face_features"], {"pixel_values": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(images).logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(face), model.pcl(images).face_features, rtol=0, atol=1e-5)
    printed = capsys.readouterr().out
    assert [line.split()[2] for line in printed.splitlines()[2:]] == [*PARTS, "logits"]


def test_what_is_no_pcl_model_is_refused_in_one_line_and_nothing_is_written(refused, tmp_path):
    assert "The model `runs/none` does not open" in refused("export", "runs/none", "--output_dir", tmp_path / "onnx")
    BertConfig().save_pretrained(tmp_path / "bert")
    assert "The model" in refused("export", tmp_path / "bert", "--output_dir", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize(("file", "tolerance"), [("model.onnx", 1e-4), ("model_quantized.onnx", 0.1)])
@torch.no_grad()
def test_embed_runs_a_file_over_a_corpus(file, tolerance, call, files, exported, faces, tmp_path):  # noqa: F811
    corpus = faces([row % 3 for row in range(9)], expression=[row % 3 for row in range(9)])
    corpus.to_parquet(tmp_path / "faces.parquet")
    options = ("--backend", "onnx", "--corpus", tmp_path / "faces.parquet", "--output_dir", tmp_path / "out")
    call("embed", files / file, *options, "--image_size", 40, "--batch_size", 4)
    found = load_dataset("parquet", data_files=str(tmp_path / "out/*.parquet"), split="train").with_format("torch")[:]
    call("embed", exported, *options[2:-1], tmp_path / "torch", "--image_size", 40)
    expected = load_dataset("parquet", data_files=str(tmp_path / "torch/*.parquet"), split="train").with_format(
        "torch"
    )[:]
    for name in ("trunk", "face", "pose"):
        error = (found[name] - expected[name]).norm() / expected[name].norm()
        assert error < tolerance
        assert (error > 1e-3) == ("quantized" in file)
    assert found["expression"].tolist() == expected["expression"].tolist()
    record = json.loads((tmp_path / "out" / "embed.json").read_text())
    assert record["versions"]["onnxruntime"]


def test_embed_says_which_backend_a_model_needs(refused, files, model, faces, tmp_path):
    faces([0, 1]).to_parquet(tmp_path / "faces.parquet")
    options = ("--corpus", tmp_path / "faces.parquet", "--output_dir", tmp_path / "out")
    assert "add `--backend onnx`" in refused("embed", files / "model.onnx", *options)
    assert "`pcl export` writes one" in refused("embed", model, *options, "--backend", "onnx")
    onnx = (files / "model.onnx", "--backend", "onnx")
    assert "`--precision` must be float32" in refused("embed", *onnx, *options, "--precision", "bf16")
    assert "`none.onnx` does not open" in refused("embed", "none.onnx", *options, "--backend", "onnx")
    assert "is no PCL encoder" in refused("embed", files / "decoder_model.onnx", *options, "--backend", "onnx")
    assert not (tmp_path / "out").exists()


def test_an_exported_encoder_without_a_head_takes_other_sizes_than_its_models(files):
    session = InferenceSession(files / "model.onnx")
    shapes = [
        session.run(["face_features"], {"pixel_values": torch.rand(2, 3, side, 50).numpy()})[0].shape
        for side in (32, 33)
    ]
    assert shapes == [(2, 8 * 2 * 4), (2, 8 * 3 * 4)]
    assert PCLModel(tiny.config())(torch.rand(2, 3, 33, 50)).face_features.shape == shapes[1]
