import pytest
import torch

from modeling_pcl import PCLConfig, PCLModel
from modeling_pcl.probes.features import extract_features

CONFIG = PCLConfig(image_size=32, hidden_sizes=[4, 4, 4, 8], feature_channels=4, projection_size=8, decoder_size=16)


def test_features_of_batches_equal_those_of_all_images_at_once():
    model = PCLModel(CONFIG).train()
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    features = extract_features(model, images.split(2))
    with torch.no_grad():
        outputs = model(images.float() / 255)
    # A convolution may sum in another order for another batch size.
    torch.testing.assert_close(features["trunk"], outputs.pooler_output, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features["face"], outputs.face_features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features["pose"], outputs.pose_features, rtol=1e-4, atol=1e-5)


def test_no_images_are_an_error():
    with pytest.raises(ValueError, match="no images"):
        extract_features(PCLModel(CONFIG), [])
