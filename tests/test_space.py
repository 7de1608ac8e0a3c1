"""The Space: what its panels compute, and the page in a browser."""

import importlib.util
import socket
import sys
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import tiny
import torch
from browser import chromium, needs_chromium  # noqa: F401
from photos import group, portrait
from PIL import Image

from modeling_pcl import PCLForHeadPoseEstimation, PCLForImageClassification, PCLForPreTraining, PCLImageProcessor
from modeling_pcl.detection_pcl import compute_overlaps
from modeling_pcl.faces_pcl import SQUARE_COLOUR

SPACE = Path(__file__).parents[1] / "hub_cards" / "space"
SAMPLE = str(SPACE / "samples" / "person1-front.png")
OTHER = str(SPACE / "samples" / "person4-left.png")
# Not the defaults, so that it shows whose are used; and a quick search.
FACES = {"face_crop": {"align": "eyes", "margin": 0.1, "padding": "edge"}}
FACES["face_detector"] = {"longest_px": 320, "threads": 1}


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
        PCLImageProcessor.for_image_size(32, **FACES).save_pretrained(root / name)
    return {name: str(root / name) for name in classes}


@pytest.fixture(scope="module")
def models(app, folders):
    return app.Models(**folders)


def test_the_samples_are_small_and_licensed():
    files = sorted((SPACE / "samples").glob("*.png"))
    assert len(files) == 24
    assert sum(path.stat().st_size for path in files) < 600_000
    assert (SPACE / "samples" / "astronaut.jpg").stat().st_size < 100_000
    licence = (SPACE / "samples" / "LICENSE").read_text()
    assert "CC0" in licence
    assert "astronaut.jpg is NASA's portrait of the astronaut Eileen Collins, which is in the public domain" in licence


def test_the_largest_face_is_cut_for_all_panels_as_their_models_say(models, tmp_path):
    scene = group((40, 60, 0.8), (430, 90, 1.5))
    scene.save(tmp_path / "scene.png")
    seen, picture, words = models.find_face(tmp_path / "scene.png", True)
    assert words.startswith("2 faces are found; the largest is taken.")
    processor = PCLImageProcessor.for_image_size(32, **FACES)
    found = processor(scene, detect=True, most_faces=1, return_tensors="pt")
    assert found["boxes"][0, 0] > 430
    with torch.no_grad():
        outputs = models.encoder(found["pixel_values"])
    torch.testing.assert_close(seen.features["face_features"], outputs.face_features)
    pose = models.estimate(scene, detect=True)
    assert models.estimate_pose(seen)[1].split()[1] == f"{pose['yaw']:+.1f}°"
    labels = models.classify(scene, detect=True, top_k=7)
    assert models.classify_expression(seen) == {each["label"]: each["score"] for each in labels}
    assert picture.size == scene.size
    rows, columns = np.nonzero((np.asarray(picture) == SQUARE_COLOUR).all(axis=-1))
    corners = processor.cut_faces(scene)[0].square.corners()
    drawn = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
    assert compute_overlaps(drawn, np.array([[*corners.min(axis=0), *corners.max(axis=0)]]))[0] > 0.95


def test_a_photo_without_a_face_or_unsearched_is_taken_whole_and_said_so(models, tmp_path):
    portrait().save(tmp_path / "portrait.png")
    for path, is_searched, words in (
        (SAMPLE, True, "No face is found, as is usual for drawn faces. The whole photo is used as a face."),
        (tmp_path / "portrait.png", False, "The whole photo is used as a face."),
    ):
        seen, picture, said = models.find_face(path, is_searched)
        with Image.open(path) as image:
            assert said == words
            assert picture.tobytes() == image.convert("RGB").tobytes()
            expected = models.encode(image)
        assert torch.equal(seen.features["pooler_output"], expected["pooler_output"])


def test_without_the_detectors_packages_nothing_is_searched(app, folders, monkeypatch):
    from modeling_pcl import faces_pcl

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    faces_pcl.shared_detector.cache_clear()
    page = app.build(app.Models(folders["model"]))
    (checkbox,) = (block for block in page.blocks.values() if isinstance(block, gr.Checkbox))
    assert not checkbox.visible
    assert checkbox.value is False


def test_a_sample_is_its_own_nearest_neighbour(models):
    seen = models.find_face(SAMPLE, False)[0]
    for feature in ("face: without pose", "pose", "trunk: before both"):
        (nearest, cosine), *others = models.find_neighbours(seen, feature)
        assert (nearest, cosine) == (SAMPLE, "1.000")
        assert len(others) == 7
        assert all(float(other) <= 1 for _, other in others)


def test_neighbours_by_face_and_pose_read_both_features_as_one(models):
    rows = {
        path: torch.cat([features["face_features"], features["pose_features"]], dim=1)
        for path, features in models.samples
    }
    cosines = [torch.cosine_similarity(rows[Path(SAMPLE)], row).item() for row in rows.values()]
    found = [float(cosine) for _, cosine in models.find_neighbours(models.find_face(SAMPLE, False)[0], "face and pose")]
    assert found == pytest.approx(sorted(cosines, reverse=True)[:8], abs=6e-4)  # They are said to three digits.


def test_pose_is_drawn_and_said(models):
    picture, said = models.estimate_pose(models.find_face(SAMPLE, False)[0])
    assert picture.size == (480, 480)
    angles = models.estimate(SAMPLE)
    assert said.split() == [part for name, degrees in angles.items() for part in (f"**{name}**", f"{degrees:+.1f}°")]


def test_every_expression_has_a_probability(models):
    found = models.classify_expression(models.find_face(SAMPLE, False)[0])
    assert len(found) == 7
    assert sum(found.values()) == pytest.approx(1)


def test_the_sliders_go_from_one_photo_to_the_other(models, monkeypatch):
    asked, decode = [], models.decoder.decode
    monkeypatch.setattr(models.decoder, "decode", lambda *features: asked.append(features) or decode(*features))
    picture, grid = models.draw_swaps(models.find_face(SAMPLE, False)[0], models.find_face(OTHER, False)[0], 0.25, 1)
    (face, turn), (faces, turns) = asked
    assert picture.size == (256, 256)
    assert [text for _, text in grid] == [f"face {face}, turned as {other}" for face in (1, 2) for other in (1, 2)]
    torch.testing.assert_close(face[0], 0.75 * faces[0] + 0.25 * faces[2])
    torch.testing.assert_close(turn[0], turns[1])
    assert torch.equal(faces[0], faces[1])
    assert torch.equal(turns[0], turns[2])
    assert not torch.equal(faces[0], faces[2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "no image format that PIL knows"),
        ((8, 9), "8 x 9 px are too few: the shorter side must have 16"),
        ((2000, 40), "2000 x 40 px are too few: the shorter side must have 100"),
        ((30_000, 2_000), "px are more than `max_pixels`"),
    ],
)
def test_what_is_no_photo_is_a_warning_in_one_line(app, models, tmp_path, monkeypatch, content, message):
    path = tmp_path / "photo.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.new("1", content).save(path)
    warnings = []
    monkeypatch.setattr(app.gr, "Warning", warnings.append)
    assert app.skip_without_photo(models.find_face, 3)(str(path), True) == [None] * 3
    (warning,) = warnings
    assert message in warning
    assert "\n" not in warning
    assert str(path) not in warning


def test_without_a_photo_there_is_no_answer_and_no_warning(app, models, monkeypatch):
    monkeypatch.setattr(app.gr, "Warning", None)
    assert app.skip_without_photo(models.find_face, 3)(None, True) == [None] * 3
    assert app.skip_without_photo(models.classify_expression)(None) is None


def test_a_text_that_is_a_url_is_not_fetched(models):
    with pytest.raises(ValueError, match="it is no file"):
        models.open_photo("http://127.0.0.1:1/photo.png")


def test_a_photo_is_shown_upright_and_on_white_and_read_as_it_is(app, folders, tmp_path):
    models = app.Models(None, head_pose=str(folders["head_pose"]))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.tiff", exif=turned)
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(tmp_path / "clear.avif")
    Image.new("I;16", (30, 30), 257 * 100).save(tmp_path / "deep.png")
    seen = {path.stem: models.find_face(path, False) for path in tmp_path.iterdir()}
    assert seen["turned"][1].size == (20, 30)
    assert models.estimate_pose(seen["turned"][0])[0].size == (320, 480)
    assert seen["clear"][1].getpixel((0, 0)) == (255, 255, 255)
    assert models.estimate_pose(seen["deep"][0])[0].getpixel((0, 0)) == (100, 100, 100)


def test_a_model_of_another_kind_is_refused(app, folders):
    with pytest.raises(ValueError, match="`expression` must be a PCLForImageClassification"):
        app.Models(None, expression=folders["model"])
    with pytest.raises(ValueError, match="`head_pose` must be a PCLForHeadPoseEstimation"):
        app.Models(None, head_pose=folders["expression"])


def texts_of(page: gr.Blocks) -> list[str]:
    return [block.value for block in page.blocks.values() if isinstance(block, gr.Markdown)]


def headings_of(page: gr.Blocks) -> list[str]:
    return [text.splitlines()[0][3:] for text in texts_of(page) if text.startswith("## ")]


def test_the_page_opens_with_answers_and_what_has_no_model_is_not_on_it(app, models, folders):
    page, smaller = app.build(models), app.build(app.Models(None, expression=folders["expression"]))
    assert headings_of(page) == ["Neighbours", "Head pose", "Expression", "Swap"]
    assert headings_of(smaller) == ["Expression"]
    for blocks in (page.blocks.values(), smaller.blocks.values()):
        assert all(block.value for block in blocks if isinstance(block, gr.Image | gr.Gallery | gr.Label))
    assert any(text.startswith("One face is found.") for text in texts_of(page))


def test_the_shipped_weights_are_opened_without_any_option(app, monkeypatch):
    for variable in app.KINDS.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "argv", ["app.py"])
    launched = []
    monkeypatch.setattr(app, "launch", lambda page, **options: launched.append((page, options)))
    app.main()
    ((page, options),) = launched
    assert headings_of(page) == ["Neighbours", "Head pose", "Expression", "Swap"]
    assert options == {"server_port": None}  # So that Gradio takes GRADIO_SERVER_PORT.


def test_a_variable_names_another_model(app, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.setenv("PCL_MODEL", "/no/such/folder")
    with pytest.raises(SystemExit):
        app.main()
    assert "/no/such/folder" in capsys.readouterr().err


def test_no_model_at_all_is_told(app):
    with pytest.raises(ValueError, match="No model was given: start the app with `--model`, or set `PCL_MODEL`"):
        app.Models(None)


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
    asked_swaps, looked, draw_swaps, find_face = [], [], models.draw_swaps, models.find_face
    monkeypatch.setattr(models, "draw_swaps", lambda *values: asked_swaps.append(values[2:]) or draw_swaps(*values))
    monkeypatch.setattr(models, "find_face", lambda *values: looked.append(values) or find_face(*values))
    page_app = app.build(models)
    assert asked_swaps == [(0, 1)]
    looked.clear()
    app.launch(page_app, server_port=port, prevent_thread_lock=True, quiet=True)
    assert not page_app.run_history
    assert page_app.delete_cache
    assert not page_app.analytics_enabled
    try:
        page = chromium.new_page()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}")
        for text in ("One face is found.", "No face is found", "state 6", "pitch", "face 2, turned as 1"):
            page.get_by_text(text).first.wait_for()
        assert not looked
        page.locator("input[type=file]").first.set_input_files(SAMPLE)
        page.get_by_text("1.000").first.wait_for()
        page.locator("input[type=range]").first.fill("0.4")
        page.locator("input[type=range]").last.fill("0.7")
        for _ in range(100):
            if asked_swaps[-1] == (0.4, 0.7):
                break
            page.wait_for_timeout(50)
        assert asked_swaps[-1] == (0.4, 0.7)
        cosines = page.locator(".caption-label").all_inner_texts()
        page.get_by_role("radio", name="pose", exact=True).check()
        page.wait_for_function(
            "old => [...document.querySelectorAll('.caption-label')].some((each, i) => each.innerText !== old[i])",
            arg=cosines,
        )
        page.reload()
        page.get_by_text("One face is found.").wait_for()
        page.get_by_role("checkbox").uncheck()
        page.get_by_text("One face is found.").wait_for(state="detached")
        page.get_by_role("radio", name="Second photo").check()
        page.locator(".grid-container button").first.click()
        page.get_by_role("checkbox").check()
        page.get_by_text("One face is found.").nth(1).wait_for()
        page.get_by_label("Remove Image").first.click()
        page.get_by_text("face 2, turned as 1").first.wait_for(state="detached")
        (tmp_path / "text.png").write_text("hello")
        page.locator("input[type=file]").first.set_input_files(tmp_path / "text.png")
        page.get_by_text("cannot be read: no image format that PIL knows.").wait_for()  # Once: more would raise.
        assert {url.split("/")[2] for url in asked if "//" in url} == {f"127.0.0.1:{port}"}
    finally:
        page_app.close()
