"""The page that runs a model in the browser: its features are torch's, and it talks to nobody."""

import http.server
import json
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch
from browser import chromium, needs_chromium  # noqa: F401
from PIL import Image

from modeling_pcl import PCLForPreTraining, PCLImageProcessor
from modeling_pcl.hub.onnx_export import export_decoder, export_onnx

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
    const { openModel, encode } = await import("./model.js");
    const { crop, readImage, toInput } = await import("./pixels.js");
    const [model, image] = [await openModel(), await readImage(new Blob([Uint8Array.from(bytes)]))];
    const features = await encode(model, toInput(crop(image.pixels, image.width, image.height, model.size)));
    return Object.fromEntries(Object.entries(features).map(([name, values]) => [name, Array.from(values)]));
}"""


def build(*arguments: object) -> subprocess.CompletedProcess:
    command = ["node", str(STATIC / "build.mjs"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def model() -> PCLForPreTraining:
    torch.manual_seed(0)
    return PCLForPreTraining(tiny.config(verification_threshold=0.25, verification_feature="face+pose")).eval()


@pytest.fixture(scope="module")
def site(model, tmp_path_factory):
    """The address of the page, served."""
    root = tmp_path_factory.mktemp("static")
    model.save_pretrained(root / "repository")
    PCLImageProcessor.for_image_size(32).save_pretrained(root / "repository")
    export_onnx(model, root / "repository" / "onnx" / "model.onnx")
    export_decoder(model, root / "repository" / "onnx" / "decoder_model.onnx")
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
    page.get_by_text("Choose two photos.").wait_for()
    return page


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


@torch.no_grad()
def test_two_photos_are_compared_and_swapped_without_a_word_to_anybody(page, site, model):
    names = ("person1-front.png", "person4-right.png")
    for index, name in enumerate(names):
        page.locator(f"#file-{index}").set_input_files(SAMPLES / name)
    page.locator("#results").wait_for()
    images = [Image.open(SAMPLES / name) for name in names]
    outputs = model.pcl(**PCLImageProcessor.for_image_size(32)(images, return_tensors="pt"))
    cosine = torch.cosine_similarity(*outputs.face_features, dim=0).item()
    assert float(page.locator("#cosine-face").inner_text()) == pytest.approx(cosine, abs=2e-3)
    together = torch.cat([outputs.face_features, outputs.pose_features], dim=1)
    is_same = torch.cosine_similarity(*together, dim=0).item() >= 0.25
    verdict = f"0.250 (face+pose): {'the same person' if is_same else 'different people'}"
    assert verdict in page.locator("#verdict").inner_text()
    assert page.locator("#swap-0").evaluate("canvas => canvas.width") == 32
    assert all(url.startswith(site) for url in page.asked if not url.startswith("data:"))
    refused = page.evaluate("fetch('https://example.org').then(() => 'answered', () => 'refused')")
    assert refused == "refused"
    assert not any("example.org" in url for url in page.asked)


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


def test_the_library_is_pinned():
    (version,) = json.loads((STATIC / "package.json").read_text())["dependencies"].values()
    assert version == json.loads((LIBRARY / "package.json").read_text())["version"]
