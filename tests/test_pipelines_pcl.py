"""The pipelines with models that are open already; `test_remote_code` opens them from folders, without this package."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from photos import group, portrait
from PIL import Image
from torch.nn import functional as F
from transformers import (
    AutoModelForImageClassification,
    ImageClassificationPipeline,
    ImageFeatureExtractionPipeline,
    ResNetConfig,
    ResNetForImageClassification,
    ViTImageProcessor,
    pipeline,
)

from modeling_pcl import (
    FaceClassificationPipeline,
    FaceFeatureExtractionPipeline,
    FaceSwapPosePipeline,
    FaceVerificationPipeline,
    HeadPoseEstimationPipeline,
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLImageProcessor,
    PCLModel,
)
from modeling_pcl.head_pose_pcl import AXIS_COLOURS, draw_axes, turn_back
from modeling_pcl.swap_pcl import split_for_swap

PROCESSOR = PCLImageProcessor.for_image_size(32)


def face(seed: int, size: tuple[int, int] = (50, 60)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pixels(*images: Image.Image) -> torch.Tensor:
    return PROCESSOR(list(images), return_tensors="pt")["pixel_values"]


def make(task: str, model_class: type, **changes):
    torch.manual_seed(1)
    return pipeline(task, model=model_class(tiny.config(**changes)).eval(), image_processor=PROCESSOR)


def as_bytes(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def estimate():
    return make("head-pose-estimation", PCLForHeadPoseEstimation)


@pytest.fixture(scope="module")
def verify():
    return make("face-verification", PCLModel, verification_feature="pose", verification_threshold=0.5)


@pytest.fixture(scope="module")
def swap():
    return make("face-swap-pose", PCLForPreTraining)


class TestHeadPose:
    @torch.no_grad()
    def test_it_says_the_models_angles(self, estimate):
        expected = estimate.model(pixels(face(0))).logits[0].tolist()
        assert list(estimate(face(0)).values()) == pytest.approx(expected, abs=1e-6)
        assert list(estimate(face(0))) == ["yaw", "pitch", "roll"]

    @pytest.mark.parametrize("batch_size", [1, 2])
    def test_a_list_gives_what_each_alone_gives(self, estimate, batch_size):
        faces = [face(seed, (40 + seed, 50)) for seed in range(5)]
        together = estimate(faces, batch_size=batch_size, draw=True)
        for image, said in zip(faces, together):
            alone = estimate(image)
            assert [said[name] for name in alone] == pytest.approx(list(alone.values()), abs=1e-5)
            assert said["image"].size == image.size

    def test_a_path_and_base64_are_images_too(self, estimate, tmp_path):
        face(0).save(tmp_path / "face.png")
        encoded = base64.b64encode(as_bytes(face(0))).decode()
        assert estimate(str(tmp_path / "face.png")) == estimate(face(0)) == estimate(encoded)

    def test_the_stock_classification_pipeline_says_degrees_and_not_probabilities(self, estimate):
        classify = pipeline("image-classification", model=estimate.model, image_processor=PROCESSOR)
        assert {each["label"]: each["score"] for each in classify(face(0))} == pytest.approx(estimate(face(0)))


@pytest.mark.parametrize(
    ("angles", "axis", "expected"),
    [((40, 0, 0), "nose", (1, 0)), ((0, 40, 0), "nose", (0, -1)), ((0, 0, 40), "top", (0.64, -0.77))],
)
def test_axes_are_drawn_where_the_convention_says(angles, axis, expected):
    drawn = np.asarray(draw_axes(Image.new("L", (120, 100), 255), *angles)).astype(int)
    assert drawn.shape == (100, 120, 3)
    down, right = np.nonzero(np.abs(drawn - AXIS_COLOURS[axis]).max(axis=2) < 40)
    direction = np.array([right.mean() - 60, down.mean() - 50])
    assert direction / np.linalg.norm(direction) == pytest.approx(expected, abs=0.15)


class TestVerification:
    def test_the_similarity_is_the_cosine_of_the_stored_feature(self, verify):
        with torch.no_grad():
            one, other = verify.model(pixels(face(0), face(1))).pose_features
        said = verify({"image": face(0), "other": face(1)})
        cosine = F.cosine_similarity(one, other, dim=0).item()
        assert said == {"similarity": pytest.approx(cosine, abs=1e-6), "threshold": 0.5, "same": cosine >= 0.5}
        assert verify((face(0), face(0)))["similarity"] == pytest.approx(1)

    def test_another_feature_has_no_threshold_unless_it_is_given(self, verify):
        pair = (face(0), face(1))
        assert verify(pair, feature="trunk")["threshold"] is None
        assert verify(pair, feature="trunk")["same"] is None
        assert verify(pair, feature="trunk", threshold=-1.0)["same"] is True
        assert verify(pair, threshold=1.5)["same"] is False

    def test_face_and_pose_may_be_compared_together(self, verify):
        with torch.no_grad():
            outputs = verify.model(pixels(face(0), face(1)))
        one, other = torch.cat([outputs.face_features, outputs.pose_features], dim=1)
        expected = F.cosine_similarity(one, other, dim=0).item()
        assert verify((face(0), face(1)), feature="face+pose")["similarity"] == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_a_list_gives_what_each_pair_alone_gives(self, verify, batch_size):
        pairs = [(face(seed), face(seed + 10)) for seed in range(4)]
        for pair, said in zip(pairs, verify(pairs, batch_size=batch_size)):
            assert said["similarity"] == pytest.approx(verify(pair)["similarity"], abs=1e-5)

    def test_an_identity_embedding_is_compared_as_it_is(self):
        changes = {"num_labels": 5, "problem_type": "regression", "verification_threshold": 0.1}
        verify = make("face-verification", PCLForImageClassification, **changes)
        with torch.no_grad():
            one, other = verify.model(pixels(face(0), face(1))).logits
        said = verify((face(0), face(1)))
        assert said["similarity"] == pytest.approx(F.cosine_similarity(one, other, dim=0).item(), abs=1e-6)
        assert said["threshold"] == 0.1

    def test_a_pre_training_model_compares_by_its_encoder(self):
        verify = make("face-verification", PCLForPreTraining)
        alone = FaceVerificationPipeline(model=verify.model.pcl, image_processor=PROCESSOR)
        assert verify((face(0), face(1))) == alone((face(0), face(1)))

    @pytest.mark.parametrize("wrong", [{"image": 1}, (1, 2, 3), {"image": 1, "pose": 2}, "face.png"])
    def test_what_is_not_two_images_is_refused(self, verify, wrong):
        with pytest.raises(ValueError, match=r"Give two images, as \{'image': \.\.\., 'other': \.\.\.\}"):
            verify(wrong)

    def test_an_unknown_feature_is_refused(self, verify):
        with pytest.raises(ValueError, match=r"must be one of trunk, face, pose, face\+pose, got 'nose'"):
            verify((face(0), face(1)), feature="nose")


class TestSwap:
    @pytest.mark.parametrize("batch_size", [1, 2])
    @torch.no_grad()
    def test_it_draws_the_face_of_one_in_the_pose_of_the_other(self, swap, batch_size):
        outputs = swap.model.pcl(pixels(face(0), face(1)))
        decoded = swap.model.decode(outputs.face_features[:1], outputs.pose_features[1:])[0]
        expected = (decoded.clamp(0, 1) * 255).permute(1, 2, 0).numpy()
        pictures = swap([{"face": face(0), "pose": face(1)}, (face(1), face(0))], batch_size=batch_size)
        assert [picture.size for picture in pictures] == [(32, 32)] * 2
        assert np.asarray(pictures[0]) == pytest.approx(expected, abs=0.6)
        assert not np.array_equal(*map(np.asarray, pictures))

    @torch.no_grad()
    def test_it_turns_the_face_of_one_as_the_other(self, swap):
        kept, exchanged = split_for_swap(swap.model.pcl, pixels(face(0), face(1)), "turn")
        expected = (swap.model.decode(kept[:1], exchanged[1:])[0].clamp(0, 1) * 255).permute(1, 2, 0).numpy()
        assert np.asarray(swap((face(0), face(1)), exchange="turn")) == pytest.approx(expected, abs=0.6)
        with pytest.raises(ValueError, match="`exchange` must be one of pose, turn, got 'side'"):
            swap((face(0), face(1)), exchange="side")


class TestSavedFolders:
    @pytest.mark.parametrize(
        ("model_class", "changes", "tasks"),
        [
            (PCLModel, {}, {"image-feature-extraction", "face-verification"}),
            (PCLForPreTraining, {}, {"image-feature-extraction", "face-swap-pose", "face-verification"}),
            (PCLForHeadPoseEstimation, {}, {"head-pose-estimation"}),
            (PCLForImageClassification, {"problem_type": "regression"}, {"face-verification"}),
            (PCLForImageClassification, {"problem_type": "single_label_classification"}, {"image-classification"}),
        ],
    )
    def test_a_folder_offers_what_its_model_can_do(self, tmp_path, model_class, changes, tasks):
        folder = tmp_path / "saved"
        tiny.save(folder, model_class, **changes)
        saved = model_class.config_class.from_pretrained(folder)
        assert set(saved.custom_pipelines) == tasks
        opened = model_class.from_pretrained(folder)
        assert opened.config.custom_pipelines == {}
        opened.save_pretrained(tmp_path / "again")
        assert model_class.config_class.from_pretrained(tmp_path / "again").custom_pipelines == saved.custom_pipelines

    def test_image_classification_opens_each_head_as_what_it_is(self, tmp_path):
        for model_class in (PCLForHeadPoseEstimation, PCLForImageClassification):
            tiny.save(tmp_path / model_class.__name__, model_class)
            opened = AutoModelForImageClassification.from_pretrained(tmp_path / model_class.__name__)
            assert type(opened) is model_class


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One saved folder of each kind of model."""
    kinds = {
        "encoder": (PCLModel, {}),
        "pre-training": (PCLForPreTraining, {}),
        "head pose": (PCLForHeadPoseEstimation, {}),
        "classes": (PCLForImageClassification, {"problem_type": "single_label_classification"}),
        "embedding": (PCLForImageClassification, {"problem_type": "regression"}),
    }
    root = tmp_path_factory.mktemp("folders")
    for name, (model_class, changes) in kinds.items():
        tiny.save(root / name, model_class, **changes)
    return {name: root / name for name in kinds}


FIRST_TASKS = {
    "encoder": "image-feature-extraction",
    "pre-training": "image-feature-extraction",
    "head pose": "head-pose-estimation",
    "classes": "image-classification",
    "embedding": "face-verification",
}


class TestWithThePackage:
    @pytest.mark.parametrize(
        ("kind", "task", "pipeline_class", "model_class"),
        [
            ("encoder", "image-feature-extraction", FaceFeatureExtractionPipeline, PCLModel),
            ("encoder", "face-verification", FaceVerificationPipeline, PCLModel),
            ("pre-training", "image-feature-extraction", FaceFeatureExtractionPipeline, PCLModel),
            ("pre-training", "face-verification", FaceVerificationPipeline, PCLForPreTraining),
            ("pre-training", "face-swap-pose", FaceSwapPosePipeline, PCLForPreTraining),
            ("head pose", "head-pose-estimation", HeadPoseEstimationPipeline, PCLForHeadPoseEstimation),
            ("head pose", "image-feature-extraction", FaceFeatureExtractionPipeline, PCLModel),
            ("classes", "image-classification", FaceClassificationPipeline, PCLForImageClassification),
            ("embedding", "face-verification", FaceVerificationPipeline, PCLForImageClassification),
        ],
    )
    @pytest.mark.parametrize("options", [{}, {"trust_remote_code": True}], ids=["", "trusted"])
    def test_a_folder_opens_without_its_code(self, folders, kind, task, pipeline_class, model_class, options, capsys):
        opened = pipeline(task, model=str(folders[kind]), **options)
        assert type(opened) is pipeline_class
        assert type(opened.model) is model_class
        assert "custom code" not in capsys.readouterr().out  # transformers asks there for trust.

    @pytest.mark.parametrize(("kind", "task"), FIRST_TASKS.items())
    def test_a_folder_names_its_task(self, folders, kind, task):
        assert pipeline(model=str(folders[kind])).task == task

    @pytest.mark.parametrize(
        ("model_class", "options"),
        [(PCLModel, {}), (PCLForPreTraining, {"trust_remote_code": False}), (PCLForHeadPoseEstimation, {})],
    )
    def test_a_repository_names_its_task(self, hub, tmp_path, model_class, options):
        model_class(tiny.config()).push_to_hub("user/model")
        PROCESSOR.push_to_hub("user/model")
        opened = pipeline(model="user/model", model_kwargs={"cache_dir": tmp_path}, **options)
        is_head = model_class is PCLForHeadPoseEstimation
        assert opened.task == ("head-pose-estimation" if is_head else "image-feature-extraction")

    def test_files_are_opened_as_in_training(self, folders, tmp_path):
        Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "transparent.png")
        extract = pipeline("image-feature-extraction", model=str(folders["encoder"]))
        assert extract(str(tmp_path / "transparent.png")) == extract(Image.new("RGB", (40, 40), "white"))

    def test_models_of_others_have_transformers_own_pipelines(self, tmp_path):
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
        ResNetForImageClassification(config).save_pretrained(tmp_path)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
        classify = pipeline("image-classification", model=str(tmp_path))
        assert type(classify) is ImageClassificationPipeline
        assert len(classify(face(0))) == 2
        assert type(pipeline("image-feature-extraction", model=str(tmp_path))) is ImageFeatureExtractionPipeline


class TestWrongModels:
    @pytest.mark.parametrize(
        ("kind", "task", "words"),
        [
            ("encoder", "head-pose-estimation", "must be a PCLForHeadPoseEstimation, got a PCLModel"),
            ("encoder", "face-swap-pose", "must be a PCLForPreTraining, got a PCLModel"),
            ("encoder", "image-classification", "was saved as a PCLModel, and a PCLForImageClassification would have"),
            ("pre-training", "image-classification", "was saved as a PCLForPreTraining"),
            ("classes", "face-verification", "predicts classes or a number"),
            ("head pose", "face-verification", "got a PCLForHeadPoseEstimation"),
            ("classes", "head-pose-estimation", "got a PCLForImageClassification"),
        ],
    )
    def test_a_folder_of_another_kind_is_refused(self, folders, kind, task, words):
        with pytest.raises(ValueError, match=words):
            pipeline(task, model=str(folders[kind]))

    @pytest.mark.parametrize(
        ("model_class", "pipeline_class"),
        [
            (PCLModel, FaceClassificationPipeline),
            (PCLForPreTraining, FaceFeatureExtractionPipeline),
            (PCLForImageClassification, FaceFeatureExtractionPipeline),
            (PCLModel, FaceSwapPosePipeline),
            (PCLForPreTraining, HeadPoseEstimationPipeline),
            (PCLForHeadPoseEstimation, FaceVerificationPipeline),
        ],
    )
    def test_a_model_of_another_kind_is_refused(self, model_class, pipeline_class):
        with pytest.raises(
            ValueError, match=f"`model` of a {pipeline_class.__name__} must be a .* got a {model_class.__name__}"
        ):
            pipeline_class(model_class(tiny.config()), image_processor=PROCESSOR)

    def test_a_folder_of_another_network_is_refused(self, tmp_path):
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
        ResNetForImageClassification(config).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="must be a PCLForHeadPoseEstimation, got a ResNetForImageClassification"):
            pipeline("head-pose-estimation", model=str(tmp_path), image_processor=PROCESSOR)


def test_head_pose_in_a_photo_is_that_of_the_cut_face_turned_back(tmp_path):
    tiny.save(tmp_path / "model", PCLForHeadPoseEstimation)
    estimate = pipeline("head-pose-estimation", str(tmp_path / "model"))
    photo = portrait().rotate(-20, Image.Resampling.BICUBIC)
    (face,) = estimate.image_processor.cut_faces(photo, most_faces=1)
    assert abs(face.square.angle_deg) > 10
    alone = estimate(face.image)
    first, second = estimate([photo, photo], detect=True, draw=True, batch_size=2)
    expected = turn_back(alone["yaw"], alone["pitch"], alone["roll"], face.square.angle_deg)
    assert [first[angle] for angle in ("yaw", "pitch", "roll")] == pytest.approx(expected, abs=1e-4)
    assert first["box"] == second["box"] == pytest.approx(face.box.tolist())
    assert first["image"].size == photo.size
    with pytest.raises(ValueError, match="No face is found"):
        estimate(Image.new("RGB", (200, 200)), detect=True)
    assert "yaw" in estimate(Image.new("RGB", (200, 200)), detect=True, on_no_face="whole")


def test_the_largest_faces_of_two_photos_are_compared(tmp_path):
    tiny.save(tmp_path / "model", PCLModel)
    verify = pipeline("face-verification", str(tmp_path / "model"))
    photos = group((40, 100, 1.0), (400, 100, 1.5)), portrait()
    cut = tuple(verify.image_processor.cut_faces(photo, most_faces=1)[0] for photo in photos)
    answer = verify(photos, detect=True)
    assert answer["boxes"] == [pytest.approx(face.box.tolist()) for face in cut]
    assert answer["similarity"] == pytest.approx(verify(tuple(face.image for face in cut))["similarity"], abs=1e-5)
