"""A finished run's folder to the Hub."""

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
