import pytest
import tiny
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline

from modeling_pcl import PCLForHeadPoseEstimation, PCLForImageClassification, PCLModel
from modeling_pcl.features_pcl import READABLE_FEATURES, read_feature
from modeling_pcl.probes.heads import build_head, save_embedding, save_head, set_head

EXPRESSIONS = ("angry", "happy", "neutral")
SIZE = 48


@pytest.fixture
def encoder() -> PCLModel:
    return PCLModel(tiny.config()).eval()


def linear(outputs: int, encoder: PCLModel, parts: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    dim = parts * encoder.config.feature_channels * (SIZE // 16) ** 2
    return torch.randn(outputs, dim), torch.randn(outputs)


def photos(count: int) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(256, (count, 60, 50, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(image.numpy()) for image in pixels]


@pytest.mark.parametrize("feature", READABLE_FEATURES)
def test_a_saved_head_is_the_linear_layer_on_the_encoders_feature(encoder, tmp_path, feature):
    encoder.config.mirror_invariant_face = True
    weight, bias = linear(3, encoder, parts=feature.count("+") + 1)
    model = build_head(encoder, "expression", EXPRESSIONS, feature, SIZE)
    set_head(model, weight, bias)
    save_head(model, tmp_path)
    opened = PCLForImageClassification.from_pretrained(tmp_path).eval()
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        rows = read_feature(encoder(images), feature)
        torch.testing.assert_close(opened(images).logits, rows @ weight.T + bias)
    assert opened.config.id2label == dict(enumerate(EXPRESSIONS))
    assert opened.config.label2id == {"angry": 0, "happy": 1, "neutral": 2}
    assert opened.config.problem_type == "single_label_classification"
    assert opened.config.head_feature == feature
    # A head that does not read the face feature does not pay for the mirror.
    assert opened.config.mirror_invariant_face == ("face" in feature)


@pytest.mark.parametrize(
    ("task", "labels", "probabilities"),
    [
        ("expression", EXPRESSIONS, lambda logits: logits.softmax(dim=1)),
        ("action_units", ("AU1", "AU12"), torch.sigmoid),
    ],
)
def test_a_pipeline_says_what_the_probe_says(encoder, tmp_path, task, labels, probabilities):
    weight, bias = linear(len(labels), encoder)
    model = build_head(encoder, task, labels, "face", SIZE)
    set_head(model, weight, bias)
    save_head(model, tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    with torch.no_grad():
        rows = encoder(processor(photos(6), return_tensors="pt")["pixel_values"]).face_features
    outputs = pipeline("image-classification", model=str(tmp_path), trust_remote_code=True)(photos(6))
    for answers, shares in zip(outputs, probabilities(rows @ weight.T + bias)):
        assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(
            dict(zip(labels, shares.tolist())), abs=1e-5
        )


def test_head_pose_opens_as_what_it_is_and_an_embedding_as_logits(encoder, tmp_path):
    (weight, bias), (rows, shift) = linear(3, encoder), linear(5, encoder)
    model = build_head(encoder, "head_pose", ("yaw", "pitch", "roll"), "pose", SIZE)
    set_head(model, weight, bias)
    save_head(model, tmp_path / "pose")
    save_embedding(encoder, rows, shift, "face", SIZE, tmp_path / "embedding")
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        poses = PCLForHeadPoseEstimation.from_pretrained(tmp_path / "pose").eval()(images).logits
        embeddings = PCLForImageClassification.from_pretrained(tmp_path / "embedding").eval()(images).logits
        features = encoder(images)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(poses, features.pose_features @ weight.T + bias, **close)
    torch.testing.assert_close(embeddings, features.face_features @ rows.T + shift, **close)


def test_the_encoder_and_torchs_random_state_stay_as_they_were(encoder):
    state, before = torch.get_rng_state(), {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    first, second = (build_head(encoder, "expression", EXPRESSIONS, "face", SIZE) for _ in range(2))
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert torch.equal(torch.get_rng_state(), state)
    set_head(first, torch.zeros_like(first.classifier.weight), torch.zeros(3))
    first.pcl.trunk.requires_grad_(False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert encoder.config.image_size == 32


def test_what_does_not_fit_is_refused(encoder):
    with pytest.raises(ValueError, match="different names"):
        build_head(encoder, "expression", ("happy", "happy"), "face", SIZE)
    model = build_head(encoder, "expression", EXPRESSIONS, "face", SIZE)
    with pytest.raises(ValueError, match=r"must be \(3, 72\) and \(3,\), got \(3, 70\) and \(3,\)"):
        set_head(model, torch.zeros(3, 70), torch.zeros(3))
