import pytest
import torch
from datasets import Dataset
from datasets import Image as Images
from PIL import Image

from modeling_pcl import PCLConfig, PCLModel
from modeling_pcl.hub.models import model_digest
from modeling_pcl.probes import encoder
from modeling_pcl.probes.encoder import Encoder, encode, extract_features

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


@pytest.mark.parametrize("is_fast", [True, False])
def test_bf16_features_are_near_those_of_float32_and_kept_in_bf16(is_fast, monkeypatch):
    monkeypatch.setattr(encoder, "has_fast_bfloat16", lambda device_type: is_fast)
    model = PCLModel(CONFIG)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    exact = extract_features(model, [images])
    rough = encode(model, images)
    for name, rows in exact.items():
        assert rough[name].dtype == torch.bfloat16
        # Eight bits of mantissa through sixteen layers.
        torch.testing.assert_close(rough[name].float(), rows, rtol=0, atol=0.05 * float(rows.abs().max()))
        assert torch.equal(rough[name], rows.bfloat16()) is not is_fast  # Where it is slow, float32 computes.


def test_a_digest_is_of_the_weights_and_sizes_and_nothing_else():
    torch.manual_seed(0)
    model = PCLModel(CONFIG)
    digest = model_digest(model)
    torch.manual_seed(0)
    assert model_digest(PCLModel(CONFIG)) == digest
    assert model_digest(model.to(memory_format=torch.channels_last)) == digest
    with torch.no_grad():
        next(model.pose_branch.parameters())[0, 0, 0, 0] += 1e-3
    assert model_digest(model) != digest
    torch.manual_seed(0)
    sloped = PCLConfig(**(CONFIG.to_dict() | {"negative_slope": 0.2}))
    assert model_digest(PCLModel(sloped)) != digest


def test_cached_face_features_are_not_taken_for_those_of_image_and_mirror(tmp_path):
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8).numpy()
    corpus = Dataset.from_dict({"image": [Image.fromarray(image) for image in pixels]})
    corpus = corpus.cast_column("image", Images(decode=False))
    model, features = PCLModel(CONFIG), []
    for value in (False, True, False):
        model.config.mirror_invariant_face = value
        model.save_pretrained(tmp_path / "model")
        table = Encoder(str(tmp_path / "model"), str(tmp_path / "cache")).extract(corpus, 32, "float32", "faces")
        features.append({name: table.features[name][:] for name in ("face", "pose")})
    plain, averaged, again = features
    assert not torch.allclose(plain["face"], averaged["face"])
    assert torch.equal(plain["face"], again["face"])
    torch.testing.assert_close(plain["pose"], averaged["pose"])
