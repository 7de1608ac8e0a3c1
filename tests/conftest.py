"""Set-up of all tests: no network, no caches of this machine, one thread, the same seed everywhere."""

import atexit
import gc
import os
import shutil
import tempfile

gc.disable()  # Until all tests are collected: a fifth of the time of imports. It is on again in the tests.

# Hugging Face's libraries read these once, when they are imported. `HF_HUB_OFFLINE=0 pytest -m network` goes online.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="pcl_tests_")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

# Small models gain nothing from threads, and threads that share busy cores spin: ten times the time was seen.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging  # noqa: E402

import pytest  # noqa: E402
import transformers_source  # noqa: E402

# What takes seconds to import is imported by the fixtures: the process that only gives out the tests needs none of it.


def pytest_configure(config: pytest.Config):
    for name in transformers_source.MARKERS:
        config.addinivalue_line("markers", f"{name}: of transformers' common tests")


def pytest_collection_finish():
    # Every full collection would look at all that was imported, which took a fifteenth of the tests' time.
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]):
    import torch

    # The longest files begin first, so that no process ends with one of them while the others wait.
    long_files = {item.path for item in items if "chromium" in item.fixturenames}
    items.sort(key=lambda item: item.path not in long_files)
    offline = pytest.mark.skip(reason="offline; set HF_HUB_OFFLINE=0 to run it")
    without_gpu = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "network" in item.keywords and os.environ["HF_HUB_OFFLINE"] != "0":
            item.add_marker(offline)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(without_gpu)


@pytest.fixture(autouse=True)
def _seed():
    import torch

    torch.manual_seed(0)


@pytest.fixture
def tiny_config():
    """The config of a model that runs in milliseconds."""
    import tiny

    return tiny.config()


@pytest.fixture
def transformers_log(caplog: pytest.LogCaptureFixture):
    """caplog with what transformers logs, which it keeps from the root logger."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING, logger="transformers"):
        yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def hub(monkeypatch):
    """A Hub on this machine that uploads go to, with the token of one who may write."""
    from local_hub import LocalHub

    from modeling_pcl.hub import upload

    with LocalHub() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        # Made from the endpoint when huggingface_hub was imported.
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", server.token)
        monkeypatch.setattr(upload, "WAITS_S", (0, 0, 0))
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # It keeps the endpoint that it was made with.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield server
