import re

import pytest
import tiny
import torch

from modeling_pcl import PCLConfig, PCLModel
from modeling_pcl.features_pcl import FEATURES, READABLE_FEATURES, feature_parts, read_feature


@torch.no_grad()
def test_a_name_reads_one_of_the_models_outputs_or_two_with_the_face_first():
    torch.manual_seed(0)
    config = tiny.config()
    outputs = PCLModel(config).eval()(tiny.images(config, 3))
    for name, output in FEATURES.items():
        assert torch.equal(read_feature(outputs, name), outputs[output])
    face, pose = read_feature(outputs, "face+pose").split(config.feature_size, dim=1)
    assert torch.equal(face, outputs.face_features)
    assert torch.equal(pose, outputs.pose_features)


def test_the_parts_of_every_readable_feature_are_features_and_make_its_length():
    for name in READABLE_FEATURES:
        assert set(feature_parts(name)) <= set(FEATURES)
        config = PCLConfig(head_feature=name)
        assert config.head_size == len(feature_parts(name)) * config.feature_size


@pytest.mark.parametrize("name", ["nose", "pose+face", "trunk+face", "face+", ""])
def test_another_name_is_refused_with_those_that_there_are(name):
    with pytest.raises(ValueError, match=re.escape(f"must be one of trunk, face, pose, face+pose, got {name!r}")):
        feature_parts(name)
