"""Upload of finished folders to the Hub, a model repository or a corpus, each in a single commit."""

import logging
import mmap
import time
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.utils import filter_repo_objects

logger = logging.getLogger(__name__)

WAITS_S = (1, 2, 4)  # Before each retry. huggingface_hub retries uploads of large files, but not the commit request.
TRANSIENT = (408, 429, 500, 502, 503, 504)  # HTTP statuses after which another try may succeed.
NEVER_SENT = (".git/*", "*/.git/*", ".cache/*", "*/.cache/*")


def upload_repository(
    api: HfApi, folder: Path, repo_id: str, private: bool = False, revision: str | None = None
) -> CommitInfo:
    """Make the files of a model repository equal to those of a folder, in one commit.

    If they are equal already, no commit is made.

    Args:
        api: API client with the endpoint and the token.
        folder: The folder. Files on the Hub that it does not have are deleted, except `.gitattributes`.
        repo_id: `user/name`; created if it does not exist.
        private: Whether a new repository is private.
        revision: Branch, created if it does not exist; None means `main`.

    Raises:
        ValueError: If the upload failed. The repository is then unchanged.
    """
    advice = f"The repository is as it was; the folder is complete in {folder}, and the same command sends it."
    return _upload(api, folder, repo_id, "model", private, advice, revision, deletes="*")


def upload_corpus(folder: Path, repo_id: str, private: bool = True):
    """Upload a prepared corpus to a dataset repository, in one commit. Files that are there already are not sent again.

    Parquet files on the Hub that the folder does not have are deleted, because `datasets` would read their rows too.

    Args:
        folder: Folder that `pcl prepare` wrote.
        repo_id: `user/name`; created if it does not exist.
        private: Whether a new repository is private.

    Raises:
        ValueError: If the upload failed. The message says where the corpus is and how to send it later.
    """
    advice = f"The corpus is safe in {folder}; the same command sends it once the Hub answers."
    _upload(HfApi(), folder, repo_id, "dataset", private, advice, deletes="*.parquet")


def _upload(
    api: HfApi,
    folder: Path,
    repo_id: str,
    kind: str,
    private: bool,
    advice: str,
    revision: str | None = None,
    *,
    deletes: str,
) -> CommitInfo:
    try:
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        names = list(filter_repo_objects(names, ignore_patterns=list(NEVER_SENT)))
        _check_without_token(folder, names, api.token or get_token())
        is_new = not api.repo_exists(repo_id, repo_type=kind)
        _create_repository(api, repo_id, kind, private, revision)
        try:
            commit = _commit(api, folder, names, repo_id, kind, revision, deletes)
        except Exception:
            if is_new:
                _delete_if_empty(api, repo_id, kind)
            raise
    except Exception as error:  # Whatever went wrong, the user must learn that the work is safe.
        raise ValueError(f"the upload to {repo_id} failed: {_format_error(error)}\n{advice}") from error
    logger.info("Uploaded to %s", commit.repo_url)
    return commit


def _check_without_token(folder: Path, names: Sequence[str], token: str | bool | None):
    """Raise `ValueError` if a file contains the token that is used for the upload."""
    for name in names:
        with open(folder / name, "rb") as file:
            if isinstance(token, str) and (folder / name).stat().st_size:  # mmap cannot map empty files.
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    if content.find(token.encode()) >= 0:
                        raise ValueError(f"`{name}` holds your token: remove it, and create a new one.")


def _create_repository(api: HfApi, repo_id: str, kind: str, private: bool, revision: str | None):
    """Create the repository and the branch if they do not exist."""
    api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
    if private and not api.repo_info(repo_id, repo_type=kind).private:
        raise ValueError("it exists and is public, not private as asked for; its settings on the Hub change that.")
    if revision is not None:
        api.create_branch(repo_id, branch=revision, repo_type=kind, exist_ok=True)


def _delete_if_empty(api: HfApi, repo_id: str, kind: str):
    """Delete a repository that was created for a commit that then failed, unless it has files."""
    try:
        if set(api.list_repo_files(repo_id, repo_type=kind)) <= {".gitattributes"}:
            api.delete_repo(repo_id, repo_type=kind)
    except Exception as error:  # The caller must see the error of the commit instead.
        logger.warning("%s was created, is empty, and could not be deleted: %s", repo_id, _format_error(error))


def _commit(
    api: HfApi, folder: Path, names: Sequence[str], repo_id: str, kind: str, revision: str | None, deletes: str
) -> CommitInfo:
    """Commit all differences at once, and retry after transient errors.

    Files on the Hub that the folder does not have are deleted if their path matches `deletes`.
    """
    # Not `upload_folder`: where hf_xet is installed, it splits many files into several commits. Each try compares with
    # the Hub again, so that a commit whose answer was lost is not made twice.
    for wait_s in (*WAITS_S, None):
        try:
            head = api.repo_info(repo_id, repo_type=kind, revision=revision).sha
            operations = [CommitOperationAdd(name, folder / name) for name in names]
            remote_names = api.list_repo_files(repo_id, repo_type=kind, revision=head)
            deletable = filter_repo_objects(remote_names, allow_patterns=deletes)
            operations += [CommitOperationDelete(name) for name in deletable if name not in {*names, ".gitattributes"}]
            message = f"Upload {len(names)} files"
            # With `parent_commit` the Hub refuses the commit if somebody else has pushed in the meantime.
            options = {"repo_type": kind, "revision": revision, "parent_commit": head}
            return api.create_commit(repo_id, operations, commit_message=message, **options)
        except Exception as error:
            if wait_s is None or not _is_transient(error):
                raise
            logger.warning("%s; the next try is in %d s", _format_error(error), wait_s)
            time.sleep(wait_s)


def _is_transient(error: Exception) -> bool:
    """Return whether an error means that the Hub was busy, or that its answer did not arrive."""
    if (response := getattr(error, "response", None)) is not None:
        return response.status_code in TRANSIENT
    return not isinstance(error, ValueError | OSError | RuntimeError)  # Errors of the connection are none of these.


def _format_error(error: Exception) -> str:
    """Return the message of an error in one line, with the cause if huggingface_hub only says that a file failed."""
    cause = error.__cause__ if isinstance(error, RuntimeError) else None
    return " ".join(f"{error} {cause or ''}".split())
