import os
import pickle
from collections import OrderedDict
from pathlib import Path

import golden
import pytest
import torch
from torch import nn

from modeling_pcl import PCLConfig, PCLForImageClassification, PCLForPreTraining
from modeling_pcl.hub.conversion import (
    REFERENCE_MODULES,
    convert_reference_state_dict,
    infer_image_size,
    load_reference_checkpoint,
    revert_to_reference_state_dict,
)


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    """The published network's tensors, by the authors' names. Not to be changed."""
    return golden.reference_state_dict()


@pytest.fixture
def published_model() -> PCLForPreTraining:
    """The shapes alone, without memory."""
    with torch.device("meta"):
        return PCLForPreTraining(PCLConfig())


def backbone(reference: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in reference.items() if name.startswith("encoder.")}


def linear_evaluation(reference: dict[str, torch.Tensor], labels: int = 7, side: int = 4) -> dict[str, torch.Tensor]:
    """Backbone plus a linear layer on the flattened trunk of `16 * side` px images."""
    layer = nn.Linear(128 * side * side, labels)
    return backbone(reference) | {f"linear_classifier.{name}": value for name, value in layer.state_dict().items()}


# The names


def test_key_map_is_a_bijection_onto_the_models_modules(published_model):
    holders = {name.rpartition(".")[0] for name in published_model.state_dict()}
    assert set(REFERENCE_MODULES.values()) == holders
    assert len(set(REFERENCE_MODULES.values())) == len(REFERENCE_MODULES)


def test_published_names_convert_onto_the_whole_model(reference, published_model):
    shapes = {name: tuple(tensor.shape) for name, tensor in published_model.state_dict().items()}
    converted = convert_reference_state_dict(reference)
    assert {name: tuple(tensor.shape) for name, tensor in converted.items()} == shapes


@pytest.mark.parametrize("prefix", ["", "module."])
def test_converting_and_reverting_returns_every_tensor(prefix, reference):
    converted = convert_reference_state_dict({f"{prefix}{name}": tensor for name, tensor in reference.items()})
    reverted = revert_to_reference_state_dict(converted)
    assert reverted.keys() == reference.keys()
    assert all(reverted[name] is tensor for name, tensor in reference.items())


def test_reverting_and_converting_returns_every_tensor():
    state_dict = PCLForPreTraining(PCLConfig()).state_dict()
    converted = convert_reference_state_dict(revert_to_reference_state_dict(state_dict))
    assert converted.keys() == state_dict.keys()
    assert all(converted[name] is tensor for name, tensor in state_dict.items())


# What does not fit


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", ["encoder.layer1.2.theta.bias", "decoder.model.3.running_var", "exp_fc.3.weight"])
def test_a_missing_tensor_is_named(name, prefix, reference):
    state_dict = {f"{prefix}{key}": tensor for key, tensor in reference.items() if key != name}
    with pytest.raises(ValueError, match=f"missing: {name}"):
        convert_reference_state_dict(state_dict)


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layer4.0.weight",
        "encoder.conv1.0.running_mean",
        "fc.weight",
        "epoch",
        "module.module.encoder.conv1.0.weight",
        "pcl.trunk.stages.0.conv1.weight",  # this package's name for a tensor that is there under the authors'
    ],
)
def test_an_extra_tensor_is_named(name, reference):
    with pytest.raises(ValueError, match=f"not part of the network: {name.removeprefix('module.')}"):
        convert_reference_state_dict(reference | {name: torch.zeros(3)})


def test_a_tensor_given_twice_is_named(reference):
    twice = reference | {"module.encoder.conv1.0.bias": torch.zeros(64)}
    with pytest.raises(ValueError, match=r"encoder\.conv1\.0\.bias"):
        convert_reference_state_dict(twice)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_misshapen_tensor_is_named_with_both_shapes(prefix, reference):
    state_dict = {f"{prefix}{name}": tensor for name, tensor in reference.items()}
    state_dict[f"{prefix}exp_fc.2.weight"] = torch.zeros(128, 2048)
    with pytest.raises(ValueError, match=r"exp_fc\.2\.weight is \(128, 2048\), must be \(512, 2048\)"):
        convert_reference_state_dict(state_dict)


def test_every_complaint_is_made_at_once(reference):
    state_dict = reference | {"encoder.conv1.0.bias": torch.zeros(1), "extra": torch.zeros(1)}
    del state_dict["decoder.fc.bias"]
    with pytest.raises(ValueError, match=r"missing: decoder\.fc\.bias; .*network: extra; encoder\.conv1\.0\.bias is"):
        convert_reference_state_dict(state_dict)


def test_reverting_names_what_does_not_fit():
    with torch.device("meta"):
        state_dict = PCLForPreTraining(PCLConfig()).state_dict()
        del state_dict["decoder.fc.bias"]
        state_dict["pcl.trunk.stages.0.conv1.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"missing: decoder\.fc\.bias; .*conv1\.bias is \(3,\), must be \(64,\)"):
        revert_to_reference_state_dict(state_dict)


# Linear evaluation


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(("side", "image_size"), [(4, 64), (7, 100)])
@torch.no_grad()
def test_linear_evaluation_checkpoint_gives_the_logits_of_backbone_and_layer(prefix, side, image_size, reference):
    state_dict = linear_evaluation(reference, side=side)
    converted = convert_reference_state_dict({f"{prefix}{name}": tensor for name, tensor in state_dict.items()})
    assert infer_image_size(converted["classifier.weight"], PCLConfig()) == image_size
    model = PCLForImageClassification(PCLConfig(image_size=image_size, num_labels=7)).eval()
    model.load_state_dict(converted)
    images = torch.rand(2, 3, image_size, image_size)
    trunk = model.pcl(images).pooler_output
    expected = trunk @ state_dict["linear_classifier.weight"].T + state_dict["linear_classifier.bias"]
    torch.testing.assert_close(model(images).logits, expected)


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@torch.no_grad()
def test_a_batch_norm_in_front_of_the_layer_is_folded_into_it(affine, reference):
    head = nn.Sequential(nn.BatchNorm1d(2048, affine=affine), nn.Linear(2048, 7)).double()
    features = 3 * torch.randn(64, 2048, dtype=torch.float64) + 1
    head(features)  # moves the running statistics off their start
    for parameter in head[0].parameters():
        parameter.uniform_(0.5, 2)
    head.eval()
    state_dict = backbone(reference) | {f"linear_classifier.{name}": value for name, value in head.state_dict().items()}
    converted = convert_reference_state_dict(state_dict)
    folded = features @ converted["classifier.weight"].T + converted["classifier.bias"]
    # float64; a float32 computation of the two would agree to 1e-6.
    torch.testing.assert_close(folded, head(features), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_a_layer_without_bias_gets_one_of_zeros(reference):
    state_dict = linear_evaluation(reference)
    del state_dict["linear_classifier.bias"]
    converted = convert_reference_state_dict(state_dict)
    assert torch.equal(converted["classifier.bias"], torch.zeros(7))


def test_heads_and_decoder_that_lie_beside_a_classifier_are_left_out(reference):
    model_class = PCLForImageClassification(PCLConfig(num_labels=7))
    converted = convert_reference_state_dict(reference | linear_evaluation(reference))
    assert converted.keys() == model_class.state_dict().keys()


NORM = {
    "0.weight": torch.ones(2048),
    "0.bias": torch.zeros(2048),
    "0.running_mean": torch.zeros(2048),
    "0.running_var": torch.ones(2048),
    "0.num_batches_tracked": torch.tensor(1),
    "1.weight": torch.zeros(7, 2048),
    "1.bias": torch.zeros(7),
}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"0.running_var": None}, "0.running_var"),
        ({"0.bias": None}, "0.bias"),
        ({"0.weight": None}, "0.weight"),
        ({"0.running_mean": torch.zeros(7)}, "0.running_mean"),
        ({"0.running_var": torch.zeros(2, 2048)}, "0.running_var"),
        ({"0.bias": torch.zeros(1)}, "0.bias"),
        ({"1.bias": torch.zeros(6)}, "1.bias"),
        ({"1.weight": torch.zeros(7)}, "1.weight"),
        ({"1.weight": None}, "1.bias"),
        ({"2.weight": torch.zeros(7, 7)}, "2.weight"),
        ({"2.running_mean": torch.zeros(7)}, "2.running_mean"),
        ({"0.scale": torch.zeros(7)}, "0.scale"),
    ],
)
def test_a_classifier_that_is_not_norm_and_layer_is_refused_by_name(changes, name, reference):
    tensors = {key: tensor for key, tensor in (NORM | changes).items() if tensor is not None}
    state_dict = backbone(reference) | {f"linear_classifier.{key}": tensor for key, tensor in tensors.items()}
    with pytest.raises(ValueError, match=rf"linear_classifier\.{name}"):
        convert_reference_state_dict(state_dict)


def test_a_backbone_that_does_not_fit_is_named_beside_a_classifier_too(reference):
    state_dict = linear_evaluation(reference) | {"encoder.extra.weight": torch.zeros(1)}
    del state_dict["encoder.conv1.0.bias"]
    with pytest.raises(ValueError, match=r"missing: encoder\.conv1\.0\.bias; .*network: encoder\.extra\.weight"):
        convert_reference_state_dict(state_dict)


@pytest.mark.parametrize(("side", "image_size"), [(4, 64), (7, 100), (16, 256)])
def test_a_classifier_of_face_and_pose_is_twice_as_wide_at_the_same_image_size(side, image_size):
    config = PCLConfig(head_feature="face+pose")
    assert infer_image_size(torch.zeros(7, 2 * 128 * side**2), config) == image_size
    with pytest.raises(ValueError, match=r"not 256 times a square of 2 or more; is `face\+pose` what it reads\?"):
        infer_image_size(torch.zeros(7, 128 * side**2), config)


@pytest.mark.parametrize("features", [2047, 100, 128, 128 * 15])
def test_a_width_that_no_image_size_gives_is_refused(features):
    with pytest.raises(ValueError, match=f"reads {features} features"):
        infer_image_size(torch.zeros(7, features), PCLConfig())


# The file


class Payload:
    """Unpickled, it would create a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("is_zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_that_runs_code_is_refused_and_the_code_is_not_run(is_zipped, tmp_path):
    proof, path = tmp_path / "executed", tmp_path / "malicious.pth"
    torch.save(
        {"state_dict": {"weight": torch.zeros(1)}, "epoch": Payload(proof)},
        path,
        _use_new_zipfile_serialization=is_zipped,
    )
    with pytest.raises(ValueError, match=r"malicious\.pth .* opened safely"):
        load_reference_checkpoint(str(path))
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists(), "the payload is harmless and proves nothing"


@pytest.mark.parametrize("content", [{"epoch": 3, "state_dict": OrderedDict(a=torch.ones(2))}, {"a": torch.ones(2)}])
def test_a_state_dict_is_read_bare_or_from_its_entry(content, tmp_path):
    torch.save(content, tmp_path / "checkpoint.pth")
    state_dict = load_reference_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert list(state_dict) == ["a"]
    assert torch.equal(state_dict["a"], torch.ones(2))


@pytest.mark.parametrize("content", [{"epoch": 3}, {"state_dict": {}}, {"state_dict": [1]}, [torch.ones(2)], None])
def test_a_file_without_a_state_dict_is_refused_by_its_name(content, tmp_path):
    torch.save(content, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=r"checkpoint\.pth holds no `state_dict`"):
        load_reference_checkpoint(str(tmp_path / "checkpoint.pth"))


def test_a_file_that_is_no_checkpoint_is_refused_by_its_name(tmp_path):
    path = tmp_path / "photo.pth"
    path.write_bytes(b"\x89PNG" + pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"photo\.pth"):
        load_reference_checkpoint(str(path))
    with pytest.raises(FileNotFoundError):
        load_reference_checkpoint(str(tmp_path / "absent.pth"))
