import importlib
import json

import pytest
from benchmarks import report

SIZES = {"width": 0.05, "image_size": 32, "batch_size": 8, "pose_images": 4, "pose_negatives_per_image": 2}


def arguments(**changes) -> list[str]:
    return [f"--{name}={value}" for name, value in (SIZES | changes).items()]


@pytest.fixture
def scaling(monkeypatch):
    module = importlib.import_module("benchmarks.scaling")
    monkeypatch.setattr(module, "count_gpus", lambda: 0)
    return module


@pytest.fixture
def timed(scaling, monkeypatch) -> list[tuple[int, list[str]]]:
    """What was started, where every start after the first round is half as fast as in it."""
    started = []

    def start(count: int, plan: list[str], iterations: int) -> dict:
        slowness = 1 + (len(started) >= 2)
        started.append((count, plan))
        return {"images_per_s": {1: 100, 2: 150}[count] / slowness, "memory_mb": 300 / count}

    monkeypatch.setattr(scaling, "start", start)
    return started


def test_ratios_are_of_starts_that_follow_one_another(scaling, timed, tmp_path, capsys):
    scaling.run(arguments(processes="2", pairs=2, output_dir=tmp_path))
    record = json.loads((tmp_path / "results.json").read_text())
    one, two = record["results"]["scaling"]
    assert [count for count, _ in timed] == [1, 2, 1, 2]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert (one["images/s"], two["images/s"]) == (75, 112.5)
    assert (two["to one process"], two["least"], two["most"]) == (1.5, 1.5, 1.5)
    assert two["memory of a process, MB"] == 150
    assert "Iterations of pretrain.py, DDP" in capsys.readouterr().out


@pytest.mark.parametrize(("gpus", "images"), [(0, ["8", "4"]), (2, ["8", "8"])])
def test_the_batch_is_shared_out_where_the_machine_is(scaling, timed, monkeypatch, tmp_path, gpus, images):
    monkeypatch.setattr(scaling, "count_gpus", lambda: gpus)
    scaling.run(arguments(processes="2", pairs=1, output_dir=tmp_path))
    plans = [dict(flag.removeprefix("--").split("=") for flag in plan) for _, plan in timed]
    assert [plan["batch_size"] for plan in plans] == images


def test_processes_are_doubled_up_to_what_the_machine_has(scaling, monkeypatch):
    monkeypatch.setattr(scaling.report, "available_cpus", lambda: 6)
    assert scaling.list_process_counts(None) == [1, 2, 4]
    assert scaling.list_process_counts("3") == [1, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"processes": "0"}, "`--processes` must be at least 1 each, got 0"),
        ({"processes": "3"}, "`--batch_size` must be a multiple of every number of processes, got 8 for 3"),
        ({"processes": "2", "pose_images": 1}, "`--pose_images` must be a multiple"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(scaling, timed, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        scaling.run(arguments(**changes, output_dir=tmp_path))
    assert not timed


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_are_started_and_timed(scaling, tmp_path):
    options = report.parse(scaling.ScalingBenchmark, "scaling", arguments(fsdp=True))
    timed = scaling.start(2, scaling.build_process_flags(options, 2), iterations=1)
    assert timed["images_per_s"] > 0
    assert timed["memory_mb"] > 20  # A process holds at least that for itself, however much it shares.


def test_processes_that_fail_say_why(scaling, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$*" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(scaling.sys, "executable", str(python))
    with pytest.raises(
        ValueError, match=r"1 processes did not come to an end:\n.*benchmarks.scaling 1 --corpus=/nowhere"
    ):
        scaling.start(1, ["--corpus=/nowhere"], iterations=1)
