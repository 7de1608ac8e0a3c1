"""handler.py answers requests, refuses bad ones with a status, and needs no more than its requirements.txt."""

import base64
import importlib.util
import io
import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from packaging.requirements import Requirement
from photos import group
from PIL import Image

from modeling_pcl import (
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLImageProcessor,
    PCLModel,
)
from modeling_pcl.images_pcl import open_image

HUB_CARDS = Path(__file__).parents[1] / "modeling_pcl" / "hub" / "templates"
MODELS = {
    "encoder": (PCLModel, {"verification_threshold": 0.5}),
    "pretrained": (PCLForPreTraining, {}),
    "expression": (PCLForImageClassification, {"num_labels": 3, "problem_type": "single_label_classification"}),
    "head_pose": (PCLForHeadPoseEstimation, {}),
    "identity": (PCLForImageClassification, {"num_labels": 5, "problem_type": "regression"}),
}

ALONE = """
import importlib.util, json, sys
from handler import EndpointHandler

assert importlib.util.find_spec("modeling_pcl") is None and importlib.util.find_spec("datasets") is None
answer = EndpointHandler(sys.argv[1])(json.load(open("request.json")))
json.dump(answer, open("answer.json", "w"))
"""


def link_only(requirements: Path, site: Path):
    """A folder of packages that holds what the requirements need, and nothing else that is installed here."""
    wanted = [line.split(">")[0] for line in requirements.read_text().splitlines() if not line.startswith("#")]
    found = set()
    while wanted:
        name = wanted.pop().lower()
        if name not in found:
            found.add(name)
            needs = map(Requirement, metadata.requires(name) or [])
            wanted += [need.name for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
    site.mkdir()
    for name in found:
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))


def face(seed: int, width: int = 50) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (60, width, 3), dtype=np.uint8))


def as_bytes(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def as_text(image: Image.Image) -> str:
    return base64.b64encode(as_bytes(image)).decode()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("repositories")
    for name, (model_class, changes) in MODELS.items():
        tiny.save(root / name, model_class, **changes)
    return {name: root / name for name in MODELS}


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("handler", HUB_CARDS / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def handlers(module, folders):
    return {name: module.EndpointHandler(folder) for name, folder in folders.items()}


@torch.no_grad()
def test_features_are_the_models(handlers, folders):
    pixels = PCLImageProcessor.for_image_size(32)(face(0), return_tensors="pt")["pixel_values"]
    outputs = PCLModel.from_pretrained(folders["encoder"]).eval()(pixels)
    for name in ("encoder", "pretrained"):
        answer = handlers[name]({"inputs": as_text(face(0))})
        assert list(answer) == ["trunk", "face", "pose"]
    answer = handlers["encoder"]({"inputs": as_text(face(0))})
    assert answer["face"] == pytest.approx(outputs.face_features[0].tolist(), abs=1e-5)


@pytest.mark.parametrize("form", ["text", "data URI", "bytes", "opened"])
def test_an_image_comes_in_every_form(handlers, form):
    text = as_text(face(0))
    forms = {"data URI": f"data:image/png;base64,{text}", "bytes": as_bytes(face(0)), "opened": face(0), "text": text}
    expected = handlers["head_pose"]({"inputs": as_bytes(face(0))})
    assert handlers["head_pose"]({"inputs": forms[form]}) == expected


@pytest.mark.parametrize("name", ["head_pose", "expression", "encoder"])
def test_a_list_gives_what_each_alone_gives_as_json(handlers, name):
    texts = [as_text(face(seed, 40 + seed)) for seed in range(3)]
    together = json.loads(json.dumps(handlers[name]({"inputs": texts})))
    for text, answer in zip(texts, together):
        alone = handlers[name]({"inputs": text})
        if name == "expression":
            assert [each["label"] for each in answer] == [each["label"] for each in alone]
            answer, alone = ([each["score"] for each in said] for said in (answer, alone))
            assert answer == pytest.approx(alone, abs=1e-5)
        else:
            for key, value in alone.items():
                assert answer[key] == pytest.approx(value, abs=1e-4)


def test_pairs_are_verified_and_swapped(handlers):
    pair = {"image": as_text(face(0)), "other": as_text(face(0))}
    asked = {"inputs": pair, "parameters": {"task": "face-verification"}}
    assert handlers["encoder"](asked) == {"similarity": pytest.approx(1), "threshold": 0.5, "same": True}
    assert handlers["identity"]({"inputs": [pair]})[0]["similarity"] == pytest.approx(1)
    asked = {"inputs": {"image": as_text(face(0)), "other": as_text(face(1))}, "parameters": {"feature": "face+pose"}}
    asked["parameters"]["task"] = "face-verification"
    answer = handlers["encoder"](asked)
    assert -1 < answer["similarity"] < 1
    assert answer["same"] is None  # The threshold is another feature's.
    pair = {"face": as_text(face(0)), "pose": as_text(face(1))}
    answer = handlers["pretrained"]({"inputs": pair, "parameters": {"task": "face-swap-pose"}})
    assert Image.open(io.BytesIO(base64.b64decode(answer["image"]))).size == (32, 32)
    turned = handlers["pretrained"]({"inputs": pair, "parameters": {"task": "face-swap-pose", "exchange": "turn"}})
    assert turned["image"] != answer["image"]
    with pytest.raises(ValueError, match=r"422.*`exchange` must be one of pose, turn"):
        handlers["pretrained"]({"inputs": pair, "parameters": {"task": "face-swap-pose", "exchange": "face"}})


def test_what_is_transparent_is_white(handlers):
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    answer = handlers["encoder"]({"inputs": as_bytes(clear)})
    assert answer == handlers["encoder"]({"inputs": as_bytes(Image.new("RGB", (40, 40), "white"))})


def test_a_drawing_is_a_picture_of_the_same_size(handlers):
    answer = handlers["head_pose"]({"inputs": as_text(face(0)), "parameters": {"draw": True}})
    assert Image.open(io.BytesIO(base64.b64decode(answer["image"]))).size == (50, 60)


GOOD = as_text(face(0))
LONG = "x" * 100_000
BAD = {
    "no inputs": ({"input": GOOD}, "400: the request must be"),
    "a URL": ({"inputs": "https://example.org/face.jpg"}, "400: the image is a URL, and none is fetched"),
    "not base64": ({"inputs": [GOOD, "%%%"]}, "400: input 1 is not base64"),
    "a data URI of another kind": ({"inputs": "data:image/png,abcd"}, "400: the image is not base64"),
    "base64 that breaks off": ({"inputs": "AAAAA"}, "400: the image is not base64"),
    "a number": ({"inputs": 5}, "400: the image must be base64 text or bytes, got int"),
    "a list in the list": ({"inputs": [[GOOD]]}, "400: input 0 must be base64 text or bytes, got list"),
    "nothing in it": ({"inputs": b""}, "415: the image is not a whole image: 'the file is empty'"),
    "not an image": ({"inputs": b"hello"}, "415: the image is not a whole image"),
    "a broken header": ({"inputs": as_bytes(face(0))[:20]}, "415: the image is not a whole image"),
    "half an image": ({"inputs": as_bytes(face(0))[:900]}, "415: the image is not a whole image"),
    "pixels without a range": ({"inputs": as_bytes(Image.new("F", (40, 40)), "TIFF")}, "415: the image is not a whole"),
    "opened pixels without a range": ({"inputs": Image.new("F", (40, 40))}, "415: the image is not a whole"),
    "too many bytes": ({"inputs": b"\0" * (32 * 2**20 + 1)}, "413: the image is beyond the 33,554,432 bytes"),
    "too much text": ({"inputs": "A" * (44 * 2**20)}, "413: the image is beyond the 33,554,432 bytes"),
    "too many": ({"inputs": [GOOD] * 65}, "413: a request takes at most 64 images"),
    "none": ({"inputs": []}, "400: `inputs` must hold 1 to 64 images, got an empty list"),
    "no such task": ({"inputs": GOOD, "parameters": {"task": "age"}}, "422: `task` must be one of head-pose-est"),
    "a long task": ({"inputs": GOOD, "parameters": {"task": LONG}}, "422: `task` must be one of head-pose-est"),
    "a long parameter": (
        {"inputs": GOOD, "parameters": {LONG: LONG}},
        "422: head-pose-estimation has no parameter 'xx",
    ),
    "a long value": ({"inputs": GOOD, "parameters": {"draw": [LONG]}}, "422: `draw` must be true or false, got"),
    "no such parameter": (
        {"inputs": GOOD, "parameters": {"drew": 1}},
        "422: .*no parameter 'drew'; it has task, detect",
    ),
    "a wrong value": ({"inputs": GOOD, "parameters": {"draw": "yes"}}, "422: `draw` must be true or false, got 'yes'"),
    "no object": ({"inputs": GOOD, "parameters": [1]}, "422: `parameters` must be an object"),
    "an empty list": ({"inputs": GOOD, "parameters": []}, "422: `parameters` must be an object"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_requests_are_refused_with_a_status(handlers, module, bad):
    request, message = BAD[bad]
    with pytest.raises(module.RequestError, match=message) as refused:
        handlers["head_pose"](request)
    assert str(refused.value).startswith(str(refused.value.status))
    assert len(str(refused.value)) < 300


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(handlers, module):
    bomb = as_bytes(Image.new("1", (30_000, 2_000)))
    assert len(bomb) < 20_000
    with pytest.raises(module.RequestError, match="413: the image, 30000 x 2000 px, is beyond"):
        handlers["head_pose"]({"inputs": bomb})
    with pytest.raises(module.RequestError, match="413: the image has more than 40,000,000 pixels"):
        handlers["head_pose"]({"inputs": as_bytes(Image.new("1", (60_000, 5_000)))})


def test_the_limits_are_of_a_request_and_not_of_an_image(handlers, module, monkeypatch):
    """64 images of 40 million pixels, 2.5 MB of PNG files, took 5.3 GB when each was within the limit."""
    large = as_text(Image.new("1", (5_000, 3_000)))
    with pytest.raises(module.RequestError, match="413: input 2, 5000 x 3000 px, is beyond the 40,000,000 pixels"):
        handlers["head_pose"]({"inputs": [large] * 64})
    pair = {"image": GOOD, "other": GOOD}
    with pytest.raises(module.RequestError, match="413: a request takes at most 64 images"):
        handlers["identity"]({"inputs": [pair] * 33})
    monkeypatch.setattr(module, "MOST_BYTES", 3 * len(as_bytes(face(0))) + 100)
    assert len(handlers["head_pose"]({"inputs": [GOOD] * 3})) == 3
    with pytest.raises(module.RequestError, match=r"413: input 3 is beyond the .* bytes of a request"):
        handlers["head_pose"]({"inputs": [GOOD] * 4})


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "AVIF", "GIF", "WEBP", "JPEG", "PPM", "TGA"])
def test_formats_are_those_of_the_corpora(handlers, kind):
    content = as_bytes(face(0), kind)
    same = open_image(content)
    assert handlers["head_pose"]({"inputs": content}) == handlers["head_pose"]({"inputs": same})


def test_base64_comes_as_encoders_write_it(handlers):
    content = as_bytes(face(0))
    plain, url = base64.b64encode(content).decode(), base64.urlsafe_b64encode(content).decode()
    assert "_" in url
    forms = {
        "base64 and MySQL": base64.encodebytes(content).decode(),
        "openssl": "\n".join(textwrap.wrap(plain, 64)) + "\n",
        "Windows": "\r\n".join(textwrap.wrap(plain, 76)),
        "URL": url,
        "unpadded": url.rstrip("="),
        "data URI": f" data:image/png;charset=utf-8;base64,{plain}",
    }
    expected = handlers["head_pose"]({"inputs": content})
    for name, text in forms.items():
        assert handlers["head_pose"]({"inputs": text}) == expected, name


@pytest.mark.parametrize("top_k", [0, -1, 10**30, True, 1.0, "2", None, [1]])
def test_top_k_is_a_number_of_labels(handlers, module, top_k):
    request = {"inputs": GOOD, "parameters": {"top_k": top_k}}
    if top_k == 10**30:
        assert len(handlers["expression"](request)) == 3
        return
    with pytest.raises(module.RequestError, match="422: `top_k` must be an integer of at least 1, got"):
        handlers["expression"](request)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), 10**400, 2, "0.5", True])
def test_a_threshold_is_a_cosine(handlers, module, threshold):
    request = {"inputs": {"image": GOOD, "other": GOOD}, "parameters": {"threshold": threshold}}
    with pytest.raises(module.RequestError, match="422: `threshold` must be a number from -1 to 1, got"):
        handlers["identity"](request)


def test_no_answer_holds_nan(handlers, module, monkeypatch):
    broken = {"similarity": float("nan"), "threshold": None, "same": None}
    monkeypatch.setitem(handlers["identity"].runners, "face-verification", lambda *inputs, **options: [broken])
    with pytest.raises(module.RequestError, match="422: the model gives no finite number for input 0"):
        handlers["identity"]({"inputs": {"image": GOOD, "other": GOOD}})


def mangled_request(seed: int) -> dict:
    """A request with its text, its image, its structure or its parameters changed."""
    generator = np.random.default_rng(seed)
    kinds = ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "ICO", "PPM", "TGA"]
    content = bytearray(as_bytes(face(seed), kinds[generator.integers(len(kinds))]))
    if generator.random() < 0.6:
        for place in generator.integers(0, len(content), 1 + int(generator.integers(20))):
            content[place] = generator.integers(256)
    if generator.random() < 0.2:
        del content[int(generator.integers(len(content))) :]
    text = base64.encodebytes(content).decode()
    if generator.random() < 0.2:
        place = int(generator.integers(len(text)))
        text = (
            text[:place] + str(generator.choice(["", "%", "=", "é", "\0", "-_", "\ud800", "data:"])) + text[place + 1 :]
        )
    values = [text, bytes(content), [text], [text, text], {"image": text, "other": text}, [{"image": text}], None, 1.5]
    parameters = [None, {}, {"task": "features"}, {"task": "face-verification"}, {"top_k": 1}, {"top_k": [0] * 1000}]
    parameters += [
        {"feature": "pose"},
        {"feature": 3},
        {"threshold": float("nan")},
        {"task": ["x"] * 1000},
        {"draw": 1},
        "x",
    ]
    weights = np.array([8, 4, 3, 2, 6, 1, 1, 1]) / 26
    request = {"inputs": values[generator.choice(len(values), p=weights)]}
    if generator.random() < 0.5:
        request["parameters"] = parameters[generator.integers(len(parameters))]
    return request


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_300_mangled_requests_are_answered_in_json_or_refused_with_a_status(handlers, module, capsys):
    counts, longest = Counter(), 0
    for seed in range(300):
        handler = handlers[("encoder", "expression", "head_pose", "identity")[seed % 4]]
        try:
            json.dumps(handler(mangled_request(seed)), allow_nan=False)
            counts["answered"] += 1
        except module.RequestError as refusal:
            counts[refusal.status] += 1
            longest = max(longest, len(str(refusal)))
    with capsys.disabled():
        print(f"\n300 mangled requests to four models in turn: {dict(counts)}")
    assert min(counts["answered"], counts[400], counts[415], counts[422]) > 20
    assert longest < 300


def test_other_mistakes_in_pairs_are_named(handlers, module):
    with pytest.raises(
        module.RequestError, match=r'400: input 0: face-verification takes {"image": \.\.\., "other": \.\.\.}'
    ):
        handlers["identity"]({"inputs": [GOOD]})
    request = {"inputs": {"image": GOOD, "other": "%"}, "parameters": {}}
    with pytest.raises(module.RequestError, match="400: the image, `other` is not base64"):
        handlers["identity"](request)
    with pytest.raises(module.RequestError, match="422: `feature` must be one of"):
        handlers["identity"]({"inputs": {"image": GOOD, "other": GOOD}, "parameters": {"feature": "nose"}})


def test_it_runs_with_nothing_but_its_requirements(folders, handlers, tmp_path):
    for name in ("handler.py", "requirements.txt"):
        (tmp_path / name).write_text((HUB_CARDS / name).read_text())
    request = {"inputs": [as_text(face(0)), as_text(face(1))]}
    (tmp_path / "request.json").write_text(json.dumps(request))
    link_only(HUB_CARDS / "requirements.txt", tmp_path / "site")
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-S", "-c", ALONE, str(folders["head_pose"])]
    alone = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    for answer, expected in zip(json.loads((tmp_path / "answer.json").read_text()), handlers["head_pose"](request)):
        assert answer == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["encoder", "expression", "head_pose"])
def test_the_largest_face_of_a_photo_is_cut_out_when_asked_and_said_where(handlers, module, name):
    photo = group((40, 100, 1.0), (400, 100, 1.5))
    (face,) = PCLImageProcessor.for_image_size(32).cut_faces(photo, most_faces=1)
    found = handlers[name]({"inputs": as_text(photo), "parameters": {"detect": True}})
    alone = handlers[name]({"inputs": as_text(face.image)})
    first, same = (answer[0] if isinstance(answer, list) else answer for answer in (found, alone))
    assert first["box"] == pytest.approx(face.box.tolist(), abs=0.01)
    for key in set(same) - {"label", "roll", "yaw", "pitch"}:  # A head's pose is turned back to the photo's.
        assert first[key] == pytest.approx(same[key], abs=1e-5)
    with pytest.raises(module.RequestError, match="422: No face is found"):
        handlers[name]({"inputs": as_text(Image.new("RGB", (300, 200))), "parameters": {"detect": True}})
