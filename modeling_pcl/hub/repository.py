"""The folder that a repository is made from, and how it differs from what the Hub has."""

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
from .published import without_private

logger = logging.getLogger(__name__)

RESULTS = "results.json"
PROBE_KEYS = {"task", "protocol", "parts", "results", "model_revision"}
# Pictures that `pcl` draws, without a face in them and with faces of the corpus; no other leaves this machine.
CHARTS = {"comparison", "confusion", "disentanglement", "epochs", "f1", "head_pose", "learning_curve", "losses"}
CHARTS |= {"regression", "roc"}
SCORES = {"learning_curve.csv", "scores.csv"}  # As `pcl search` writes them.
HEAD_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
FACES = re.compile(r"faces|reconstructions|swaps|step-\d+")
TEXTS = (".json", ".md", ".py", ".txt")
KEPT = (".gitattributes",)


def copy_records(run_dir: Path, folder: Path, repo_id: str, encoder_digest: str, include_faces: bool) -> list[str]:
    """Copy what a run left beside its model: `run.json`, scores, pictures, its probes' heads, and their
    results in one file.

    Absolute paths become their last part.

    Args:
        run_dir: Of `pretrain.py`, with probes of it in folders below; or of `probe.py`.
        folder: The repository's.
        repo_id: Its name on the Hub, where the heads find their code.
        encoder_digest: What identifies the run's encoder, as probes write it into `model_revision`.
        include_faces: Whether pictures go along that show images of the corpus.

    Returns:
        The pictures, as paths in the repository.
    """
    if (run_dir / "run.json").exists():
        _write(folder / "run.json", json.loads((run_dir / "run.json").read_text()))
    results = collect_results(run_dir, encoder_digest)
    if results:
        _write(folder / RESULTS, results)
    for name in sorted(SCORES):
        if (run_dir / name).exists():
            shutil.copyfile(run_dir / name, folder / name)
    for name in heads(run_dir, results):
        (folder / name).mkdir(parents=True)
        shutil.copyfile(run_dir / name / "model.safetensors", folder / name / "model.safetensors")
        for file in ("config.json", "preprocessor_config.json"):
            _write(folder / name / file, with_code_of(repo_id, json.loads((run_dir / name / file).read_text())))
    pictures = [*sorted(run_dir.glob("*.png")), *sorted((run_dir / "pictures").glob("*.png"))]
    chosen = [path for path in pictures if path.stem in CHARTS or (include_faces and FACES.fullmatch(path.stem))]
    for path in chosen:
        (folder / "pictures").mkdir(exist_ok=True)
        shutil.copyfile(path, folder / "pictures" / path.name)
    return [f"pictures/{path.name}" for path in chosen]


def heads(run_dir: Path, results: Mapping[str, Mapping]) -> list[str]:
    """Which probes left a head in a folder right below the run's; deeper ones are of comparisons.

    Raises:
        ValueError: If one does not open, or has weights that are not finite.
    """
    names = [name for name in results if all((run_dir / name / file).exists() for file in HEAD_FILES)]
    names = [name for name in names if "/" not in name]
    for name in names:
        open_model(str(run_dir / name))
    return names


def with_code_of(repo_id: str, config: Mapping) -> dict:
    """A config of a model or an image processor whose code is that of a repository and not of its own folder."""
    config = dict(config)
    if "auto_map" in config:
        config["auto_map"] = {name: f"{repo_id}--{place}" for name, place in config["auto_map"].items()}
    if "custom_pipelines" in config:
        config["custom_pipelines"] = {
            name: entry | {"impl": f"{repo_id}--{entry['impl']}"} for name, entry in config["custom_pipelines"].items()
        }
    return config


def _write(path: Path, record: dict):
    path.write_text(json.dumps(without_private(record), indent=2) + "\n")


def collect_results(run_dir: Path, encoder_digest: str) -> dict[str, dict]:
    """The probe of a folder under the name of its task, or those in the folders below, down to the third, under theirs.

    What `probe.py` did not write is left out, and so are probes of another model, which a warning names.

    Raises:
        ValueError: If a file is not JSON, or of a probe and incomplete.
    """
    probe_of_folder = _read_probe(run_dir / RESULTS)
    if probe_of_folder is not None:
        return {probe_of_folder["task"]: probe_of_folder}
    probes = {}
    for path in sorted(path for depth in ("*", "*/*", "*/*/*") for path in run_dir.glob(f"{depth}/{RESULTS}")):
        probe = _read_probe(path)
        if probe is not None and probe["model_revision"] != encoder_digest:
            logger.warning("%s is left out: it measured another model, or this one before it was trained on", path)
        elif probe is not None:
            probes[path.parent.relative_to(run_dir).as_posix()] = probe
    return probes


def _read_probe(path: Path) -> dict | None:
    """The file's contents, None if there is none or it is not a probe's."""
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
        raise ValueError(f"{path} is of a probe, but lacks {', '.join(missing)}: probe again, or take it away.")
    return record


def remote_files(api: HfApi, repo_id: str, revision: str | None) -> dict[str, tuple[int, str]]:
    """Size and hash of every file that the Hub has, by path: of `main` for a new branch, nothing for a new repository.

    Raises:
        ValueError: If the Hub does not answer.
    """
    try:
        tree = api.list_repo_tree(repo_id, recursive=True, revision=revision)
        files = [entry for entry in tree if isinstance(entry, RepoFile) and entry.path not in KEPT]
    except RepositoryNotFoundError:
        return {}
    except RevisionNotFoundError:
        return {} if revision is None else remote_files(api, repo_id, None)
    except Exception as error:  # Whatever network or Hub raise.
        raise ValueError(f"What is in {repo_id} cannot be seen: {' '.join(str(error).split())}") from error
    return {file.path: (file.size, file.lfs.sha256 if file.lfs else file.blob_id) for file in files}


def compare(folder: Path, remote: dict[str, tuple[int, str]]) -> dict[str, str]:
    """What a push would do to each file: `new`, `changed` or `deleted`; files that are the same are not in it."""
    local = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    fates = {
        name: "changed" if name in remote else "new"
        for name, path in local.items()
        if name not in remote or remote[name][1] not in _hashes(path)
    }
    return fates | dict.fromkeys(sorted(remote.keys() - local.keys()), "deleted")


def _hashes(path: Path) -> Sequence[str]:
    """As git has it, and as git-lfs does."""
    content = path.read_bytes()
    blob = b"blob %d\0" % len(content) + content
    return hashlib.sha1(blob, usedforsecurity=False).hexdigest(), hashlib.sha256(content).hexdigest()


def describe_changes(
    api: HfApi, repo_id: str, revision: str | None, folder: Path, remote: dict[str, tuple[int, str]]
) -> str:
    """Each file that a push would change, with its size, and the lines of texts that would."""
    fates = compare(folder, remote)
    lines = []
    for name, fate in fates.items():
        size = remote[name][0] if fate == "deleted" else (folder / name).stat().st_size
        lines.append(f"{fate:8} {size:>12,} bytes  {name}")
    for name, fate in fates.items():
        if fate == "changed" and name.endswith(TEXTS):
            lines += ["", *_difference(api, repo_id, revision, folder, name)]
    return "\n".join(lines) or "Nothing would change."


def _difference(api: HfApi, repo_id: str, revision: str | None, folder: Path, name: str) -> list[str]:
    """Of a text that both have."""
    try:
        path = api.hf_hub_download(repo_id, name, revision=revision)
    except RevisionNotFoundError:  # A new branch begins as `main` is.
        path = api.hf_hub_download(repo_id, name)
    there = Path(path).read_text(encoding="utf-8").splitlines()
    here = (folder / name).read_text(encoding="utf-8").splitlines()
    return list(difflib.unified_diff(there, here, f"{repo_id}/{name}", str(folder / name), lineterm=""))
