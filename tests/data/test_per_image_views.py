"""The pixels of the views have the same distribution as those of the per-image baseline of the benchmark."""

import io

import numpy as np
import pytest
import torch
from benchmarks.baselines.per_image_views import PerImageViews, batches
from datasets import Dataset
from PIL import Image

from modeling_pcl.data.corpora import load_corpus
from modeling_pcl.data.images import decode_image
from modeling_pcl.data.views import ViewMaker, ViewSettings

SIZE_PX, NEGATIVES = 32, 1500


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    face, file = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC), io.BytesIO()
    face.save(file, "PNG")
    path = tmp_path_factory.mktemp("corpus") / "faces.parquet"
    Dataset.from_dict({"image": [{"bytes": file.getvalue(), "path": None}] * 2}).to_parquet(path)
    return load_corpus(str(path))


def compute_statistics(views: torch.Tensor) -> torch.Tensor:
    """Compute mean, and deviation between views, within views and between colours, of `(views, 3, side, side)`."""
    means = views.mean(dim=(1, 2, 3))
    colours = views.mean(dim=(2, 3)).std(dim=1).mean()
    return torch.stack([means.mean(), means.std(), views.std(dim=(1, 2, 3)).mean(), colours])


def test_pose_views_have_the_same_statistics_either_way(corpus):
    torch.manual_seed(0)
    usual = PerImageViews(corpus, "pose_contrast", SIZE_PX, NEGATIVES)[0][2:]
    settings = ViewSettings(pose_images=1, pose_negatives_per_image=NEGATIVES)
    images = decode_image(corpus[0]["image"], 2 * SIZE_PX)[None]
    ours = ViewMaker(settings, SIZE_PX, seed=0).pose_contrast(images, 0)["pose_negative_views"][0]
    # 1500 views: the standard error of each is about 0.005, and the baseline's are between 0.05 and 0.25.
    torch.testing.assert_close(compute_statistics(ours), compute_statistics(usual), atol=0.02, rtol=0.05)


@pytest.mark.parametrize(("objective", "views"), [("disentangling", 3), ("face_contrast", 2), ("pose_contrast", 5)])
def test_batches_hold_every_view_of_every_image(corpus, objective, views):
    inputs = next(batches(PerImageViews(corpus, objective, SIZE_PX, 3), 2, num_workers=0))
    assert inputs.shape == (2, views, 3, SIZE_PX, SIZE_PX)
    if objective != "disentangling":
        assert 0 <= inputs.min() <= inputs.max() <= 1
