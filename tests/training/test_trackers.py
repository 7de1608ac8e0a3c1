"""Trackers by name: what is refused, and that a run's numbers and pictures reach each of them."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from accelerate import Accelerator
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from modeling_pcl.training import trackers
from modeling_pcl.training.trackers import build_tracker_options, check_trackers, log_picture

PICTURE = Image.new("RGB", (24, 16), (200, 30, 30))


def test_none_starts_no_tracker():
    assert check_trackers(["none"]) == []


@pytest.mark.parametrize("names", [["tensorbord"], ["none", "wandb"], ["all"]])
def test_an_unknown_tracker_is_refused_with_those_that_are_known(names):
    with pytest.raises(ValueError, match=r"does not know '(tensorbord|none|all)': it takes .*tensorboard, wandb"):
        check_trackers(names)


def test_a_tracker_that_is_not_installed_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", {"tensorboard": "here"}.get)
    assert check_trackers(["tensorboard"]) == ["tensorboard"]
    with pytest.raises(ValueError, match="--report_to comet_ml` needs its package: pip install comet-ml"):
        check_trackers(["tensorboard", "comet_ml"])


def test_a_resumed_run_keeps_its_names_and_a_new_one_gets_others(tmp_path):
    first = build_tracker_options(tmp_path / "mine", is_new=True)
    assert first["wandb"]["name"] == "mine"
    assert build_tracker_options(tmp_path / "mine", is_new=False) == first
    assert build_tracker_options(tmp_path / "mine", is_new=True)["wandb"]["id"] != first["wandb"]["id"]


def track(name: str, folder: Path):
    """A number and a picture at step 3, through Accelerate."""
    accelerator = Accelerator(cpu=True, log_with=[name], project_dir=folder)
    accelerator.init_trackers("faces", {"steps": 7}, build_tracker_options(folder, is_new=True))
    accelerator.log({"loss": 0.5}, step=3)
    log_picture(accelerator.trackers[0], "reconstructions", PICTURE, step=3)
    accelerator.end_training()


def test_tensorboard_gets_numbers_and_pictures(tmp_path):
    track("tensorboard", tmp_path)
    events = EventAccumulator(str(next(tmp_path.glob("**/events.out.tfevents*")).parent)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 0.5)]
    (picture,) = events.Images("reconstructions")
    assert (picture.step, picture.width, picture.height) == (3, 24, 16)


def test_wandb_gets_numbers_and_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    track("wandb", tmp_path)
    (picture,) = tmp_path.glob("logs/wandb/offline-run-*/files/media/images/reconstructions_3_*.png")
    with Image.open(picture) as tracked:
        assert tracked.size == (24, 16)
    run_id = (tmp_path / "logs" / "run_id").read_text()
    assert list(tmp_path.glob(f"logs/wandb/offline-run-*-{run_id}"))


def test_trackio_gets_numbers_and_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    track("trackio", tmp_path)
    (picture,) = tmp_path.glob("trackio/media/faces/*/3/*.png")
    with Image.open(picture) as tracked:
        assert tracked.size == (24, 16)
    with closing(sqlite3.connect(tmp_path / "trackio" / "faces.db")) as database:
        rows = [json.loads(row) for (row,) in database.execute("SELECT metrics FROM metrics WHERE step = 3")]
    assert {"loss": 0.5} in rows
