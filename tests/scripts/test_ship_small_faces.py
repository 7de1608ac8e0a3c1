import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from datasets import load_dataset, load_from_disk

from modeling_pcl import PCLForPreTraining
from modeling_pcl.data.images import decode_image

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def ship():
    specification = importlib.util.spec_from_file_location("ship_small_faces", SCRIPTS / "ship_small_faces.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@torch.no_grad()
def test_scaled_channels_vary_alike_and_what_reads_them_does_not_change(ship, faces, tmp_path):
    model = tiny.save(tmp_path / "run", PCLForPreTraining)
    corpus = faces(np.random.default_rng(0).integers(0, 256, (60, 3)))
    last_stage = model.pcl.trunk.stages[-1]
    for stage in (last_stage, model.pcl.face_branch, model.pcl.pose_branch):
        torch.nn.init.normal_(stage.conv2.bias)  # Zero by default, which any scale would leave.
    for stage in (last_stage, model.pcl.face_branch):
        stage.conv2.weight[0] *= 30
    model.save_pretrained(tmp_path / "run")
    scaled = PCLForPreTraining(model.config).eval()
    scaled.load_state_dict(ship.equalise_channels(tmp_path / "run", corpus))

    spreads = {}
    for side in (model.config.image_size, ship.SIDE_PX):
        pixels = torch.stack([decode_image(record, side) for record in corpus.with_format(None)["image"]]).float() / 255
        for name, encoder in (("run", model.pcl), ("scaled", scaled.pcl)):
            outputs = encoder(pixels)
            for feature in ("pooler_output", "face_features"):
                maps = outputs[feature].unflatten(1, (model.config.feature_channels, -1))
                spreads.setdefault((name, feature), []).append(maps.var(dim=0).mean(dim=1).log())
    for feature in ("pooler_output", "face_features"):
        # Over both sides, on average; the forward pass that measures is in bfloat16.
        original, equalised = (sum(spreads[name, feature]) / 2 for name in ("run", "scaled"))
        assert original.max() - original.min() > 4
        assert equalised.max() - equalised.min() < 0.1

    pixels = torch.rand(4, 3, 32, 32)
    before, after = model.pcl(pixels), scaled.pcl(pixels)
    for feature in ("pooler_output", "face_features", "pose_features"):  # One positive factor for each channel.
        factors = (after[feature] / before[feature]).unflatten(1, (model.config.feature_channels, -1))
        assert (factors > 0).all()
        torch.testing.assert_close(factors, factors[:1, :, :1].expand_as(factors), rtol=1e-3, atol=0)
    for name in ("face", "pose"):
        embeddings = (
            getattr(m, f"{name}_projection")(o[f"{name}_features"]) for m, o in ((model, before), (scaled, after))
        )
        torch.testing.assert_close(*embeddings, rtol=1e-3, atol=1e-4)
    drawn = [m.decode(o.face_features, o.pose_features) for m, o in ((model, before), (scaled, after))]
    assert (drawn[0] - drawn[1]).abs().mean() < 0.2 * drawn[0].std()


def test_channels_without_a_scale_and_broken_images_are_refused(ship, faces, tmp_path):
    model = tiny.save(tmp_path / "run", PCLForPreTraining)
    corpus = faces([0, 1, 2, None])
    with pytest.raises(ValueError, match="row 3"):
        ship.equalise_channels(tmp_path / "run", corpus)
    for name, stage in (("face", model.pcl.face_branch), ("trunk", model.pcl.trunk.stages[-1])):
        with torch.no_grad():
            stage.conv2.weight[1] = 0
            stage.conv2.bias[1] = 0
        model.save_pretrained(tmp_path / "run")
        with pytest.raises(ValueError, match=f"Channels of the {name} .* same for all of `--faces`"):
            ship.equalise_channels(tmp_path / "run", corpus.select(range(3)))


def test_half_of_the_other_people_are_trained_on_and_the_rest_tested(ship, faces, tmp_path):
    train, other = str(tmp_path / "train.parquet"), str(tmp_path / "other.parquet")
    faces([0] * 4, seed=0, subject=["a", "a", "b", "b"], video=[1, 1, 2, 2]).to_parquet(train)
    faces([1] * 12, seed=1, subject=[f"c{number // 2}" for number in range(12)]).to_parquet(other)
    people, test = ship.split_people(train, other, tmp_path)
    rows = load_from_disk(people) | {
        "test": load_dataset("parquet", data_files=test, split="train", cache_dir=tmp_path)
    }
    subjects = {name: set(part["subject"][:]) for name, part in rows.items()}
    assert sum(map(len, subjects.values())) == len(set.union(*subjects.values())) == 8
    assert {"a", "b"} < subjects["train"] | subjects["validation"]
    assert {name: len(people) for name, people in subjects.items()} == {"train": 4, "validation": 1, "test": 3}
    # Each image has two altered copies in training only.
    assert {name: len(part) for name, part in rows.items()} == {"train": 3 * 8, "validation": 2, "test": 6}
