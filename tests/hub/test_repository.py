"""What a run leaves beside its model, and how a folder differs from a repository."""

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from PIL import Image

from modeling_pcl.hub.repository import collect_results, compare, copy_records, describe_changes, list_remote_files
from modeling_pcl.hub.upload import upload_repository

DIGEST = "sha256:0123"
PROBE = {"protocol": "strict", "parts": [], "results": {}, "model_revision": DIGEST}


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run"
    (folder / "pictures").mkdir(parents=True)
    (folder / "run.json").write_text('{"options": {"corpus": "/home/me/faces.parquet"}}')
    for name in ("pictures/step-00000500.png", "pictures/losses.png", "faces.png", "roc.png"):
        Image.new("L", (4, 4)).save(folder / name)
    for name in ("expression", "head_pose"):
        (folder / name).mkdir()
        (folder / name / "results.json").write_text(json.dumps(PROBE | {"task": name, "model": "/home/me/runs/mine"}))
    return folder


@pytest.fixture
def repository(tmp_path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


def test_records_go_along_without_the_paths_of_this_machine(run, repository):
    copy_records(run, repository, "user/pcl", DIGEST, include_faces=False)
    assert json.loads((repository / "run.json").read_text())["options"]["corpus"] == "faces.parquet"
    results = json.loads((repository / "results.json").read_text())
    assert results == {name: PROBE | {"task": name, "model": "mine"} for name in ("expression", "head_pose")}


@pytest.mark.parametrize("include_faces", [False, True])
def test_only_pictures_that_are_drawn_here_go_along(run, repository, include_faces):
    for name in ("reconstructions", "swaps", "me", "roc-of-me", "faces-raw", "step-x"):
        Image.new("L", (4, 4)).save(run / f"{name}.png")
        Image.new("L", (4, 4)).save(run / f"pictures/{name}-2.png")
    faces = {"pictures/reconstructions.png", "pictures/swaps.png", "pictures/faces.png", "pictures/step-00000500.png"}
    charts = {"pictures/roc.png", "pictures/losses.png"}
    assert set(copy_records(run, repository, "user/pcl", DIGEST, include_faces)) == charts | (
        faces if include_faces else set()
    )


def test_results_further_down_are_found(run):
    for name in ("probes/verification", "comparison/mine/disentanglement"):
        (run / name).mkdir(parents=True)
        (run / name / "results.json").write_text(json.dumps(PROBE | {"task": name.split("/")[-1]}))
    assert list(collect_results(run, DIGEST)) == [
        "comparison/mine/disentanglement",
        "expression",
        "head_pose",
        "probes/verification",
    ]


@pytest.mark.parametrize("missing", ["parts", "results", "model_revision"])
def test_incomplete_results_are_refused_by_name(run, missing):
    probe = {key: value for key, value in PROBE.items() if key != missing} | {"task": "expression"}
    (run / "expression/results.json").write_text(json.dumps(probe))
    with pytest.raises(ValueError, match=rf"expression/results.json is of a probe, but lacks {missing}: probe again"):
        collect_results(run, DIGEST)


@pytest.mark.parametrize("include_faces", [False, True])
def test_pictures_of_faces_go_along_only_if_they_are_asked_for(run, repository, include_faces):
    pictures = copy_records(run, repository, "user/pcl", DIGEST, include_faces)
    without = {"pictures/roc.png", "pictures/losses.png"}
    faces = {"pictures/faces.png", "pictures/step-00000500.png"}
    assert set(pictures) == without | (faces if include_faces else set())
    assert all((repository / name).exists() for name in pictures)


def test_a_probe_of_its_own_is_named_by_its_task(run):
    (run / "results.json").write_text(json.dumps(PROBE | {"task": "verification"}))
    assert collect_results(run, DIGEST) == {"verification": PROBE | {"task": "verification"}}


class TestChanges:
    @pytest.fixture
    def api(self, hub) -> HfApi:
        return HfApi(endpoint=hub.url, token=hub.token)

    @pytest.fixture
    def pushed(self, api, repository) -> Path:
        files = {"README.md": "one\ntwo\n", "config.json": "{}", "model.safetensors": "weights", "old.json": "[]"}
        for name, text in files.items():
            (repository / name).write_text(text)
        upload_repository(api, repository, "user/faces")
        return repository

    def test_a_repository_that_is_not_there_has_nothing(self, api, repository):
        assert list_remote_files(api, "user/none", None) == {}
        (repository / "config.json").write_text("{}")
        assert describe_changes(api, "user/none", None, repository, {}).split() == ["new", "2", "bytes", "config.json"]

    def test_what_is_the_same_is_not_told(self, api, pushed):
        remote = list_remote_files(api, "user/faces", None)
        assert remote.keys() == {"README.md", "config.json", "model.safetensors", "old.json"}
        assert compare(pushed, remote) == {}
        assert describe_changes(api, "user/faces", None, pushed, remote) == "Nothing would change."

    def test_a_branch_that_is_to_be_made_is_compared_with_main(self, api, pushed):
        (pushed / "README.md").write_text("one\nthree\n")
        remote = list_remote_files(api, "user/faces", "v2")
        assert compare(pushed, remote) == {"README.md": "changed"}
        assert "-two\n+three" in describe_changes(api, "user/faces", "v2", pushed, remote)

    def test_a_hub_that_does_not_answer_is_told_in_one_line(self, api, hub, monkeypatch):
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        hub.fail("GET", "/tree/", "cut", 9)
        with pytest.raises(ValueError, match=r"^The files of user/faces cannot be listed: .+$"):
            list_remote_files(api, "user/faces", None)

    def test_new_changed_and_deleted_files_are_told_with_the_lines_of_texts(self, api, pushed):
        (pushed / "README.md").write_text("one\nthree\n")
        (pushed / "model.safetensors").write_text("others")
        (pushed / "old.json").unlink()
        (pushed / "onnx").mkdir()
        (pushed / "onnx" / "model.onnx").write_text("graph")
        said = describe_changes(api, "user/faces", None, pushed, list_remote_files(api, "user/faces", None))
        fates = {line.split()[-1]: line.split()[0] for line in said.splitlines() if " bytes  " in line}
        assert fates == {
            "README.md": "changed",
            "model.safetensors": "changed",
            "onnx/model.onnx": "new",
            "old.json": "deleted",
        }
        assert "-two\n+three" in said
        assert "config.json" not in said
