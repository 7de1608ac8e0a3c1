"""The weights that stand in this repository."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from modeling_pcl import PCLForPreTraining, PCLImageProcessor
from modeling_pcl.hub.models import model_digest
from modeling_pcl.hub.repository import CHARTS

FOLDER = Path(__file__).parents[1] / "hub_cards" / "pcl-small-faces"
SAMPLES = Path(__file__).parents[1] / "hub_cards" / "space" / "samples"


def test_they_open_whole_and_tell_drawn_people_apart():
    model, loading = PCLForPreTraining.from_pretrained(FOLDER, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    processor = PCLImageProcessor.from_pretrained(FOLDER)
    faces = [Image.open(path) for path in sorted(SAMPLES.glob("*.png"))]
    with torch.no_grad():
        outputs = model.pcl.eval()(**processor(faces, return_tensors="pt"))
        drawn = model.eval().decode(outputs.face_features, outputs.pose_features)
    assert drawn.isfinite().all()
    assert drawn.flatten(1).std(dim=0).mean() > 0.02  # A mean face for all would have 0.
    faces = torch.nn.functional.normalize(outputs.face_features - outputs.face_features.mean(dim=0))
    people = torch.arange(len(faces)) // 3  # Each is drawn from the front, the left and the right.
    cosines, is_same = faces @ faces.T, people[:, None] == people
    same, different = cosines[is_same & ~torch.eye(len(faces), dtype=torch.bool)], cosines[~is_same]
    assert (same[:, None] > different).float().mean() > 0.75


@torch.no_grad()
def test_they_fit_into_half_precision():
    model = PCLForPreTraining.from_pretrained(FOLDER).pcl.eval()
    processor = PCLImageProcessor.from_pretrained(FOLDER)
    people = [Image.open(path) for path in sorted(SAMPLES.glob("*-front.png"))]
    pixels = processor(people, return_tensors="pt")["pixel_values"]
    outputs, halves = model(pixels), model.half()(pixels.half())
    for name in ("pooler_output", "face_features", "pose_features"):
        assert torch.cosine_similarity(outputs[name], halves[name].float()).min() > 0.999


def test_they_are_small_enough_for_a_clone():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 12e6


TASKS = {
    "expression": "image-classification",
    "smile": "image-classification",
    "gender": "image-classification",
    "age": "image-classification",
    "head_pose": "head-pose-estimation",
    "verification": "face-verification",
}


@pytest.mark.parametrize(("name", "task"), TASKS.items())
def test_each_head_opens_in_its_pipeline_on_the_same_encoder_and_with_its_results(name, task):
    answer = pipeline(task, str(FOLDER / name), device="cpu")
    face = Image.open(SAMPLES / "person1-front.png")
    (said,) = answer([(face, face)] if name == "verification" else [face])
    numbers = {
        "head-pose-estimation": lambda: [said["yaw"], said["pitch"], said["roll"]],
        "face-verification": lambda: [said["similarity"], said["threshold"]],
        "image-classification": lambda: [label["score"] for label in said],
    }[task]()
    assert np.isfinite(numbers).all()
    results = json.loads((FOLDER / name / "results.json").read_text())
    encoder = PCLForPreTraining.from_pretrained(FOLDER).pcl
    assert results["model_revision"] == model_digest(answer.model.base_model) == model_digest(encoder)
    assert "/" not in results["parts"][0]["test"]["source"]


def test_people_are_measured_apart_and_no_face_comes_along():
    for name in ("age", "gender"):
        groups = json.loads((FOLDER / name / "results.json").read_text())["groups"]
        assert groups.keys() == {"gender", "ethnicity", "age"}
    pictures = [path.name for path in FOLDER.rglob("*") if path.suffix in (".png", ".jpg")]
    assert set(pictures) <= {f"{name}.png" for name in CHARTS}
