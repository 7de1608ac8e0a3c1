"""What a saved folder is worth where this package is not installed: everything in one new process, to save time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoModelForImageClassification

from modeling_pcl import (
    FaceSwapPosePipeline,
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLImageProcessor,
    PCLModel,
)
from modeling_pcl.probes.heads import save_embedding

CLASSES = (PCLModel, PCLForPreTraining, PCLForImageClassification, PCLForHeadPoseEstimation)

STRANGER = """
import importlib.abc, json, sys
from pathlib import Path

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_pcl":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
try:
    import modeling_pcl
except ModuleNotFoundError:
    pass
else:
    sys.exit("modeling_pcl is importable")

import torch
from PIL import Image
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoModelForPreTraining, pipeline
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module

NAMES = ["PCLModel", "PCLForPreTraining", "PCLForImageClassification", "PCLForHeadPoseEstimation"]
root = Path(sys.argv[1])
trust = {"trust_remote_code": True}
inputs = torch.load(root / "inputs.pt", weights_only=True)
results = {}

AUTO = [AutoModel, AutoModelForPreTraining, AutoModelForImageClassification, AutoModelForImageClassification]

def open_all(folder):
    opened = {name: auto.from_pretrained(folder / name, **trust) for name, auto in zip(NAMES, AUTO)}
    assert [type(model).__name__ for model in opened.values()] == NAMES
    return {name: model.eval() for name, model in opened.items()}

def open_by_class_name(folder, name):
    return get_class_from_dynamic_module(f"modeling_pcl.{name}", folder).from_pretrained(folder)

@torch.no_grad()
def outputs(models):
    return {
        "PCLModel": models["PCLModel"](inputs["images"]).face_features,
        "PCLForPreTraining": models["PCLForPreTraining"](pixel_values=inputs["images"]).loss,
        "PCLForImageClassification": models["PCLForImageClassification"](inputs["images"]).logits,
        "PCLForHeadPoseEstimation": models["PCLForHeadPoseEstimation"](inputs["images"]).logits,
    }

processor = AutoImageProcessor.from_pretrained(root / "PCLModel", **trust)

def save_all(models, folder):
    for name, model in models.items():
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)

# By class name first: what the Auto classes do to a class when they open it must not be needed to save it.
by_name = {name: open_by_class_name(root / name, name).eval() for name in NAMES}
results["by_name"] = outputs(by_name)
save_all(by_name, root / "saved_by_name")
results["saved_by_name"] = outputs(open_all(root / "saved_by_name"))
models = open_all(root)
results["opened"] = outputs(models)
save_all(models, root / "saved")
results["saved"] = outputs(open_all(root / "saved"))

config = AutoConfig.from_pretrained(root / "PCLModel", **trust)
image = Image.open(root / "image.png")
results["pixel_values"] = processor(image, return_tensors="pt")["pixel_values"]
config.save_pretrained(root / "saved" / "config")
reopened = AutoImageProcessor.from_pretrained(root / "saved" / "PCLModel", **trust)
results["pixel_values_again"] = reopened(image, return_tensors="pt")["pixel_values"]
reconfigured = AutoConfig.from_pretrained(root / "saved" / "config", **trust)
assert reconfigured.to_diff_dict() == config.to_diff_dict()
with torch.no_grad():
    encoder = AutoModel.from_pretrained(root / "PCLForPreTraining", **trust).eval()
    results["encoder"] = encoder(inputs["images"]).pooler_output
features = pipeline("image-feature-extraction", model=str(root / "PCLModel"), **trust)
results["maps"], results["pooled"] = torch.tensor(features(image)), torch.tensor(features(image, pool=True))
classify = pipeline("image-classification", model=str(root / "PCLForImageClassification"), **trust)
results["tasks"] = json.dumps({name: pipeline(model=str(root / name), **trust).task for name in (*NAMES, "embedding")})
with torch.no_grad():
    results["feature_maps"] = open_by_class_name(root / "PCLModel", "PCLBackbone")(inputs["images"]).feature_maps
results["labels"] = json.dumps(classify(image, top_k=3))
estimate = pipeline("head-pose-estimation", model=str(root / "PCLForHeadPoseEstimation"), **trust)
results["pose"] = json.dumps(estimate(image))
assert estimate(image, draw=True)["image"].size == image.size
swap = pipeline("face-swap-pose", model=str(root / "PCLForPreTraining"), **trust)
results["swap"] = torch.tensor(list(swap({"face": image, "pose": image}).tobytes()))
for name in ("PCLModel", "PCLForPreTraining", "embedding"):
    verify = pipeline("face-verification", model=str(root / name), **trust)
    results[f"similarity of {name}"] = json.dumps(verify((image, image.rotate(90))))
everything = (*by_name.values(), *models.values(), encoder, config, reconfigured, processor, reopened)
everything = (*everything, estimate, swap, verify, verify.model)
results["modules"] = json.dumps(sorted({type(one).__module__.split(".")[0] for one in everything}))
assert "modeling_pcl" not in sys.modules
torch.save(results, root / "results.pt")
"""


@pytest.fixture(scope="module")
def models() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    heads = {"PCLForImageClassification": "trunk", "PCLForHeadPoseEstimation": "face+pose"}
    configs = {cls: tiny.config(num_labels=3, head_feature=heads.get(cls.__name__, "trunk")) for cls in CLASSES}
    return {cls.__name__: cls(config).eval() for cls, config in configs.items()}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return tiny.images(tiny.config(), 3)


@pytest.fixture(scope="module")
def results(models, images, tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("remote")
    for name, model in models.items():
        model.save_pretrained(root / name)
        PCLImageProcessor.for_image_size(32).save_pretrained(root / name)
    save_embedding(models["PCLModel"], torch.randn(5, 32), torch.zeros(5), "face", 32, root / "embedding")
    torch.save({"images": images}, root / "inputs.pt")
    Image.linear_gradient("L").resize((50, 60)).convert("RGB").save(root / "image.png")
    environment = os.environ | {"HF_MODULES_CACHE": str(root / "modules")}
    stranger = subprocess.run(
        [sys.executable, "-c", STRANGER, str(root)], cwd=root, env=environment, capture_output=True, text=True
    )
    assert stranger.returncode == 0, stranger.stderr
    return torch.load(root / "results.pt", weights_only=True) | {"root": root, "stderr": stranger.stderr}


@pytest.mark.parametrize("kind", ["opened", "saved", "by_name", "saved_by_name"])
@torch.no_grad()
def test_every_class_opens_without_the_package_and_computes_the_same(models, images, results, kind):
    expected = {name: model(images) for name, model in models.items()}
    assert torch.equal(results[kind]["PCLModel"], expected["PCLModel"].face_features)
    assert torch.equal(results[kind]["PCLForPreTraining"], expected["PCLForPreTraining"].loss)
    for name in ("PCLForImageClassification", "PCLForHeadPoseEstimation"):
        assert torch.equal(results[kind][name], expected[name].logits)


@torch.no_grad()
def test_the_encoder_of_a_pretraining_folder_opens_as_auto_model(models, images, results):
    assert torch.equal(results["encoder"], models["PCLForPreTraining"].pcl(images).pooler_output)


@torch.no_grad()
def test_a_backbone_opens_without_the_package(models, images, results):
    (trunk_map,) = results["feature_maps"]
    assert torch.equal(trunk_map, models["PCLModel"](images).last_hidden_state)


def test_every_folder_names_its_task_without_the_package(results):
    assert json.loads(results["tasks"]) == {
        "PCLModel": "image-feature-extraction",
        "PCLForPreTraining": "image-feature-extraction",
        "PCLForImageClassification": "image-classification",
        "PCLForHeadPoseEstimation": "head-pose-estimation",
        "embedding": "face-verification",
    }


@torch.no_grad()
def test_processor_and_pipelines_work_without_the_package(models, results):
    image = Image.open(results["root"] / "image.png")
    pixel_values = PCLImageProcessor.for_image_size(32)(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(results["pixel_values"], pixel_values)
    assert torch.equal(results["pixel_values_again"], pixel_values)
    outputs = models["PCLModel"](pixel_values)
    # The pipeline's lists lose nothing of float32.
    torch.testing.assert_close(results["maps"], outputs.last_hidden_state)
    torch.testing.assert_close(results["pooled"], outputs.pooler_output)
    scores = models["PCLForImageClassification"](pixel_values).logits.softmax(dim=1)[0]
    found = {entry["label"]: entry["score"] for entry in json.loads(results["labels"])}
    assert found == pytest.approx({f"LABEL_{index}": score for index, score in enumerate(scores.tolist())}, abs=1e-6)


@torch.no_grad()
def test_this_packages_own_pipelines_work_without_it(models, results):
    image = Image.open(results["root"] / "image.png")
    pixel_values = PCLImageProcessor.for_image_size(32)([image, image.rotate(90)], return_tensors="pt")["pixel_values"]
    angles = models["PCLForHeadPoseEstimation"](pixel_values).logits[0].tolist()
    assert list(json.loads(results["pose"]).values()) == pytest.approx(angles, abs=1e-5)
    drawn = FaceSwapPosePipeline(models["PCLForPreTraining"], image_processor=PCLImageProcessor.for_image_size(32))
    assert list(drawn((image, image)).tobytes()) == results["swap"].tolist()
    embedded = AutoModelForImageClassification.from_pretrained(results["root"] / "embedding").eval()
    vectors = {
        "PCLModel": models["PCLModel"](pixel_values).face_features,
        "PCLForPreTraining": models["PCLForPreTraining"].pcl(pixel_values).face_features,
        "embedding": embedded(pixel_values).logits,
    }
    for name, (one, other) in vectors.items():
        said = json.loads(results[f"similarity of {name}"])
        assert said["similarity"] == pytest.approx(F.cosine_similarity(one, other, dim=0).item(), abs=1e-5)
        assert said["same"] is None


def test_the_classes_came_from_the_folder(results):
    assert json.loads(results["modules"]) == ["transformers_modules"]


@pytest.mark.parametrize("saved", [".", "saved", "saved_by_name"])
@pytest.mark.parametrize("name", [cls.__name__ for cls in CLASSES])
def test_a_folder_holds_every_root_module_as_it_is_here(results, name, saved):
    package = Path(sys.modules["modeling_pcl"].__file__).parent
    expected = {path.name: path.read_text() for path in package.glob("*_pcl.py")}
    assert {path.name: path.read_text() for path in (results["root"] / saved / name).glob("*.py")} == expected


def test_root_modules_import_only_each_other_and_what_users_have():
    package = Path(sys.modules["modeling_pcl"].__file__).parent
    allowed = {"torch", "torchvision", "transformers", "numpy", "PIL", "huggingface_hub", *sys.stdlib_module_names}
    for path in package.glob("*_pcl.py"):
        for line in path.read_text().splitlines():
            if line.startswith(("import ", "from ")):
                module = line.split()[1]
                is_sibling = module.startswith(".") and module.endswith("_pcl") and module.count(".") == 1
                assert is_sibling or module.split(".")[0] in allowed, f"{path.name}: {line}"
