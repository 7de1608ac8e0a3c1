"""One commit, or none; and a repository that is as it was where something went wrong."""

import logging
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download

from modeling_pcl.hub.upload import upload_corpus, upload_repository

FILES = {"README.md": b"card", "config.json": b"{}", "model.safetensors": bytes(range(256)) * 40}


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, content in FILES.items():
        (tmp_path / "repository").mkdir(exist_ok=True)
        (tmp_path / "repository" / name).write_bytes(content)
    return tmp_path / "repository"


@pytest.fixture
def api(hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


def test_all_files_go_in_one_commit_large_ones_by_lfs(hub, api, folder):
    upload_repository(api, folder, "user/faces")
    assert hub.files("user/faces") == FILES
    assert len(hub.commits("user/faces")) == 2  # The first one made the repository.
    assert [path for _, path, _ in hub.requests if path.startswith("/storage/")]


def test_a_second_time_makes_no_commit_and_a_change_makes_one(hub, api, folder):
    upload_repository(api, folder, "user/faces")
    upload_repository(api, folder, "user/faces")
    assert len(hub.commits("user/faces")) == 2
    (folder / "config.json").unlink()
    (folder / "README.md").write_bytes(b"another")
    upload_repository(api, folder, "user/faces")
    assert len(hub.commits("user/faces")) == 3
    assert hub.files("user/faces") == {"README.md": b"another", "model.safetensors": FILES["model.safetensors"]}


def test_a_branch_is_made_and_main_stays(hub, api, folder):
    upload_repository(api, folder, "user/faces", private=True, revision="v2")
    assert hub.files("user/faces", revision="v2") == FILES
    assert hub.files("user/faces") == {}
    assert hub.created[0]["visibility"] == "private"


def test_many_files_are_one_commit_where_xet_is_installed(hub, api, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)  # Small texts are never sent by it.
    for number in range(300):
        (tmp_path / f"{number}.txt").write_text(str(number))
    upload_repository(api, tmp_path, "user/faces")
    assert len(hub.files("user/faces")) == 300
    assert len(hub.commits("user/faces")) == 2


@pytest.mark.parametrize("what", ["unavailable", "cut", "answer lost"])
def test_a_commit_that_fails_in_passing_is_tried_again_and_never_made_twice(hub, api, folder, what):
    hub.fail("POST", "/commit/", what, 2)
    upload_repository(api, folder, "user/faces")
    assert hub.files("user/faces") == FILES
    assert len(hub.commits("user/faces")) == 2


def test_a_commit_made_meanwhile_by_somebody_else_is_not_written_over(hub, api, folder, monkeypatch):
    upload_repository(api, folder, "user/faces")
    (folder / "config.json").write_text('{"a": 1}')
    list_files = api.list_repo_files

    def list_files_slowly(*arguments, **options):
        found = list_files(*arguments, **options)
        api.upload_file(path_or_fileobj=b"theirs", path_in_repo="theirs.txt", repo_id="user/faces")
        return found

    monkeypatch.setattr(api, "list_repo_files", list_files_slowly)
    with pytest.raises(ValueError, match=r"the upload to user/faces failed: .*412"):
        upload_repository(api, folder, "user/faces")
    assert hub.files("user/faces") == FILES | {"theirs.txt": b"theirs"}


def test_what_was_to_be_private_does_not_go_to_a_public_repository(hub, api, folder):
    api.create_repo("user/faces", private=False)
    with pytest.raises(ValueError, match="it exists and is public, not private as asked for"):
        upload_repository(api, folder, "user/faces", private=True)
    assert hub.files("user/faces") == {}
    upload_repository(api, folder, "user/faces")
    assert hub.files("user/faces") == FILES


def test_a_file_that_holds_the_token_is_not_sent(hub, api, folder):
    (folder / "run.json").write_text(f'{{"command": ["--token", "{hub.token}"]}}')
    with pytest.raises(ValueError, match=r"`run\.json` holds your token") as refused:
        upload_repository(api, folder, "user/faces")
    assert hub.token not in str(refused.value)
    assert ("models", "user/faces") not in hub.repositories


def test_rows_of_an_earlier_upload_of_a_corpus_do_not_stay(hub, api, tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        (tmp_path / "data" / f"{name}.parquet").write_bytes(b"rows of " + name.encode())
    upload_corpus(tmp_path, "user/faces")
    api.upload_file(path_or_fileobj=b"terms", path_in_repo="LICENSE", repo_id="user/faces", repo_type="dataset")
    (tmp_path / "data" / "b.parquet").unlink()
    upload_corpus(tmp_path, "user/faces")
    assert hub.files("user/faces", "datasets") == {"LICENSE": b"terms", "data/a.parquet": b"rows of a"}


FAULTS = {
    "the commit is refused for now": ("POST", "/commit/", "unavailable", 9),
    "the commit's connection is cut": ("POST", "/commit/", "cut", 9),
    "a large file is cut off": ("PUT", "/storage/", "cut", 99),
    "a large file arrives altered": ("PUT", "/storage/", "altered", 99),
    "preparing is refused": ("POST", "/preupload/", "unavailable", 99),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_first_upload_that_fails_leaves_no_empty_repository(hub, api, folder, fault, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    (folder / "model.safetensors").write_bytes(b"\0new" * 3000)
    hub.fail(*FAULTS[fault])
    with pytest.raises(ValueError, match="the upload to user/faces failed"):
        upload_repository(api, folder, "user/faces")
    assert hub.repositories == {}
    hub.faults.clear()
    upload_repository(api, folder, "user/faces")
    assert hub.files("user/faces")["model.safetensors"] == b"\0new" * 3000


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_leaves_the_repository_as_it_was_and_the_same_call_mends_it(hub, api, folder, fault, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    upload_repository(api, folder, "user/faces")
    (folder / "model.safetensors").write_bytes(b"\0new" * 3000)
    hub.fail(*FAULTS[fault])
    with pytest.raises(ValueError, match=r"the upload to user/faces failed: .*\nThe repository is as it was"):
        upload_repository(api, folder, "user/faces")
    assert hub.files("user/faces") == FILES
    hub.faults.clear()
    upload_repository(api, folder, "user/faces")
    assert hub.files("user/faces")["model.safetensors"] == b"\0new" * 3000


@pytest.mark.parametrize("token", ["reader", "stranger"])
def test_who_may_not_write_is_refused_without_showing_the_token(hub, folder, token, caplog):
    secret = {"reader": hub.reader, "stranger": "hf_" + "x" * 30}[token]
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(ValueError, match=r"the upload to user/faces failed: [\s\S]*(401|403)") as refused,
    ):
        upload_repository(HfApi(endpoint=hub.url, token=secret), folder, "user/faces")
    assert secret not in str(refused.value)
    assert secret not in caplog.text
    assert ("models", "user/faces") not in hub.repositories


def test_a_download_that_was_cut_is_tried_again(hub, api, folder, tmp_path):
    upload_repository(api, folder, "user/faces")
    hub.fail("GET", "/storage/", "cut", 1)
    options = {"endpoint": hub.url, "token": hub.token, "cache_dir": tmp_path / "cache"}
    path = hf_hub_download("user/faces", "model.safetensors", **options)
    assert Path(path).read_bytes() == FILES["model.safetensors"]
