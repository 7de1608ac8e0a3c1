import importlib
import json
import subprocess
import sys
from dataclasses import fields

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from modeling_pcl import PCLConfig

OWN_FIELDS = {field.name for field in fields(PCLConfig)} - {field.name for field in fields(PreTrainedConfig)}
CHANGED = {
    "image_size": 96,
    "num_channels": 1,
    "hidden_sizes": [4, 6, 8, 10],
    "feature_channels": 12,
    "negative_slope": 0.2,
    "mirror_invariant_face": True,
    "projection_hidden_size": 14,
    "projection_size": 16,
    "decoder_size": 20,
    "decoder_image_size": 32,
    "disentangling_weight": 2.0,
    "face_contrast_weight": 3.0,
    "pose_contrast_weight": 0.5,
    "orthogonality": "cosine",
    "orthogonality_weight": 10.0,
    "turn_weight": 2.0,
    "face_temperature": 0.2,
    "pose_temperature": 0.3,
    "pose_negatives": "batch",
    "pose_negative_gradient": False,
    "head_feature": "face+pose",
    "verification_feature": "face+pose",
    "verification_threshold": 0.25,
    "auto_map": {"AutoConfig": "configuration_pcl.PCLConfig"},
    "custom_pipelines": {"face-verification": {"impl": "pipelines_pcl.FaceVerificationPipeline"}},
}


@pytest.mark.parametrize(("image_size", "feature_size"), [(64, 2048), (100, 6272), (256, 32768), (32, 512)])
def test_features_of_the_published_model_have_the_published_length(image_size, feature_size):
    assert PCLConfig(image_size=image_size).feature_size == feature_size


@pytest.mark.parametrize(("feature", "parts"), [("trunk", 1), ("face", 1), ("pose", 1), ("face+pose", 2)])
def test_a_head_reads_one_feature_or_two(feature, parts):
    assert PCLConfig(head_feature=feature).head_size == parts * 2048


def test_hidden_width_of_the_projection_follows_the_features_unless_it_is_given():
    assert PCLConfig().projection_hidden == 2048
    assert PCLConfig(feature_channels=32).projection_hidden == 512
    assert PCLConfig(projection_hidden_size=7).projection_hidden == 7


def test_objective_weights_name_the_three_objectives_in_order():
    config = PCLConfig(disentangling_weight=1, face_contrast_weight=2, pose_contrast_weight=3)
    assert list(config.objective_weights.items()) == [("disentangling", 1), ("face_contrast", 2), ("pose_contrast", 3)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 31),
        ("image_size", 64.0),
        ("image_size", "64"),
        ("num_channels", 0),
        ("hidden_sizes", [4, 4, 4]),
        ("hidden_sizes", [4, 4, 4, 0]),
        ("hidden_sizes", 64),
        ("feature_channels", 0),
        ("negative_slope", 1.0),
        ("negative_slope", -0.1),
        ("projection_hidden_size", 0),
        ("projection_size", 0),
        ("decoder_size", 0),
        ("decoder_size", 6),
        ("decoder_image_size", 7),
        ("disentangling_weight", -1.0),
        ("face_contrast_weight", float("inf")),
        ("pose_contrast_weight", float("nan")),
        ("orthogonality", "published"),
        ("orthogonality_weight", -1),
        ("turn_weight", -1),
        ("face_temperature", 0),
        ("pose_temperature", float("nan")),
        ("pose_negatives", "none"),
        ("head_feature", "both"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(name, value):
    with pytest.raises(StrictDataclassError, match=name):
        PCLConfig(**{name: value})


def test_a_range_error_carries_a_value_error():
    with pytest.raises(StrictDataclassError) as error:
        PCLConfig(image_size=16)
    assert isinstance(error.value.__cause__, ValueError)


def test_every_field_survives_saving_and_loading(tmp_path):
    assert set(CHANGED) == OWN_FIELDS
    config = PCLConfig(**CHANGED, num_labels=5, problem_type="multi_label_classification")
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, PCLConfig)
    for name, value in CHANGED.items():
        assert value != getattr(PCLConfig(), name), f"{name} is at its default and proves nothing"
        if name != "auto_map":  # saving adds an entry
            assert getattr(loaded, name) == value, name
    assert loaded.num_labels == 5
    assert loaded.problem_type == "multi_label_classification"
    assert json.loads(loaded.to_json_string()) == json.loads(config.to_json_string())


def test_a_tuple_of_widths_is_as_good_as_a_list():
    assert PCLConfig(hidden_sizes=(4, 6, 8, 10)).hidden_sizes == [4, 6, 8, 10]
    assert PCLConfig(hidden_sizes=(4, 6, 8, 10)).to_dict() == PCLConfig(hidden_sizes=[4, 6, 8, 10]).to_dict()


def test_auto_map_points_to_classes_that_exist_and_is_not_shared():
    config = PCLConfig()
    for reference in config.auto_map.values():
        module, _, name = reference.partition(".")
        assert getattr(importlib.import_module(f"modeling_pcl.{module}"), name).__name__ == name
    config.auto_map["AutoModel"] = "changed"
    assert PCLConfig().auto_map["AutoModel"] == "modeling_pcl.PCLModel"


def test_every_field_is_described():
    for name in OWN_FIELDS:
        assert f"\n        {name}: " in PCLConfig.__doc__, name


def test_importing_the_package_needs_nothing_that_only_training_and_probes_need():
    # transformers imports accelerate by itself where it is installed, so both are hidden: None makes an import fail.
    code = (
        "import sys; hidden = ('accelerate', 'datasets'); sys.modules.update(dict.fromkeys(hidden))\n"
        "import modeling_pcl\n"
        "modeling_pcl.PCLModel(modeling_pcl.PCLConfig(hidden_sizes=[1, 1, 1, 1]))\n"
        "assert not [name for name in sys.modules if name.startswith(('accelerate.', 'datasets.'))]\n"
        "assert not [name for name in sys.modules if name.startswith(('modeling_pcl.data', 'modeling_pcl.training'))]\n"
        "assert not {'matplotlib', 'onnx', 'onnxruntime', 'sklearn', 'evaluate'} & sys.modules.keys()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_quarter_of_the_width_is_what_the_docstring_says():
    quarter = PCLConfig().scaled(0.25)
    assert quarter.hidden_sizes == [16, 32, 32, 64]
    assert (quarter.feature_channels, quarter.projection_size, quarter.decoder_size) == (32, 128, 128)
    assert PCLConfig(image_size=100, face_temperature=0.2).scaled(1.0).to_dict() == (
        PCLConfig(image_size=100, face_temperature=0.2).to_dict()
    )
    with pytest.raises(ValueError, match="`factor`"):
        PCLConfig().scaled(0)
