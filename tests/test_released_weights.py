"""The weights that stand in this repository."""

from pathlib import Path

import torch
from PIL import Image

from modeling_pcl import PCLForPreTraining, PCLImageProcessor

FOLDER = Path(__file__).parents[1] / "hub_cards" / "pcl-small-faces"
SAMPLES = Path(__file__).parents[1] / "hub_cards" / "space" / "samples"


def test_they_open_whole_and_draw_faces_apart():
    model, loading = PCLForPreTraining.from_pretrained(FOLDER, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    processor = PCLImageProcessor.from_pretrained(FOLDER)
    faces = [Image.open(path) for path in sorted(SAMPLES.glob("*.png")) + sorted(SAMPLES.glob("*.jpg"))]
    with torch.no_grad():
        outputs = model.pcl.eval()(**processor(faces, return_tensors="pt"))
        drawn = model.eval().decode(outputs.face_features, outputs.pose_features)
    assert drawn.isfinite().all()
    assert drawn.flatten(1).std(dim=0).mean() > 0.02  # A mean face for all would have 0.
    centred = outputs.pooler_output - outputs.pooler_output.mean(dim=0)
    assert torch.nn.functional.cosine_similarity(centred[:1], centred[1:]).abs().max() < 0.9


def test_they_are_small_enough_for_a_clone():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 12e6
