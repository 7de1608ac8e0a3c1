"""The contents of a repository's folder, and how they differ from the files on the Hub."""

import difflib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from .models import open_model
from .published import remove_private

logger = logging.getLogger(__name__)

RESULTS = "results.json"
PROBE_KEYS = {"task", "parts", "results", "model_revision"}
# Names of the pictures that `pcl` draws. No other picture is published, and those with faces of the corpus (`FACES`)
# only on request.
CHARTS = {"comparison", "confusion", "disentanglement", "epochs", "f1", "head_pose", "learning_curve", "losses"}
CHARTS |= {"regression", "roc"}
SCORES = {"learning_curve.csv", "scores.csv"}  # Files that `pcl search` writes.
HEAD_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
FACES = re.compile(r"faces|reconstructions|swaps|step-\d+")
TEXTS = (".json", ".md", ".py", ".txt")
KEPT = (".gitattributes",)  # Files that the Hub creates itself.


def copy_records(run_dir: Path, folder: Path, repo_id: str, encoder_digest: str, include_faces: bool) -> list[str]:
    """Copy the records of a run: `run.json`, scores, pictures, the heads of its probes, and their results in one file.

    Absolute paths in the JSON files are shortened to their last part.

    Args:
        run_dir: Output folder of `pcl pretrain`, with the probes of its model in folders below, or of `pcl probe`.
        folder: Folder of the repository.
        repo_id: Name of the repository on the Hub, which holds the code for the heads.
        encoder_digest: Identifier of the run's encoder, see `model_digest`; probes record it as `model_revision`.
        include_faces: Whether to copy pictures that show images of the corpus.

    Returns:
        Paths of the pictures in the repository.
    """
    if (run_dir / "run.json").exists():
        _write_json(folder / "run.json", json.loads((run_dir / "run.json").read_text()))
    results = collect_results(run_dir, encoder_digest)
    if results:
        _write_json(folder / RESULTS, results)
    for name in sorted(SCORES):
        if (run_dir / name).exists():
            shutil.copyfile(run_dir / name, folder / name)
    for name in find_heads(run_dir, results):
        (folder / name).mkdir(parents=True)
        shutil.copyfile(run_dir / name / "model.safetensors", folder / name / "model.safetensors")
        for file in ("config.json", "preprocessor_config.json"):
            config = json.loads((run_dir / name / file).read_text())
            _write_json(folder / name / file, refer_to_code_of(repo_id, config))
    paths = [*sorted(run_dir.glob("*.png")), *sorted((run_dir / "pictures").glob("*.png"))]
    paths = [path for path in paths if path.stem in CHARTS or (include_faces and FACES.fullmatch(path.stem))]
    for path in paths:
        (folder / "pictures").mkdir(exist_ok=True)
        shutil.copyfile(path, folder / "pictures" / path.name)
    return [f"pictures/{path.name}" for path in paths]


def find_heads(run_dir: Path, results: Mapping[str, Mapping]) -> list[str]:
    """Find the probes that saved a head in a folder directly below the run's. Deeper folders belong to comparisons.

    Raises:
        ValueError: If a head cannot be opened, or has weights that are not finite.
    """
    names = [name for name in results if all((run_dir / name / file).exists() for file in HEAD_FILES)]
    names = [name for name in names if "/" not in name]
    for name in names:
        open_model(str(run_dir / name))
    return names


def refer_to_code_of(repo_id: str, config: Mapping) -> dict:
    """Change the config of a model or an image processor so that its code is loaded from a repository on the Hub.

    Without this, transformers would look for the code in the head's own folder.
    """
    config = dict(config)
    if "auto_map" in config:
        config["auto_map"] = {name: f"{repo_id}--{place}" for name, place in config["auto_map"].items()}
    if "custom_pipelines" in config:
        config["custom_pipelines"] = {
            name: entry | {"impl": f"{repo_id}--{entry['impl']}"} for name, entry in config["custom_pipelines"].items()
        }
    return config


def _write_json(path: Path, record: dict):
    path.write_text(json.dumps(remove_private(record), indent=2) + "\n")


def collect_results(run_dir: Path, encoder_digest: str) -> dict[str, dict]:
    """Collect the results of probes.

    Files that `pcl probe` did not write are left out, and so are probes of another model, for which a warning is
    logged.

    Args:
        run_dir: Output folder of `pcl probe`, or a folder with such folders up to three levels below.
        encoder_digest: As for `copy_records`.

    Returns:
        Content of each `results.json`: under the name of the task for `run_dir` itself, otherwise under the relative
        path of its folder.

    Raises:
        ValueError: If a file is not JSON, or the file of a probe is incomplete.
    """
    probe = _read_probe(run_dir / RESULTS)
    if probe is not None:
        return {probe["task"]: probe}
    probes = {}
    for path in sorted(path for depth in ("*", "*/*", "*/*/*") for path in run_dir.glob(f"{depth}/{RESULTS}")):
        probe = _read_probe(path)
        if probe is not None and probe["model_revision"] != encoder_digest:
            logger.warning("%s is left out: it measured another model, or this one before further training", path)
        elif probe is not None:
            probes[path.parent.relative_to(run_dir).as_posix()] = probe
    return probes


def _read_probe(path: Path) -> dict | None:
    """Read the `results.json` of a probe; None if the file does not exist or is not of a probe."""
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(record, dict) or "task" not in record:
        return None
    missing = sorted(PROBE_KEYS - record.keys())
    if missing:
        raise ValueError(f"{path} is of a probe, but lacks {', '.join(missing)}: probe again, or remove the file.")
    return record


def list_remote_files(api: HfApi, repo_id: str, revision: str | None) -> dict[str, tuple[int, str]]:
    """List the files of a repository on the Hub.

    Returns:
        Size and hash of each file by path. For a new branch these are the files of `main`; a new repository has none.

    Raises:
        ValueError: If the Hub does not answer.
    """
    try:
        tree = api.list_repo_tree(repo_id, recursive=True, revision=revision)
        files = [entry for entry in tree if isinstance(entry, RepoFile) and entry.path not in KEPT]
    except RepositoryNotFoundError:
        return {}
    except RevisionNotFoundError:
        return {} if revision is None else list_remote_files(api, repo_id, None)
    except Exception as error:  # Errors of the network and of the Hub have no common base class.
        raise ValueError(f"The files of {repo_id} cannot be listed: {' '.join(str(error).split())}") from error
    return {file.path: (file.size, file.lfs.sha256 if file.lfs else file.blob_id) for file in files}


def compare(folder: Path, remote: dict[str, tuple[int, str]]) -> dict[str, str]:
    """Compare a folder with the files on the Hub.

    Returns:
        `new`, `changed` or `deleted` for each file that a push would change, by path.
    """
    local = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    changes = {
        name: "changed" if name in remote else "new"
        for name, path in local.items()
        if name not in remote or remote[name][1] not in _compute_hashes(path)
    }
    return changes | dict.fromkeys(sorted(remote.keys() - local.keys()), "deleted")


def _compute_hashes(path: Path) -> Sequence[str]:
    """Compute the hashes of a file in git and in git-lfs. The Hub lists one of them, depending on the file."""
    content = path.read_bytes()
    blob = b"blob %d\0" % len(content) + content
    return hashlib.sha1(blob, usedforsecurity=False).hexdigest(), hashlib.sha256(content).hexdigest()


def describe_changes(
    api: HfApi, repo_id: str, revision: str | None, folder: Path, remote: dict[str, tuple[int, str]]
) -> str:
    """Describe each file that a push would change, with its size, and show the diffs of text files."""
    changes = compare(folder, remote)
    lines = []
    for name, change in changes.items():
        size = remote[name][0] if change == "deleted" else (folder / name).stat().st_size
        lines.append(f"{change:8} {size:>12,} bytes  {name}")
    for name, change in changes.items():
        if change == "changed" and name.endswith(TEXTS):
            lines += ["", *_diff_text(api, repo_id, revision, folder, name)]
    return "\n".join(lines) or "Nothing would change."


def _diff_text(api: HfApi, repo_id: str, revision: str | None, folder: Path, name: str) -> list[str]:
    """Return the lines of a unified diff from the file on the Hub to the file in the folder."""
    try:
        path = api.hf_hub_download(repo_id, name, revision=revision)
    except RevisionNotFoundError:  # A new branch starts as a copy of `main`.
        path = api.hf_hub_download(repo_id, name)
    remote_lines = Path(path).read_text(encoding="utf-8").splitlines()
    local_lines = (folder / name).read_text(encoding="utf-8").splitlines()
    return list(difflib.unified_diff(remote_lines, local_lines, f"{repo_id}/{name}", str(folder / name), lineterm=""))
