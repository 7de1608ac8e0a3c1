"""The page that runs a model in the browser: its features are torch's, and it talks to nobody."""

import base64
import http.server
import importlib
import io
import json
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import chromium, needs_chromium  # noqa: F401
from exported import exported  # noqa: F401 a fixture
from photos import group, portrait
from PIL import Image
from transformers import pipeline

from modeling_pcl import PCLForPreTraining, PCLImageProcessor
from modeling_pcl.crop_pcl import ALIGNMENTS, PADDINGS
from modeling_pcl.detection_pcl import save_detector
from modeling_pcl.head_pose_pcl import ANGLES, draw_axes
from modeling_pcl.probes.heads import build_head, save_head, set_head
from modeling_pcl.swap_pcl import split_for_swap

STATIC = Path(__file__).parents[1] / "hub_cards" / "space_static"
SAMPLES = STATIC.parent / "space" / "samples"
LIBRARY = STATIC / "node_modules" / "@huggingface" / "transformers"
INSTALL = "npm install --ignore-scripts --no-package-lock --prefix hub_cards/space_static"

pytestmark = [
    needs_chromium,
    pytest.mark.skipif(shutil.which("node") is None, reason="no node; `apt-get install nodejs npm` has it"),
    pytest.mark.skipif(not LIBRARY.exists(), reason=f"no @huggingface/transformers; `{INSTALL}` gets it"),
]

ENCODE = """async (bytes) => {
    const { encode } = await import("./model.js");
    const { opened } = await import("./page.js");
    const { crop, readImage, toInput } = await import("./pixels.js");
    const [model, image] = [await opened, await readImage(new Blob([Uint8Array.from(bytes)]))];
    const features = await encode(model, toInput(crop(image.pixels, image.width, image.height, model.size)));
    return Object.fromEntries(Object.entries(features).map(([name, values]) => [name, Array.from(values)]));
}"""

PIXELS = "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)"

ANSWER = """async ([text, isSearched]) => {
    const { askHeads, cutFace, encodeFace, findFacesOf } = await import("./model.js");
    const { opened } = await import("./page.js");
    const { readImage } = await import("./pixels.js");
    const blob = new Blob([Uint8Array.from(atob(text), (character) => character.charCodeAt(0))]);
    const [model, photo] = [await opened, await readImage(blob)];
    const face = isSearched ? cutFace(model, photo, (await findFacesOf(model, photo))[0]) : photo;
    return askHeads(model, face, await encodeFace(model, face));
}"""
# By name: task of the probe, labels, feature, side in px, and what makes the answers of random weights differ by face.
HEADS = {
    "expression": ("expression", ["happiness", "neutral", "surprise"], "face+pose", 40, 30),
    "head_pose": ("head_pose", [], "pose", 32, 300),
    "age": ("regression", ["age"], "trunk", 48, 100),
}

# As text, since Playwright takes seconds over long lists.
CUT = """async ([text, crops, face_detector, side]) => {
    const { cutFace, findFacesOf } = await import("./model.js");
    const { crop, readImage } = await import("./pixels.js");
    const { opened } = await import("./page.js");
    const blob = new Blob([Uint8Array.from(atob(text), (character) => character.charCodeAt(0))]);
    const [model, photo] = [await opened, await readImage(blob)];
    const faces = await findFacesOf({ ...model, processor: { face_detector } }, photo);
    const cuts = crops.map((face_crop) => {
        const { pixels, width, height } = cutFace({ processor: { face_crop } }, photo, faces[0]);
        return Array.from(crop(pixels, width, height, side));
    });
    return JSON.stringify(cuts);
}"""
CUT_SIDE_PX = 96


def build(*arguments: object) -> subprocess.CompletedProcess:
    command = ["node", str(STATIC / "build.mjs"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def model(exported) -> PCLForPreTraining:  # noqa: F811
    return PCLForPreTraining.from_pretrained(exported).eval()


@pytest.fixture(scope="module")
def repository(tmp_path_factory, exported) -> Path:  # noqa: F811
    return shutil.copytree(exported, tmp_path_factory.mktemp("static") / "repository")


@pytest.fixture(scope="module")
def heads(model, repository):
    """Pipelines of heads that lie below the model."""
    tasks = ("image-classification", "head-pose-estimation", "image-classification")
    for name, (*options, scale) in HEADS.items():
        head = build_head(model.pcl, *options)
        weight, bias = list(head.parameters())[-2:]
        set_head(head, scale * weight, bias)
        save_head(head, repository / name)
    return {name: pipeline(task, str(repository / name)) for name, task in zip(HEADS, tasks)}


@pytest.fixture(scope="module")
def site(heads, repository):
    """The address of the page, served."""
    root = repository.parent
    save_detector(root / "repository" / "onnx" / "face_detector.onnx")
    built = build(root / "repository", root / "site")
    assert built.returncode == 0, built.stderr
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=root / "site")
    handler.func.log_message = lambda *arguments: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def page(site, chromium):  # noqa: F811
    page = chromium.new_page()
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(site)
    wait_for_answers(page)
    page.at_first = page.locator("main").inner_text()
    return page


def wait_for_answers(page):
    page.evaluate("import('./page.js').then((module) => module.answered)")


@pytest.mark.parametrize("size", [(128, 128), (51, 40), (32, 47), (30, 20)])
@torch.no_grad()
def test_features_of_a_photo_are_torchs(page, model, tmp_path, size):
    path = tmp_path / "face.png"
    Image.open(SAMPLES / "person1-left.png").resize(size).save(path)
    outputs = model.pcl(**PCLImageProcessor.for_image_size(32)(Image.open(path), return_tensors="pt"))
    found = page.evaluate(ENCODE, list(path.read_bytes()))
    expected = {"trunk": outputs.pooler_output, "face": outputs.face_features, "pose": outputs.pose_features}
    for name, values in expected.items():
        torch.testing.assert_close(torch.tensor(found[name]), values[0], atol=1e-3, rtol=0)
        assert values.abs().max() > 0.01


def test_a_benchmark_times_the_page_in_a_browser_of_its_own(site, repository, tmp_path):
    options = {"site": repository.parent / "site", "image_sizes": "32", "weights": "fp32"}
    options |= {"calls": 3, "output_dir": tmp_path}
    # Playwright takes a thread for each browser.
    words = [f"--{name}={value}" for name, value in options.items()]
    measuring = threading.Thread(target=importlib.import_module("benchmarks.browser").run, args=[words])
    measuring.start()
    measuring.join()
    rows = json.loads((tmp_path / "results.json").read_text())["results"]["speed"]
    assert [(row["weights"], row["px"]) for row in rows] == [("fp32", 32)]
    assert rows[0]["faces/s"] == pytest.approx(1000 / rows[0]["ms"])


def test_the_page_opens_with_two_examples_that_are_answered(page):
    for text in ("One face is found", "No face is found", "happiness", "Nearest by pose", "turned as the second"):
        assert text in page.at_first


def test_what_there_is_no_head_for_is_not_on_the_page(page):
    show = "(heads) => import('./page.js').then(({ showPanels }) => showPanels({ heads }))"
    page.evaluate(show, {"age": {}})
    assert [page.locator(f"#{name}").is_visible() for name in HEADS] == [False, False, True]
    page.evaluate("import('./page.js').then(async ({ opened, showPanels }) => showPanels(await opened))")
    assert all(page.locator(f"#{name}").is_visible() for name in HEADS)


@pytest.mark.parametrize(
    "photo",
    [Image.open(SAMPLES / "person1-left.png").convert("RGB"), portrait().rotate(17).crop((150, 60, 400, 300))],
    ids=["a drawn face, taken whole", "a tilted face"],
)
def test_heads_say_what_their_pipelines_say(page, heads, tmp_path, photo):
    options = {"detect": True, "on_no_face": "whole"}
    expected = {
        name: {each["label"]: each["score"] for each in heads[name](photo, top_k=3, **options)}
        for name in ("expression", "age")
    }
    pose = heads["head_pose"](photo, **options)
    is_found = pose.pop("box") != [0, 0, *photo.size]
    answers = page.evaluate(ANSWER, [to_base64(photo), is_found])
    assert answers == {
        name: pytest.approx(values, abs=1e-2) for name, values in (expected | {"head_pose": pose}).items()
    }

    photo.save(tmp_path / "photo.png")
    page.locator("#file-0").set_input_files(tmp_path / "photo.png")
    wait_for_answers(page)
    for angle in ANGLES:
        shown = page.locator(f"#{angle}").inner_text().replace("−", "-").rstrip("°")
        assert float(shown) == pytest.approx(pose[angle], abs=0.06)
    bars = page.locator("#bars > div").all_inner_texts()
    assert [bar.split() for bar in bars] == [[label, f"{share:.0%}"] for label, share in expected["expression"].items()]
    assert page.locator("#years").inner_text() == f"{expected['age']['age']:.0f}"
    if not is_found:
        drawn = base64.b64decode(page.locator("#axes").evaluate("canvas => canvas.toDataURL()").partition(",")[2])
        picture = Image.open(io.BytesIO(drawn)).convert("RGB")
        expected_picture = draw_axes(photo.resize(picture.size, Image.Resampling.BILINEAR), *pose.values())
        difference = np.abs(np.asarray(picture, dtype=float) - np.asarray(expected_picture))
        assert (difference > 64).mean() < 1e-3  # The borders of lines are smoothed otherwise.


@torch.no_grad()
def test_two_photos_are_compared_and_swapped_without_a_word_to_anybody(page, site, model):
    names = ("person1-front.png", "person4-right.png")
    for index, name in enumerate(names):
        page.locator(f"#file-{index}").set_input_files(SAMPLES / name)
    wait_for_answers(page)
    images = [Image.open(SAMPLES / name) for name in names]
    inputs = PCLImageProcessor.for_image_size(32)(images, return_tensors="pt")
    outputs = model.pcl(**inputs)
    cosine = torch.cosine_similarity(*outputs.face_features, dim=0).item()
    assert float(page.locator("#cosine-face").inner_text()) == pytest.approx(cosine, abs=2e-3)
    together = torch.cat([outputs.face_features, outputs.pose_features], dim=1)
    is_same = torch.cosine_similarity(*together, dim=0).item() >= 0.25
    verdict = f"0.250 (face+pose): {'the same person' if is_same else 'different people'}"
    assert verdict in page.locator("#verdict").inner_text()
    kept, turns = split_for_swap(model.pcl, inputs["pixel_values"], "turn")
    drawn = model.decode(kept, turns.flip(0)).clamp(0, 1)
    for index, expected in enumerate(drawn):
        shown = page.locator(f"#swap-{index}").evaluate(PIXELS)
        shown = torch.tensor(shown).view(32, 32, 4)[:, :, :3]
        torch.testing.assert_close(shown.permute(2, 0, 1) / 255, expected, atol=5e-3, rtol=0)
    assert all(url.startswith(site) for url in page.asked if not url.startswith("data:"))
    refused = page.evaluate("fetch('https://example.org').then(() => 'answered', () => 'refused')")
    assert refused == "refused"
    assert not any("example.org" in url for url in page.asked)


@torch.no_grad()
def test_the_nearest_samples_are_torchs(page, model):
    page.locator("#file-0").set_input_files(SAMPLES / "person3-left.png")
    wait_for_answers(page)
    paths = sorted(SAMPLES.glob("*.png"))
    images = [Image.open(path) for path in paths]
    outputs = model.pcl(**PCLImageProcessor.for_image_size(32)(images, return_tensors="pt"))
    for feature in ("face", "pose"):
        features = outputs[f"{feature}_features"]
        photo = features[[path.stem for path in paths].index("person3-left")]
        cosines = dict(zip((path.stem for path in paths), torch.cosine_similarity(photo, features).tolist()))
        figures = page.locator(f"#nearest-{feature} figure")
        shown = [float(text) for text in figures.all_inner_texts()]
        assert shown == pytest.approx(sorted(cosines.values(), reverse=True)[:4], abs=2e-3)
        names = [image.get_attribute("alt") for image in figures.locator("img").all()]
        assert names[0] == "person3-left"
        assert shown == pytest.approx([cosines[name] for name in names], abs=2e-3)


def to_base64(photo: Image.Image) -> str:
    file = io.BytesIO()
    photo.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    "photo",
    [
        portrait(),
        portrait().rotate(17).crop((150, 60, 400, 300)),
        group((-30, -12, 1.0), (300, 100, 0.6), size=(500, 300)),
    ],
    ids=["a portrait", "a tilted face", "the larger of two, beyond the border"],
)
def test_a_face_in_the_browser_has_the_pixels_of_the_processor(page, photo):
    crops = [{"align": align, "padding": padding, "margin": 0.28} for align in ALIGNMENTS for padding in PADDINGS]
    settings = {"longest_px": 320}
    cuts = json.loads(page.evaluate(CUT, [to_base64(photo), crops, settings, CUT_SIDE_PX]))
    for crop, cut in zip(crops, cuts, strict=True):
        options = {"face_crop": crop, "face_detector": settings | {"threads": 1}}
        processor = PCLImageProcessor.for_image_size(CUT_SIDE_PX, **options)
        expected = processor(photo, detect=True, most_faces=1, return_tensors="pt")["pixel_values"][0]
        levels = np.array(cut).reshape(CUT_SIDE_PX, CUT_SIDE_PX, 3)
        difference = np.abs(levels - 255 * expected.permute(1, 2, 0).numpy())
        assert difference.max() < 1.01, crop  # PIL computes with fewer digits, which may round a value otherwise.


@pytest.mark.parametrize(
    ("photo", "note"),
    [
        (group(size=(320, 200)), "No face is found, so that the whole photo is taken as one."),
        (group((20, 30, 1.0), (500, 100, 1.5)), "2 faces are found; taken is the largest, from (5"),
    ],
    ids=["none", "two"],
)
def test_the_page_says_how_many_faces_there_are_and_which_is_taken(page, tmp_path, photo, note):
    photo.save(tmp_path / "photo.png")
    page.locator("#note-0").evaluate("element => element.textContent = ''")
    page.locator("#file-0").set_input_files(tmp_path / "photo.png")
    page.locator("#note-0").get_by_text(note).wait_for()
    page.locator("#detect").uncheck()
    page.locator("#note-0:empty").wait_for(state="attached")
    page.locator("#detect").check()
    page.locator("#note-0").get_by_text(note).wait_for()


def test_nothing_is_wider_than_a_phone(page):
    page.locator("#results").wait_for()
    page.set_viewport_size({"width": 360, "height": 800})
    widths = page.evaluate("[...document.querySelectorAll('*')].map((each) => each.getBoundingClientRect().right)")
    assert max(widths) <= 360


def test_a_file_that_is_no_image_is_told(page, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    page.locator("#file-0").set_input_files(tmp_path / "text.png")
    told = page.get_by_text("text.png is not an image that this browser can read.")
    told.wait_for()
    assert "error" in told.get_attribute("class")


def test_a_folder_without_an_export_is_refused(tmp_path):
    refused = build(tmp_path)
    assert refused.returncode == 1
    assert "holds no onnx/model.onnx" in refused.stderr


def test_a_head_that_is_not_of_its_name_is_refused(heads, site, repository, tmp_path):
    shutil.copytree(repository, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "age")
    (tmp_path / "expression").rename(tmp_path / "age")
    refused = build(tmp_path, tmp_path / "site")
    assert refused.returncode == 1
    assert "age/ is not a regression head but a single_label_classification head" in refused.stderr


def test_the_library_is_pinned():
    (version,) = json.loads((STATIC / "package.json").read_text())["dependencies"].values()
    assert version == json.loads((LIBRARY / "package.json").read_text())["version"]
