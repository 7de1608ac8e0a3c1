"""The weights that stand in this repository."""

from pathlib import Path

import torch
from PIL import Image

from modeling_pcl import PCLForPreTraining, PCLImageProcessor

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
    assert (same[:, None] > different).float().mean() > 0.95


@torch.no_grad()
def test_they_fit_into_half_precision():
    model = PCLForPreTraining.from_pretrained(FOLDER).pcl.eval()
    processor = PCLImageProcessor.from_pretrained(FOLDER)
    pixels = processor([Image.open(path) for path in sorted(SAMPLES.glob("*.png"))], return_tensors="pt")[
        "pixel_values"
    ]
    outputs, halves = model(pixels), model.half()(pixels.half())
    for name in ("pooler_output", "face_features", "pose_features"):
        assert torch.cosine_similarity(outputs[name], halves[name].float()).min() > 0.999


def test_they_are_small_enough_for_a_clone():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 12e6
