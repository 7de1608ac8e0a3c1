"""Finished folders to the Hub: a run's, or a corpus's."""

import logging
from pathlib import Path

from huggingface_hub import HfApi

logger = logging.getLogger(__name__)


def upload_run(folder: Path, repo_id: str, private: bool = False):
    """Upload a run's folder but for its checkpoints and logs, in one commit.

    Args:
        folder: What `pretrain.py` wrote.
        repo_id: `user/name`; made if it does not exist.
        private: Whether a new repository is private.

    Raises:
        ValueError: If the upload failed; the message says where the model is and how to send it later.
    """
    try:
        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, ignore_patterns=["checkpoints/*", "logs/*"])
    except Exception as error:  # Whatever network or Hub raise must not hide that the model is safe.
        raise ValueError(
            f"the upload to {repo_id} failed: {error}\nThe model is safe in {folder}; "
            f"`hf upload {repo_id} {folder}` sends it once the Hub answers."
        ) from error
    logger.info("Uploaded to %s", commit.repo_url)


def upload_corpus(folder: Path, repo_id: str, private: bool = True):
    """Upload a prepared corpus to a dataset repository, in as many commits as its size needs; a repeated call goes on.

    Args:
        folder: What `prepare_corpus.py` wrote.
        repo_id: `user/name`; made if it does not exist.
        private: Whether a new repository is private.

    Raises:
        ValueError: If the upload failed; the message says where the corpus is and how to send it later.
    """
    try:
        api = HfApi()
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_large_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset", print_report=False)
    except Exception as error:
        raise ValueError(
            f"the upload to {repo_id} failed: {error}\nThe corpus is safe in {folder}; the same command sends it once "
            "the Hub answers."
        ) from error
    logger.info("Uploaded to %s", repo_id)
