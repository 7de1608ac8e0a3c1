from collections.abc import Callable
from pathlib import Path

import golden
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel

from modeling_pcl import PCLForHeadPoseEstimation, PCLForImageClassification, PCLForPreTraining


@pytest.fixture
def convert(call, tmp_path):
    def run(state_dict: dict, *options: str) -> Path:
        named = {f"module.{name}": tensor for name, tensor in state_dict.items()}
        torch.save({"epoch": 999, "state_dict": named}, tmp_path / "checkpoint.pth")
        call("convert", tmp_path / "checkpoint.pth", "--output_dir", tmp_path / "out", *options)
        return tmp_path / "out"

    return run


@torch.no_grad()
def test_a_converted_folder_opens_and_holds_the_published_features(convert):
    folder = convert(golden.reference_state_dict())
    values, images = golden.golden_values(), golden.inputs()["images"]
    encoder = AutoModel.from_pretrained(folder).eval()
    assert golden.relative_error(encoder(images).face_features, values["eval/face"]) < 1e-5
    model = PCLForPreTraining.from_pretrained(folder).eval()
    outputs = model.pcl(images)
    drawn = model.decode(outputs.face_features, outputs.pose_features)[:, :, ::4, ::4]
    assert golden.relative_error(drawn, values["eval/recon_face_pose"]) < 1e-5
    assert AutoImageProcessor.from_pretrained(folder).crop_size["height"] == 64


def linear_evaluation(width: int, labels: int) -> dict:
    tensors = {name: tensor for name, tensor in golden.reference_state_dict().items() if name.startswith("encoder.")}
    return tensors | {
        "linear_classifier.weight": torch.rand(labels, width),
        "linear_classifier.bias": torch.rand(labels),
    }


def test_a_linear_evaluation_checkpoint_becomes_a_classifier_at_its_size(convert):
    tensors = linear_evaluation(6272, 7)
    folder = convert(tensors, "--head_feature", "face")
    model = PCLForImageClassification.from_pretrained(folder)
    assert torch.equal(model.classifier.weight, tensors["linear_classifier.weight"])
    assert (model.config.image_size, model.config.num_labels, model.config.head_feature) == (100, 7, "face")
    assert AutoImageProcessor.from_pretrained(folder).size["shortest_edge"] == 100


@pytest.mark.parametrize(
    ("task", "labels", "model_class"),
    [("classification", 7, PCLForImageClassification), ("head_pose", 3, PCLForHeadPoseEstimation)],
)
@torch.no_grad()
def test_a_classifier_of_face_and_pose_together_keeps_its_logits(convert, task, labels, model_class):
    tensors = linear_evaluation(2 * 2048, labels)
    model = model_class.from_pretrained(convert(tensors, "--head_feature", "face+pose", "--task", task)).eval()
    assert (model.config.image_size, model.config.head_feature) == (64, "face+pose")
    images = golden.inputs()["images"]
    outputs = model.pcl(images)
    features = torch.cat([outputs.face_features, outputs.pose_features], dim=1)
    weight, bias = (tensors[f"linear_classifier.{name}"] for name in ("weight", "bias"))
    torch.testing.assert_close(model(images).logits, features @ weight.T + bias)


def test_a_head_pose_checkpoint_becomes_a_head_pose_model(convert):
    tensors = linear_evaluation(2048, 3)
    model = PCLForHeadPoseEstimation.from_pretrained(convert(tensors, "--task", "head_pose"))
    assert torch.equal(model.regressor.bias, tensors["linear_classifier.bias"])


def assert_refused(convert: Callable, capsys: pytest.CaptureFixture, message: str, *arguments):
    """One line on standard error, exit status 1, and nothing written."""
    with pytest.raises(SystemExit) as stop:
        convert(*arguments)
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_a_checkpoint_that_does_not_fit_ends_in_one_line_and_writes_nothing(convert, tmp_path, capsys):
    tensors = golden.reference_state_dict()
    del tensors["decoder.fc.bias"]
    assert_refused(convert, capsys, "missing: decoder.fc.bias", tensors)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_are_refused_by_name(convert, tmp_path, capsys):
    tensors = golden.reference_state_dict()
    tensors["decoder.fc.bias"][0] = float("nan")
    assert_refused(convert, capsys, "decoder.fc.bias` are not finite", tensors)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "head_pose"), "predicts 7 values, head pose has 3: yaw, pitch, roll"),
        (("--image_size", "100"), "reads 2048 features, images of 100 px have 6272"),
        (("--head_feature", "face+pose"), "reads 2048 features, not 256 times a square"),
        (("--image_size", "16"), "`image_size` must be at least 32 px, got 16"),
    ],
)
def test_options_that_do_not_fit_the_classifier_are_refused(options, message, convert, tmp_path, capsys):
    assert_refused(convert, capsys, message, linear_evaluation(2048, 7), *options)
    assert not (tmp_path / "out").exists()


def test_an_image_size_with_as_many_features_may_be_chosen(convert):
    model = PCLForImageClassification.from_pretrained(convert(linear_evaluation(6272, 7), "--image_size", "112"))
    assert model.config.image_size == 112
