"""The weights that stand in this repository."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from modeling_pcl import PCLForPreTraining, PCLImageProcessor

FOLDER = Path(__file__).parents[1] / "hub_cards" / "pcl-small-faces"
SAMPLES = Path(__file__).parents[1] / "hub_cards" / "space" / "samples"


@pytest.mark.parametrize("folder", [FOLDER, FOLDER / "half"], ids=["quarter", "half"])
def test_they_open_whole_and_tell_drawn_people_apart(folder):
    model, loading = PCLForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    processor = PCLImageProcessor.from_pretrained(folder)
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


def test_they_are_small_enough_for_a_clone():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 12e6
