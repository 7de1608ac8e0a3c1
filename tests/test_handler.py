"""handler.py answers requests, refuses bad ones with a status, and needs no more than its requirements.txt."""

import base64
import importlib.util
import io
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from packaging.requirements import Requirement
from PIL import Image

from modeling_pcl import (
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLImageProcessor,
    PCLModel,
)

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


def test_what_is_transparent_is_white(handlers):
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    answer = handlers["encoder"]({"inputs": as_bytes(clear)})
    assert answer == handlers["encoder"]({"inputs": as_bytes(Image.new("RGB", (40, 40), "white"))})


def test_a_drawing_is_a_picture_of_the_same_size(handlers):
    answer = handlers["head_pose"]({"inputs": as_text(face(0)), "parameters": {"draw": True}})
    assert Image.open(io.BytesIO(base64.b64decode(answer["image"]))).size == (50, 60)


GOOD = as_text(face(0))
BAD = {
    "no inputs": ({"input": GOOD}, "400: the request must be"),
    "a URL": ({"inputs": "https://example.org/face.jpg"}, "400: the image is a URL, and none is fetched"),
    "not base64": ({"inputs": [GOOD, "%%%"]}, "400: input 1 is not base64"),
    "a number": ({"inputs": 5}, "400: the image must be base64 text or bytes, got int"),
    "not an image": ({"inputs": b"hello"}, "415: the image is not a whole image in JPEG, PNG, WEBP"),
    "a broken header": ({"inputs": as_bytes(face(0))[:20]}, "415: the image is not a whole image"),
    "half an image": ({"inputs": as_bytes(face(0))[:900]}, "415: the image is not a whole image"),
    "another format": ({"inputs": as_bytes(face(0), "TIFF")}, "415: the image is not"),
    "too many bytes": ({"inputs": b"\0" * (10 * 2**20 + 1)}, "413: the image has 10,485,761 bytes, at most"),
    "too much text": ({"inputs": "A" * (15 * 2**20)}, "413: the image is larger"),
    "too many": ({"inputs": [GOOD] * 65}, "413: a request takes 1 to 64 inputs, got 65"),
    "none": ({"inputs": []}, "413: a request takes 1 to 64 inputs, got 0"),
    "no such task": ({"inputs": GOOD, "parameters": {"task": "age"}}, "422: `task` must be one of head-pose-est"),
    "no such parameter": ({"inputs": GOOD, "parameters": {"drew": 1}}, "422: .*no parameter `drew`; it has task, draw"),
    "a wrong value": ({"inputs": GOOD, "parameters": {"draw": "yes"}}, "422: `draw` must be bool, got 'yes'"),
    "no object": ({"inputs": GOOD, "parameters": [1]}, "422: `parameters` must be an object"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_requests_are_refused_with_a_status(handlers, module, bad):
    request, message = BAD[bad]
    with pytest.raises(module.RequestError, match=message) as refused:
        handlers["head_pose"](request)
    assert str(refused.value).startswith(str(refused.value.status))


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(handlers, module):
    bomb = as_bytes(Image.new("1", (30_000, 2_000)))
    assert len(bomb) < 20_000
    with pytest.raises(module.RequestError, match="413: the image is 30000 x 2000 px"):
        handlers["head_pose"]({"inputs": bomb})


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
