import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset, Image, load_dataset
from PIL import Image as PILImage

from modeling_pcl import PCLForPreTraining
from modeling_pcl.data.corpora import load_corpus
from modeling_pcl.data.images import decode_image

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def ship():
    specification = importlib.util.spec_from_file_location("ship_small_faces", SCRIPTS / "ship_small_faces.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def write_faces(file: Path, subjects: list[str], **columns) -> Path:
    """Write a corpus of noise, as it has all frequencies."""
    images = []
    for number in range(len(subjects)):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        png = io.BytesIO()
        PILImage.fromarray(pixels).save(png, "PNG")
        images.append({"bytes": png.getvalue(), "path": None})
    faces = Dataset.from_dict({"image": images, "subject": subjects, **columns})
    faces.cast_column("image", Image(decode=False)).to_parquet(file)
    return file


@torch.no_grad()
def test_scaled_channels_vary_alike_and_what_reads_them_does_not_change(ship, tmp_path):
    model = tiny.save(tmp_path / "run", PCLForPreTraining)
    corpus = load_corpus(str(write_faces(tmp_path / "faces.parquet", [str(number) for number in range(60)])))
    model.pcl.face_branch.conv2.weight[0] *= 30
    model.pcl.face_branch.conv2.bias[0] *= 30
    model.save_pretrained(tmp_path / "run")
    scaled = PCLForPreTraining(model.config).eval()
    scaled.load_state_dict(ship.equalise_channels(tmp_path / "run", corpus))

    spreads = {}
    for side in (model.config.image_size, ship.SIDE_PX):
        pixels = torch.stack([decode_image(record, side) for record in corpus.with_format(None)["image"]]).float() / 255
        for name, encoder in (("run", model.pcl), ("scaled", scaled.pcl)):
            maps = encoder(pixels).face_features.unflatten(1, (model.config.feature_channels, -1))
            spreads.setdefault(name, []).append(maps.var(dim=0).mean(dim=1).log())
    # Over both sides, on average; the forward pass that measures is in bfloat16.
    original, equalised = (sum(spreads[name]) / 2 for name in ("run", "scaled"))
    assert original.max() - original.min() > 4
    assert equalised.max() - equalised.min() < 0.1

    pixels = torch.rand(4, 3, 32, 32)
    before, after = model.pcl(pixels), scaled.pcl(pixels)
    torch.testing.assert_close(after.pooler_output, before.pooler_output)
    for name in ("face", "pose"):
        embeddings = (
            getattr(m, f"{name}_projection")(o[f"{name}_features"]) for m, o in ((model, before), (scaled, after))
        )
        torch.testing.assert_close(*embeddings, rtol=1e-3, atol=1e-4)
    drawn = [m.decode(o.face_features, o.pose_features) for m, o in ((model, before), (scaled, after))]
    assert (drawn[0] - drawn[1]).abs().mean() < 0.2 * drawn[0].std()


def test_channels_without_a_scale_and_broken_images_are_refused(ship, tmp_path):
    model = tiny.save(tmp_path / "run", PCLForPreTraining)
    faces = load_corpus(str(write_faces(tmp_path / "faces.parquet", ["a", "b", "c"])))
    with pytest.raises(ValueError, match="same for all of `--faces`"):
        ship.equalise_channels(tmp_path / "run", faces.select([0]))
    broken = [*faces.with_format(None)["image"], {"bytes": b"no image", "path": None}]
    with pytest.raises(ValueError, match="row 3"):
        ship.equalise_channels(
            tmp_path / "run", Dataset.from_dict({"image": broken}, features=faces.select_columns("image").features)
        )
    with torch.no_grad():
        model.pcl.face_branch.conv2.weight[1] = 0
        model.pcl.face_branch.conv2.bias[1] = 0
    model.save_pretrained(tmp_path / "run")
    with pytest.raises(ValueError, match="same for all of `--faces`"):
        ship.equalise_channels(tmp_path / "run", faces)


def test_half_of_the_other_people_are_trained_on_and_the_rest_tested(ship, tmp_path):
    train = write_faces(tmp_path / "train.parquet", ["a", "a", "b", "b"], video=[1, 1, 2, 2])
    other = write_faces(tmp_path / "other.parquet", [f"c{number // 2}" for number in range(12)])
    files = ship.split_people(str(train), str(other), tmp_path)
    rows = [load_dataset("parquet", data_files=file, split="train", cache_dir=tmp_path)["subject"][:] for file in files]
    trained, tested = map(set, rows)
    assert {"a", "b"} < trained
    assert len(trained) == 5
    assert len(tested) == 3
    assert not trained & tested
    assert (len(rows[0]), len(rows[1])) == (3 * 10, 6)  # Each image and two altered copies of it; the test has none.
