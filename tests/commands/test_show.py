import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from modeling_pcl import PCLModel
from modeling_pcl.data.corpora import load_corpus
from modeling_pcl.probes import answers
from modeling_pcl.probes.heads import build_head, save_head, set_head

SIDE_PX = 32
HEADS = {
    "expression": ("expression", ("calm", "glad"), (0.0, 50.0)),
    "age": ("regression", ("age",), (34.4,)),
    "units": ("action_units", ("AU1", "AU12"), (-9.0, 9.0)),
    "head_pose": ("head_pose", ("yaw", "pitch", "roll"), (12.0, -3.0, 0.0)),
}


@pytest.fixture
def folder(model, tmp_path) -> Path:
    """A model with heads that give every face the same answer."""
    shutil.copytree(model, tmp_path / "model")
    encoder = PCLModel.from_pretrained(model)
    for name, (task, labels, bias) in HEADS.items():
        head = build_head(encoder, task, labels, "trunk", SIDE_PX)
        set_head(head, torch.zeros(len(labels), head.config.head_size), torch.tensor(bias))
        save_head(head, tmp_path / "model" / name)
    shutil.copytree(model, tmp_path / "model" / "repository")  # Of a push, not of a probe.
    return tmp_path / "model"


def test_heads_neighbours_and_swaps_are_drawn(call, folder, faces, tmp_path, monkeypatch):
    faces([0, 1, 2] * 4).to_parquet(tmp_path / "faces.parquet")
    tiles, draw = [], answers.draw_tiles
    monkeypatch.setattr(answers, "draw_tiles", lambda title, drawn: tiles.extend(drawn) or draw(title, drawn))
    call("show", folder, "--corpus", tmp_path / "faces.parquet", "--output_dir", tmp_path / "out", "--images", 3)
    for name in ("answers", "neighbours", "swaps"):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert picture.width > 400
            assert len(picture.convert("L").getcolors()) > 20
    assert [tile.above for tile in tiles] == ["image 0", "image 5", "image 11"]
    for tile in tiles:
        assert tile.below.split("\n") == ["age 34", "glad 100%", "yaw +12 pitch -3 roll +0", "AU12"]
        assert tile.pose == [12.0, -3.0, 0.0]


def test_neighbours_are_the_nearest_faces_and_not_the_face_itself(model, faces, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(answers, "draw_face_rows", lambda rows, title: drawn.update(rows))
    faces([0, 1, 2] * 4).to_parquet(tmp_path / "faces.parquet")
    corpus = load_corpus(str(tmp_path / "faces.parquet"))
    answers.draw_neighbours(PCLModel.from_pretrained(model), corpus, [4], SIDE_PX)
    images = torch.stack(list(answers.decode_rows(corpus, range(12), SIDE_PX).values())).float() / 255
    for row in drawn.values():
        assert torch.equal(row[0], images[4])
        places = [int((images == face).flatten(1).all(dim=1).nonzero()) for face in row[1:4]]
        assert sorted(places) == [1, 7, 10]  # Those of its colour.


def test_images_that_do_not_decode_are_left_out_by_name(call, refused, folder, faces, tmp_path, caplog):
    faces([0, None, 1, 2]).to_parquet(tmp_path / "faces.parquet")
    call("show", folder, "--corpus", tmp_path / "faces.parquet", "--output_dir", tmp_path / "out")
    assert "image 1 is left out" in caplog.text
    assert (tmp_path / "out" / "answers.png").exists()
    faces([None]).to_parquet(tmp_path / "broken.parquet")
    options = ("--corpus", tmp_path / "broken.parquet", "--output_dir", tmp_path / "other")
    assert "could be shown" in refused("show", folder, *options)


def test_without_heads_and_decoder_there_are_only_neighbours(call, model, faces, tmp_path):
    PCLModel.from_pretrained(model).save_pretrained(tmp_path / "encoder")
    faces([0, 1, 2]).to_parquet(tmp_path / "faces.parquet")
    call("show", tmp_path / "encoder", "--corpus", tmp_path / "faces.parquet", "--output_dir", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["neighbours.png"]
