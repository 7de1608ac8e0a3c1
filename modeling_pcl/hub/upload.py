"""Finished folders to the Hub: a model's repository or a corpus, each in one commit or not at all."""

import logging
import mmap
import time
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.utils import filter_repo_objects

logger = logging.getLogger(__name__)

WAITS_S = (1, 2, 4)  # huggingface_hub tries large files again by itself, but not the commit.
PASSING = (408, 429, 500, 502, 503, 504)  # HTTP statuses that may be others a moment later.
NEVER_SENT = (".git/*", "*/.git/*", ".cache/*", "*/.cache/*")


def upload_repository(
    api: HfApi, folder: Path, repo_id: str, private: bool = False, revision: str | None = None
) -> CommitInfo:
    """Make a repository what a folder is, in one commit; none where it is that already.

    Args:
        api: With the endpoint and the token.
        folder: What files there are afterwards, all but `.gitattributes`.
        repo_id: `user/name`; made if it does not exist.
        private: Whether a new repository is private.
        revision: A branch, made if it does not exist; by default `main`.

    Raises:
        ValueError: If the upload failed, which leaves the repository as it was.
    """
    way_out = f"The repository is as it was; the folder is whole in {folder}, and the same command sends it."
    return _upload(api, folder, repo_id, "model", private, way_out, revision, deletes="*")


def upload_corpus(folder: Path, repo_id: str, private: bool = True):
    """Upload a prepared corpus to a dataset repository, in one commit; what is there already is not sent again.

    Parquet files that the folder does not have are deleted: their rows would be read with the others.

    Args:
        folder: What `prepare_corpus.py` wrote.
        repo_id: `user/name`; made if it does not exist.
        private: Whether a new repository is private.

    Raises:
        ValueError: If the upload failed; the message says where the corpus is and how to send it later.
    """
    way_out = f"The corpus is safe in {folder}; the same command sends it once the Hub answers."
    _upload(HfApi(), folder, repo_id, "dataset", private, way_out, deletes="*.parquet")


def _upload(
    api: HfApi,
    folder: Path,
    repo_id: str,
    kind: str,
    private: bool,
    way_out: str,
    revision: str | None = None,
    *,
    deletes: str,
) -> CommitInfo:
    try:
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        names = list(filter_repo_objects(names, ignore_patterns=list(NEVER_SENT)))
        _check_without_token(folder, names, api.token or get_token())
        is_new = not api.repo_exists(repo_id, repo_type=kind)
        _make_repository(api, repo_id, kind, private, revision)
        try:
            commit = _commit(api, folder, names, repo_id, kind, revision, deletes)
        except Exception:
            if is_new:
                _delete_if_empty(api, repo_id, kind)
            raise
    except Exception as error:  # Whatever network or Hub raise must not hide that the work is safe.
        raise ValueError(f"the upload to {repo_id} failed: {_in_one_line(error)}\n{way_out}") from error
    logger.info("Uploaded to %s", commit.repo_url)
    return commit


def _check_without_token(folder: Path, names: Sequence[str], token: str | bool | None):
    """Refuse to publish what it is published with."""
    for name in names:
        with open(folder / name, "rb") as file:
            if isinstance(token, str) and (folder / name).stat().st_size:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    if content.find(token.encode()) >= 0:
                        raise ValueError(f"`{name}` holds your token: take it out, and make another one.")


def _make_repository(api: HfApi, repo_id: str, kind: str, private: bool, revision: str | None):
    """Make what is not there yet: the repository, and the branch."""
    api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
    if private and not api.repo_info(repo_id, repo_type=kind).private:
        raise ValueError("it exists and is public, not private as asked for; its settings on the Hub change that.")
    if revision is not None:
        api.create_branch(repo_id, branch=revision, repo_type=kind, exist_ok=True)


def _delete_if_empty(api: HfApi, repo_id: str, kind: str):
    """Take away a repository that was made for a commit that then failed."""
    try:
        if set(api.list_repo_files(repo_id, repo_type=kind)) <= {".gitattributes"}:
            api.delete_repo(repo_id, repo_type=kind)
    except Exception as error:  # The failure of the commit is what matters.
        logger.warning("%s was made and is empty; it could not be deleted: %s", repo_id, _in_one_line(error))


def _commit(
    api: HfApi, folder: Path, names: Sequence[str], repo_id: str, kind: str, revision: str | None, deletes: str
) -> CommitInfo:
    """Commit what differs, all at once, and try again where that may help.

    Files on the Hub that the folder does not have are deleted if their path matches `deletes`.

    `upload_folder` would not do: where hf_xet is installed it makes several commits of many files. Each try looks at
    the Hub anew, so that a commit whose answer was lost is not made twice.
    """
    for wait_s in (*WAITS_S, None):
        try:
            head = api.repo_info(repo_id, repo_type=kind, revision=revision).sha
            operations = [CommitOperationAdd(name, folder / name) for name in names]
            there = api.list_repo_files(repo_id, repo_type=kind, revision=head)
            there = filter_repo_objects(there, allow_patterns=deletes)
            operations += [CommitOperationDelete(name) for name in there if name not in {*names, ".gitattributes"}]
            message = f"Upload {len(names)} files"
            options = {"repo_type": kind, "revision": revision, "parent_commit": head}
            return api.create_commit(repo_id, operations, commit_message=message, **options)
        except Exception as error:
            if wait_s is None or not _may_pass(error):
                raise
            logger.warning("%s; the next try is in %d s", _in_one_line(error), wait_s)
            time.sleep(wait_s)


def _may_pass(error: Exception) -> bool:
    """Whether the Hub was busy, or its answer did not arrive."""
    if (response := getattr(error, "response", None)) is not None:
        return response.status_code in PASSING
    return not isinstance(error, ValueError | OSError | RuntimeError)  # None is of the connection.


def _in_one_line(error: Exception) -> str:
    """An error's message, and its cause's where huggingface_hub only says that a file failed."""
    cause = error.__cause__ if isinstance(error, RuntimeError) else None
    return " ".join(f"{error} {cause or ''}".split())
