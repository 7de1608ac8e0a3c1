"""The Space: what its panels compute, and the page in a browser."""

import importlib.util
import socket
import sys
from pathlib import Path

import gradio as gr
import pytest
import tiny
import torch
from browser import chromium, needs_chromium  # noqa: F401
from PIL import Image

from modeling_pcl import PCLForHeadPoseEstimation, PCLForImageClassification, PCLForPreTraining, PCLImageProcessor

SPACE = Path(__file__).parents[1] / "hub_cards" / "space"
SAMPLE = str(SPACE / "samples" / "person1-front.png")
OTHER = str(SPACE / "samples" / "person4-left.png")


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    classes = {
        "model": PCLForPreTraining,
        "expression": PCLForImageClassification,
        "head_pose": PCLForHeadPoseEstimation,
    }
    for name, model_class in classes.items():
        torch.manual_seed(0)
        config = tiny.config(
            **({"id2label": {number: f"state {number}" for number in range(7)}} if name == "expression" else {})
        )
        model_class(config).save_pretrained(root / name)
        PCLImageProcessor.for_image_size(32).save_pretrained(root / name)
    return {name: str(root / name) for name in classes}


@pytest.fixture(scope="module")
def models(app, folders):
    return app.Models(**folders)


def test_the_samples_are_small_and_licensed():
    files = sorted((SPACE / "samples").glob("*.png"))
    assert len(files) == 24
    assert sum(path.stat().st_size for path in files) < 600_000
    assert "CC0" in (SPACE / "samples" / "LICENSE").read_text()


def test_a_sample_is_its_own_nearest_neighbour(models):
    for feature in ("face: without pose", "pose", "trunk: before both"):
        (nearest, cosine), *others = models.neighbours(SAMPLE, feature)
        assert (nearest, cosine) == (SAMPLE, "1.000")
        assert len(others) == 7
        assert all(float(other) <= 1 for _, other in others)


def test_neighbours_by_face_and_pose_read_both_features_as_one(models):
    rows = {path: torch.cat([outputs.face_features, outputs.pose_features], dim=1) for path, outputs in models.samples}
    cosines = [torch.cosine_similarity(rows[Path(SAMPLE)], row).item() for row in rows.values()]
    found = [float(cosine) for _, cosine in models.neighbours(SAMPLE, "face and pose")]
    assert found == pytest.approx(sorted(cosines, reverse=True)[:8], abs=6e-4)  # They are said to three digits.


def test_pose_is_drawn_and_said(models):
    picture, said = models.pose(SAMPLE)
    assert picture.size == (128, 128)
    angles = models.estimate(SAMPLE)
    assert said.split() == [part for name, degrees in angles.items() for part in (f"**{name}**", f"{degrees:+.1f}°")]


def test_every_expression_has_a_probability(models):
    found = models.expressions(SAMPLE)
    assert len(found) == 7
    assert sum(found.values()) == pytest.approx(1)


def test_the_sliders_go_from_one_photo_to_the_other(models, monkeypatch):
    asked, decode = [], models.decoder.decode
    monkeypatch.setattr(models.decoder, "decode", lambda *features: asked.append(features) or decode(*features))
    picture, grid = models.swaps(SAMPLE, OTHER, 0.25, 1)
    (face, pose), (faces, poses) = asked
    assert picture.size == (256, 256)
    assert [text for _, text in grid] == ["face 1, pose 1", "face 1, pose 2", "face 2, pose 1", "face 2, pose 2"]
    torch.testing.assert_close(face[0], 0.75 * faces[0] + 0.25 * faces[2])
    torch.testing.assert_close(pose[0], poses[1])
    assert torch.equal(faces[0], faces[1])
    assert torch.equal(poses[0], poses[2])
    assert not torch.equal(faces[0], faces[2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "Choose a photo"),
        (b"hello", "not an image that can be read"),
        ("tiny", "are too few"),
        ("huge", "px are too many"),
    ],
)
def test_what_is_no_photo_is_told(app, tmp_path, content, message):
    path = tmp_path / "photo.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        Image.new("1", (8, 9) if content == "tiny" else (30_000, 2_000)).save(path)
    with pytest.raises(gr.Error, match=message):
        app.open_photo(content and str(path))


def test_a_photo_is_shown_upright_and_on_white_and_read_as_it_is(app, folders, tmp_path):
    models = app.Models(None, head_pose=str(folders["head_pose"]))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=turned)
    assert models.pose(str(tmp_path / "turned.jpg"))[0].size == (20, 30)
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert models.pose(str(tmp_path / "clear.png"))[0].getpixel((0, 0)) == (255, 255, 255)
    Image.new("I;16", (30, 30), 257 * 100).save(tmp_path / "deep.png")
    assert models.pose(str(tmp_path / "deep.png"))[0].getpixel((0, 0)) == (100, 100, 100)


def test_a_model_of_another_kind_is_refused(app, folders):
    with pytest.raises(ValueError, match="`expression` must be a PCLForImageClassification"):
        app.Models(None, expression=folders["model"])
    with pytest.raises(ValueError, match="`head_pose` must be a PCLForHeadPoseEstimation"):
        app.Models(None, head_pose=folders["expression"])


def test_a_space_without_models_says_so(app):
    page = app.build(app.Models(None))
    said = [block.value for block in page.blocks.values() if isinstance(block, gr.Markdown)]
    assert sum("No model was given for this" in text for text in said) == 4
    assert any("`--head_pose`, or set `PCL_HEAD_POSE`" in text for text in said)


def test_a_model_that_does_not_open_is_one_line(app, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["app.py", "--model", "/no/such/folder"])
    with pytest.raises(SystemExit) as stop:
        app.main()
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith("error: ")


@needs_chromium
def test_the_page_in_a_browser(app, models, chromium, tmp_path, monkeypatch):  # noqa: F811
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked_swaps, swaps = [], models.swaps
    monkeypatch.setattr(models, "swaps", lambda *values: asked_swaps.append(values[2:]) or swaps(*values))
    page_app = app.build(models)
    app.launch(page_app, server_port=port, prevent_thread_lock=True, quiet=True)
    assert not page_app.run_history
    assert page_app.delete_cache
    assert not page_app.analytics_enabled
    try:
        page = chromium.new_page()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}")
        page.locator("input[type=file]").first.set_input_files(SAMPLE)
        page.get_by_text("1.000").first.wait_for()
        page.get_by_role("tab", name="Head pose").click()
        page.get_by_text("pitch", exact=True).first.wait_for()
        page.get_by_role("tab", name="Expression").click()
        page.get_by_text("state 6").first.wait_for()
        page.get_by_role("tab", name="Swap").click()
        page.locator("input[type=file]").last.set_input_files(OTHER)
        page.get_by_text("face 2, pose 1").first.wait_for()
        page.locator("input[type=range]").first.fill("0.4")
        page.locator("input[type=range]").last.fill("0.7")
        for _ in range(100):
            if asked_swaps[-1] == (0.4, 0.7):
                break
            page.wait_for_timeout(50)
        assert asked_swaps[0] == (0, 1)
        assert asked_swaps[-1] == (0.4, 0.7)
        page.get_by_role("tab", name="Neighbours").click()
        cosines = page.locator(".caption-label").all_inner_texts()
        page.get_by_role("radio", name="pose", exact=True).check()
        page.wait_for_function(
            "old => [...document.querySelectorAll('.caption-label')].some((each, i) => each.innerText !== old[i])",
            arg=cosines,
        )
        page.reload()
        page.locator(".grid-container button").nth(9).click()
        page.get_by_text("1.000").first.wait_for()
        page.get_by_label("Remove Image").first.click()
        page.get_by_text("1.000").first.wait_for(state="detached")
        (tmp_path / "text.png").write_text("hello")
        page.locator("input[type=file]").first.set_input_files(tmp_path / "text.png")
        page.get_by_text("This file is not an image that can be read.").wait_for()  # Once: more would raise.
        assert {url.split("/")[2] for url in asked if "//" in url} == {f"127.0.0.1:{port}"}
    finally:
        page_app.close()
