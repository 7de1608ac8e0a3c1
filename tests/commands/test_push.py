"""From a run to a repository, and back over HTTP in a process that does not have this package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from datasets import Dataset, Image
from exported import exported  # noqa: F401 a fixture
from huggingface_hub import HfApi
from PIL import Image as PILImage
from safetensors.torch import load_file, save_file

from modeling_pcl import PCLForHeadPoseEstimation, PCLForPreTraining, PCLImageProcessor, PCLModel
from modeling_pcl.hub import push as push_module
from modeling_pcl.hub.arguments import PushArguments
from modeling_pcl.hub.models import model_digest
from modeling_pcl.hub.parity import check_parity
from modeling_pcl.hub.upload import upload_corpus
from modeling_pcl.probes.heads import build_head, save_head

STRANGER = """
import importlib.abc, json, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_pcl":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from datasets import load_dataset
from huggingface_hub import hf_hub_download, snapshot_download
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline

trust = {"trust_remote_code": True}
model = AutoModel.from_pretrained("user/pcl", **trust).eval()
stored = load_file(hf_hub_download("user/pcl", "parity.safetensors"))
difference = (model(stored["pixel_values"]).face_features - stored["face_features"]).abs().max().item()
face = Image.new("RGB", (40, 40), (200, 120, 90))
swapped = pipeline("face-swap-pose", "user/pcl", **trust)((face, face))
head = AutoModelForImageClassification.from_pretrained("user/pcl", subfolder="glad", **trust)
processor = AutoImageProcessor.from_pretrained("user/pcl", subfolder="glad", **trust)
labels = pipeline("image-classification", model=head, image_processor=processor)(face)
corpus = load_dataset("user/faces", split="train")
folder = snapshot_download("user/pcl", revision="main")
assert pipeline("image-classification", f"{folder}/glad", **trust)(face) == labels
said = {"module": type(model).__module__, "difference": difference, "swapped": swapped.size, "rows": len(corpus)}
said["labels"] = sorted(label["label"] for label in labels)
print(json.dumps(said | {"folder": folder}))
"""


def make_run(folder: Path, model_class: type = PCLForPreTraining) -> Path:
    tiny.save(folder, model_class)
    (folder / "run.json").write_text(json.dumps(tiny.RUN))
    for name in ("checkpoints", "logs"):
        (folder / name).mkdir()
        (folder / name / "large.pt").write_bytes(b"\0" * 100)
    return folder


def add_head(run: Path, name: str, labels: list[str]):
    """A head as a probe leaves it below its model's folder."""
    model = PCLModel.from_pretrained(run)
    save_head(build_head(model, "expression", labels, "trunk", 32), run / name)
    figures = {"accuracy": {"mean": 0.5, "spread": None, "values": [0.5]}}
    part = {"test": {"source": "faces", "images": 3, "revision": "a"}}
    probe = {"task": "expression", "protocol": "strict", "seeds": [0], "image_size": 32, "selection": "none"}
    probe |= {"parts": [part], "results": {"trunk": {"linear": figures}}, "model_revision": model_digest(model)}
    (run / name / "results.json").write_text(json.dumps(probe))


@pytest.fixture
def run(tmp_path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture
def api(hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def push(api, monkeypatch):
    """Push; ONNX and the check in a new process, which take seconds, only if they are asked for."""

    def push(run_dir: Path, repo_id: str = "user/pcl", api: HfApi = api, check=lambda folder: {}, **options) -> str:
        monkeypatch.setattr(push_module, "check_parity", check)
        arguments = {"model": run_dir, "repo_id": repo_id, "onnx": False} | options
        return push_module.push(api, PushArguments(**arguments))

    return push


def test_a_repository_opens_over_http_where_this_package_is_absent(push, hub, run, tmp_path, exported, monkeypatch):  # noqa: F811
    def copy_files(name: str, folder: Path, int8: bool, recorded_name: str):
        assert (int8, recorded_name) == (True, "user/pcl")
        shutil.copytree(exported / "onnx", folder)

    monkeypatch.setattr("modeling_pcl.hub.onnx_export.export_files", copy_files)
    add_head(run, "glad", ["calm", "glad"])
    push(run, onnx=True, check=check_parity)
    assert set(hub.files("user/pcl")) == {
        *(f"glad/{name}" for name in ("config.json", "model.safetensors", "preprocessor_config.json")),
        "results.json",
        *(path.name for path in Path(sys.modules["modeling_pcl"].__file__).parent.glob("*_pcl.py")),
        *("README.md", "config.json", "handler.py", "model.safetensors", "parity.safetensors"),
        *("preprocessor_config.json", "requirements.txt", "run.json"),
        *(f"onnx/{name}" for name in ("decoder_model.onnx", "export.json", "model.onnx", "model_quantized.onnx")),
    }
    assert len(hub.commits("user/pcl")) == 2
    assert "/home/me" not in hub.files("user/pcl")["run.json"].decode()
    face = {"bytes": (Path(__file__).parents[2] / "hub_cards" / "head_pose.png").read_bytes(), "path": None}
    (tmp_path / "corpus" / "data").mkdir(parents=True)
    Dataset.from_dict({"image": [face] * 3}).cast_column("image", Image()).to_parquet(
        tmp_path / "corpus" / "data" / "train-00000.parquet"
    )
    upload_corpus(tmp_path / "corpus", "user/faces")
    environment = os.environ | hub.environment(hub.token) | {"HF_HOME": str(tmp_path / "home")}
    environment["HF_MODULES_CACHE"] = str(tmp_path / "modules")
    command = [sys.executable, "-c", STRANGER]
    stranger = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert stranger.returncode == 0, stranger.stderr
    said = json.loads(stranger.stdout.splitlines()[-1])
    assert said["module"].startswith("transformers_modules.user.pcl.")
    assert said["difference"] < 1e-6
    assert (said["swapped"], said["rows"], said["labels"]) == ([32, 32], 3, ["calm", "glad"])
    folder = Path(said["folder"])
    fetched = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del fetched[".gitattributes"]
    assert fetched == hub.files("user/pcl")
    seen = [stranger.stdout, stranger.stderr, *map(repr, fetched.values())]
    assert not [text for text in seen if hub.token in text]


def test_models_push_themselves_with_the_card_unless_there_is_another(hub, api, tmp_path):
    api.create_repo("user/described")
    api.upload_file(path_or_fileobj=b"# Mine", path_in_repo="README.md", repo_id="user/described")
    config = tiny.config()
    PCLModel(config).push_to_hub("user/pushed")
    PCLForHeadPoseEstimation(config).save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="user/saved")
    PCLModel(config).push_to_hub("user/described")
    for name, text in {"pushed": 'AutoModel.from_pretrained("user/pushed"', "saved": "head-pose-estimation"}.items():
        card = hub.files(f"user/{name}")["README.md"].decode()
        assert text in card
        assert "Pose-disentangled Contrastive Learning" in card
        assert "GMACs" in card
    assert "# Mine" in hub.files("user/described")["README.md"].decode()


def test_a_dry_run_shows_what_would_change_and_changes_nothing(push, hub, run):
    said = push(run, dry_run=True)
    assert "new" in said
    assert ("models", "user/pcl") not in hub.repositories
    push(run)
    push(run)
    commits = hub.commits("user/pcl")
    assert len(commits) == 2
    assert push(run, dry_run=True).startswith("Nothing would change.")
    said = push(run, dry_run=True, license="cc-by-4.0")
    assert "+license: cc-by-4.0" in said
    assert hub.commits("user/pcl") == commits


def test_a_dry_run_where_the_hub_does_not_answer_still_shows_the_repository(push, run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    message = push(run, api=HfApi(endpoint="http://127.0.0.1:9"), dry_run=True)
    assert "model.safetensors" in message.splitlines()
    assert "What would change on the Hub is not known" in message
    assert (run / "repository" / "README.md").exists()


def test_what_a_killed_push_left_is_removed_and_the_repository_is_replaced_only_by_a_whole_one(push, run, monkeypatch):
    push(run)
    (run / ".pushing" / "scratch").mkdir(parents=True)
    monkeypatch.setattr(push_module, "write_card", interrupt)
    with pytest.raises(InterruptedError):
        push(run)
    assert (run / "repository" / "README.md").exists()
    assert not (run / ".pushing").exists()


def interrupt(*_, **__):
    raise InterruptedError


def test_a_branch_and_a_private_repository_are_asked_for(push, hub, run):
    push(run, private=True, revision="v2")
    assert hub.created[0]["visibility"] == "private"
    assert "model.safetensors" in hub.files("user/pcl", revision="v2")
    assert hub.files("user/pcl") == {}


def test_the_weights_and_the_tensors_are_the_runs(push, hub, run):
    push(run)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (run, run / "repository"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_head_shows_its_answers_to_images_that_may_be_published(push, hub, tmp_path):
    run = make_run(tmp_path / "head", PCLForHeadPoseEstimation)
    PILImage.radial_gradient("L").convert("RGB").save(tmp_path / "face.png")
    push(run, example_images=[tmp_path / "face.png"])
    files = hub.files("user/pcl")
    assert files["examples/face.png"] == (tmp_path / "face.png").read_bytes()
    card = files["README.md"].decode()
    assert "resolve/main/examples/face.png" in card
    assert "yaw" in card.split("---\n")[1]


def test_an_upload_that_fails_leaves_the_repository_as_it_was(push, hub, run):
    push(run)
    before = hub.files("user/pcl")
    hub.fail("POST", "/commit/", "unavailable", 9)
    with pytest.raises(ValueError, match=r"upload to user/pcl failed: [\s\S]*503[\s\S]*the same command sends it"):
        push(run, license="cc-by-4.0")
    assert hub.files("user/pcl") == before


@pytest.mark.parametrize("name", ["pcl", "a/b/c", "user/pc l", "user/--pcl"])
def test_a_name_that_is_none_is_refused(push, run, name):
    with pytest.raises(ValueError, match=r"cannot be a repository's name|must be `user/name`"):
        push(run, repo_id=name)
    assert not (run / "repository").exists()


def test_who_may_not_write_is_refused_before_anything_is_built(push, hub, run, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="Nobody is logged in: `hf auth login`"):
        push(run, api=HfApi(endpoint=hub.url))
    with pytest.raises(ValueError, match="The Hub does not know who is asking") as refused:
        push(run, api=HfApi(endpoint=hub.url, token="hf_" + "x" * 30))
    assert "hf_xxx" not in str(refused.value)
    with pytest.raises(ValueError, match="The token may only read"):
        push(run, api=HfApi(endpoint=hub.url, token=hub.reader))
    assert not (run / "repository").exists()


def test_what_is_no_run_is_refused(push, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="does not open"):
        push(tmp_path / "empty")
    with pytest.raises(ValueError, match="does not open"):
        push(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    assert not list((tmp_path / "empty").iterdir())


def test_the_runs_own_image_processor_goes_along(push, hub, run):
    PCLImageProcessor.for_image_size(48).save_pretrained(run)
    push(run)
    assert json.loads(hub.files("user/pcl")["preprocessor_config.json"])["crop_size"]["height"] == 48


def test_probes_of_this_model_are_its_results_and_others_are_left_out(push, hub, run, caplog):
    digest = model_digest(PCLModel.from_pretrained(run))
    figures = {"accuracy": {"mean": 0.5, "spread": None, "values": [0.5]}}
    part = {"test": {"source": "faces", "images": 3, "revision": "a"}}
    probe = {"task": "expression", "protocol": "strict", "seeds": [0], "image_size": 32, "selection": "none"}
    probe |= {"parts": [part], "results": {"face": {"linear": figures}}}
    written = {"mine": probe | {"model_revision": digest}, "old": probe | {"model_revision": "sha256:0"}, "bench": {}}
    for name, record in written.items():
        (run / name).mkdir()
        (run / name / "results.json").write_text(json.dumps(record))
    push(run)
    assert json.loads(hub.files("user/pcl")["results.json"]).keys() == {"mine"}
    assert "old/results.json is left out: it measured another model" in caplog.text
    (run / "mine" / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"mine/results.json is not JSON"):
        push(run)


def test_a_card_that_somebody_wrote_keeps_its_text_and_gets_the_results(push, hub, run):
    add_head(run, "glad", ["calm", "glad"])
    front = "license: other\nlicense_name: research\ntags: [face]\nmodel-index: []"
    (run / "README.md").write_text(
        f"---\n{front}\n---\n\n# Ours\n\nOf 12,345 faces.\n\n## What it was for\n\nNothing.\n"
    )
    push(run)
    card = hub.files("user/pcl")["README.md"].decode()
    entries = yaml.safe_load(card.split("---\n")[1])
    assert (entries["license"], entries["license_name"], entries["tags"]) == ("other", "research", ["face"])
    assert entries["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5
    assert card.index("Of 12,345 faces.") < card.index("Nothing.") < card.index("### glad: image classification")
    # With marks, and results of another time between them, they stand where the marks are.
    marked = card.replace("0.500", "0.900").split("## What it was for")
    (run / "README.md").write_text(f"{marked[0]}{marked[1][marked[1].index('<!-- results -->') :]}\n## The end\n")
    push(run, license="mit")
    card = hub.files("user/pcl")["README.md"].decode()
    assert card.count("### glad") == 1
    assert card.index("0.500") < card.index("## The end")
    assert "0.900" not in card
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "mit"


def test_a_card_of_an_earlier_push_is_taken_again(push, hub, run):
    push(run)
    (run / "README.md").write_bytes(hub.files("user/pcl")["README.md"])  # Without results it has a `model_name`.
    push(run, repo_id="user/again")
    assert "model_name" in hub.files("user/again")["README.md"].decode().split("---")[1]


def test_a_head_with_weights_that_are_not_finite_is_not_pushed(push, hub, run):
    add_head(run, "glad", ["calm", "glad"])
    tensors = load_file(run / "glad" / "model.safetensors")
    tensors["classifier.weight"][0, 0] = float("nan")
    save_file(tensors, run / "glad" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"glad`.*are not finite"):
        push(run)
    assert ("models", "user/pcl") not in hub.repositories


def test_a_folder_that_is_somebody_elses_is_not_overwritten(push, run):
    (run / "repository").mkdir()
    (run / "repository" / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="holds something else: move that elsewhere"):
        push(run)
    assert (run / "repository" / "thesis.tex").exists()


def test_the_card_must_be_without_faults(push, run, monkeypatch, tmp_path):
    template = "---\nlicense: mit\n---\n{{ 3 * 14.5 }} faces"
    shutil.copytree(push_module.TEMPLATES, tmp_path / "templates")
    (tmp_path / "templates" / "pretrained.md").write_text(template)
    monkeypatch.setattr(push_module, "TEMPLATES", tmp_path / "templates")
    with pytest.raises(ValueError, match=r"The card has faults:\na number that no file holds: 43.5"):
        push(run)


def test_a_folder_that_computes_something_else_is_not_pushed(push, hub, run):
    def refuse(folder: Path):
        assert {"config.json", "model.safetensors", "parity.safetensors"} < {path.name for path in folder.iterdir()}
        raise ValueError("it computes another `logits`")

    with pytest.raises(ValueError, match="it computes another `logits`"):
        push(run, check=refuse)
    assert ("models", "user/pcl") not in hub.repositories


def test_the_command_says_what_it_did(call, hub, api, run, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    monkeypatch.setattr(push_module, "check_parity", lambda folder: {})
    call("push", run, "user/pcl", "--no_onnx")
    assert f"{hub.url}/user/pcl is what {run / 'repository'} is, by commit" in capsys.readouterr().out
