import golden
import pytest
import torch
from torch import nn

from modeling_pcl import PCLConfig, PCLForImageClassification, PCLForPreTraining
from modeling_pcl.hub.conversion import (
    classifier_image_size,
    convert_reference_state_dict,
    load_reference_checkpoint,
    revert_to_reference_state_dict,
)


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return golden.reference_state_dict()


def backbone(reference: dict) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in reference.items() if name.startswith("encoder.")}


def test_every_tensor_of_the_model_comes_from_one_tensor_of_the_reference(reference):
    converted = convert_reference_state_dict(reference)
    with torch.device("meta"):
        expected = PCLForPreTraining(PCLConfig()).state_dict()
    assert converted.keys() == expected.keys()
    assert len({id(tensor) for tensor in converted.values()}) == len(reference)


def test_converting_back_gives_the_reference_again(reference):
    back = revert_to_reference_state_dict(convert_reference_state_dict(reference))
    assert back.keys() == reference.keys()
    assert all(torch.equal(back[name], reference[name]) for name in reference)


def test_the_prefix_of_parallel_training_is_taken_off(reference):
    prefixed = {f"module.{name}": tensor for name, tensor in reference.items()}
    assert convert_reference_state_dict(prefixed).keys() == convert_reference_state_dict(reference).keys()


def test_a_missing_tensor_is_named(reference):
    broken = {name: tensor for name, tensor in reference.items() if name != "encoder.conv1.0.bias"}
    with pytest.raises(ValueError, match=r"missing: encoder\.conv1\.0\.bias\."):
        convert_reference_state_dict(broken)


def test_an_extra_tensor_is_named_as_in_the_file(reference):
    broken = {f"module.{name}": tensor for name, tensor in reference.items()} | {"module.extra.weight": torch.ones(1)}
    with pytest.raises(ValueError, match=r"not part of the network: .*extra\.weight"):
        convert_reference_state_dict(broken)


def test_a_misshapen_tensor_is_named_with_both_shapes(reference):
    broken = reference | {"exp_fc.2.weight": torch.ones(512, 2047)}
    with pytest.raises(ValueError, match=r"exp_fc\.2\.weight is \(512, 2047\), must be \(512, 2048\)"):
        convert_reference_state_dict(broken)


@pytest.mark.parametrize(("width", "image_size"), [(2048, 64), (6272, 100)])
def test_a_linear_evaluation_checkpoint_gives_the_same_logits(reference, width, image_size):
    torch.manual_seed(0)
    linear = nn.Linear(width, 7)
    tensors = {f"linear_classifier.{name}": tensor for name, tensor in linear.state_dict().items()}
    converted = convert_reference_state_dict(backbone(reference) | tensors)
    assert classifier_image_size(converted["classifier.weight"], PCLConfig()) == image_size
    model = PCLForImageClassification(PCLConfig(image_size=image_size, num_labels=7)).eval()
    model.load_state_dict(converted)
    images = torch.rand(2, 3, image_size, image_size)
    with torch.no_grad():
        torch.testing.assert_close(model(images).logits, linear(model.pcl(images).pooler_output))


def test_a_batch_norm_in_front_of_the_classifier_is_folded_in(reference):
    torch.manual_seed(0)
    head = nn.Sequential(nn.BatchNorm1d(2048), nn.Linear(2048, 3))
    head[0].weight.data.uniform_(0.5, 2)
    head[0].bias.data.normal_()
    head[0].running_mean.normal_()
    head[0].running_var.uniform_(0.5, 2)
    tensors = {f"linear_classifier.{name}": tensor for name, tensor in head.eval().state_dict().items()}
    converted = convert_reference_state_dict(backbone(reference) | tensors)
    features = torch.randn(5, 2048)
    folded = features @ converted["classifier.weight"].T + converted["classifier.bias"]
    with torch.no_grad():
        torch.testing.assert_close(folded, head(features), rtol=1e-4, atol=1e-4)  # 2048 terms, summed otherwise.


def test_heads_that_a_linear_evaluation_file_still_holds_are_left_out(reference):
    tensors = {"linear_classifier.weight": torch.ones(7, 2048), "linear_classifier.bias": torch.ones(7)}
    converted = convert_reference_state_dict(reference | tensors)
    assert not [name for name in converted if name.startswith(("decoder", "face_projection", "pose_projection"))]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"linear_classifier.bias": torch.ones(7)}, "one linear layer"),
        (
            {"linear_classifier.0.weight": torch.ones(7, 2048), "linear_classifier.1.weight": torch.ones(7, 7)},
            "one linear layer",
        ),
        (
            {"linear_classifier.weight": torch.ones(7, 2048), "linear_classifier.scale": torch.ones(7)},
            r"not part of it: \['linear_classifier.scale'\]",
        ),
    ],
)
def test_a_classifier_of_another_form_is_refused(reference, tensors, message):
    with pytest.raises(ValueError, match=message):
        convert_reference_state_dict(backbone(reference) | tensors)


def test_a_classifier_width_that_is_no_square_map_is_refused():
    with pytest.raises(ValueError, match="reads 2047 features"):
        classifier_image_size(torch.ones(7, 2047), PCLConfig())


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    torch.save({"state_dict": {"a": Payload(tmp_path / "ran")}}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth .* opened safely"):
        load_reference_checkpoint(str(tmp_path / "bad.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"state_dict": {"a": 1}}, [1, 2]])
def test_a_file_without_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="no `state_dict` of tensors"):
        load_reference_checkpoint(str(tmp_path / "empty.pth"))


def test_a_missing_file_and_a_file_that_is_no_checkpoint_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_reference_checkpoint(str(tmp_path / "none.pth"))
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"text\.pth is not a checkpoint"):
        load_reference_checkpoint(str(tmp_path / "text.pth"))
