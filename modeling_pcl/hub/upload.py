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
    way_out = f"The model is safe in {folder}; `hf upload {repo_id} {folder}` sends it once the Hub answers."
    _upload(folder, repo_id, "model", private, ["checkpoints/*", "logs/*"], way_out)


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
    _upload(folder, repo_id, "dataset", private, None, way_out)


def _upload(folder: Path, repo_id: str, kind: str, private: bool, left_out: list[str] | None, way_out: str):
    try:
        api = HfApi()
        api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type=kind, ignore_patterns=left_out)
    except Exception as error:  # Whatever network or Hub raise must not hide that the work is safe.
        raise ValueError(f"the upload to {repo_id} failed: {error}\n{way_out}") from error
    logger.info("Uploaded to %s", commit.repo_url)
