"""Finished folders to the Hub: a repository, a run's, or a corpus's."""

import logging
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi

logger = logging.getLogger(__name__)


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
    return _upload(api, folder, repo_id, "model", private, way_out, revision=revision, delete_patterns="*")


def upload_run(folder: Path, repo_id: str, private: bool = False):
    """Upload a run's folder but for its checkpoints and logs, in one commit.

    Args:
        folder: What `pretrain.py` wrote.
        repo_id: `user/name`; made if it does not exist.
        private: Whether a new repository is private.

    Raises:
        ValueError: If the upload failed; the message says where the model is and how to send it later.
    """
    way_out = f"The model is safe in {folder}; `python scripts/push_to_hub.py {folder} {repo_id}` sends it."
    left_out = ["checkpoints/*", "logs/*", "repository/*"]
    _upload(HfApi(), folder, repo_id, "model", private, way_out, ignore_patterns=left_out)


def upload_corpus(folder: Path, repo_id: str, private: bool = True):
    """Upload a prepared corpus to a dataset repository; files that are there already are not sent again.

    Args:
        folder: What `prepare_corpus.py` wrote.
        repo_id: `user/name`; made if it does not exist.
        private: Whether a new repository is private.

    Raises:
        ValueError: If the upload failed; the message says where the corpus is and how to send it later.
    """
    way_out = f"The corpus is safe in {folder}; the same command sends it once the Hub answers."
    _upload(HfApi(), folder, repo_id, "dataset", private, way_out)


def _upload(
    api: HfApi,
    folder: Path,
    repo_id: str,
    kind: str,
    private: bool,
    way_out: str,
    revision: str | None = None,
    **patterns: list[str] | str,
) -> CommitInfo:
    try:
        api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, repo_type=kind, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type=kind, revision=revision, **patterns)
    except Exception as error:  # Whatever network or Hub raise must not hide that the work is safe.
        raise ValueError(f"the upload to {repo_id} failed: {error}\n{way_out}") from error
    logger.info("Uploaded to %s", commit.repo_url)
    return commit
