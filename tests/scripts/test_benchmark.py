import importlib
import importlib.util
import json
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from exported import exported  # noqa: F401 a fixture

from modeling_pcl.precision import has_fast_bfloat16

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    forget_accelerators()  # Another test's in this process.
    specification = importlib.util.spec_from_file_location("benchmark", SCRIPTS / "benchmark.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield module
    forget_accelerators()


def forget_accelerators():
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def run(benchmark, monkeypatch, tmp_path):
    """Runs a benchmark: from its name and options to what it writes."""

    def run_benchmark(name: str, **options) -> dict:
        words = [f"--{key}={value}" for key, value in options.items()]
        monkeypatch.setattr(sys, "argv", ["benchmark.py", name, *words, f"--output_dir={tmp_path / 'out'}"])
        benchmark.main()
        return json.loads((tmp_path / "out" / "results.json").read_text())

    return run_benchmark


SMALL = {"width": 0.05, "image_size": 32, "pairs": 1}
SMALL_BATCH = {"batch_size": 8, "pose_images": 2, "pose_negatives_per_image": 4}


def test_every_figure_of_data_is_written(run, capsys):
    record = run("data", corpus="orl", **SMALL, **SMALL_BATCH, batches=1, iterations=1, streamed_images=1600)
    results = record["results"]
    assert [row["images"] for row in results["decoding"]] == ["as stored", "JPEG, 1024 px"]
    assert [row["views of each"] for row in results["views"]] == [3, 2, 6]
    for row in results["views"]:
        ratio = row["ours, images/s"] / row["per image, images/s"]
        assert row["times as fast"] == row["least"] == row["most"] == pytest.approx(ratio)  # of a single pair
    (iteration,) = results["iteration"]
    parts = iteration["waits for images, s"] + iteration["makes views, s"]
    assert 0 < parts < iteration["iteration, s"]
    assert iteration["share of both, %"] == pytest.approx(100 * parts / iteration["iteration, s"])
    assert [row["images"] for row in results["memory"]] == list(range(160, 1601, 160))
    assert record["versions"]["torch"]
    assert "From the corpus to a ready batch of views" in capsys.readouterr().out


@pytest.fixture
def colours(tmp_path, faces) -> Path:
    """A corpus of faces in three colours, which are their labels."""
    path = tmp_path / "colours.parquet"
    faces([row % 3 for row in range(60)], label=["red", "green", "blue"] * 20).to_parquet(path)
    return path


@pytest.fixture
def memory_in_this_process(benchmark, monkeypatch):
    """A new process takes ten seconds to start; what it measures is tested once."""
    report = importlib.import_module("benchmarks.report")
    monkeypatch.setattr(
        report, "measure_peak_memory", lambda prepare, *arguments: report._measure_peak_memory(prepare, arguments)
    )


def test_peak_memory_is_what_the_work_holds_above_what_was_held_before(benchmark):
    report = importlib.import_module("benchmarks.report")
    held = report.measure_peak_memory(holding, 2**28)
    assert 250 <= held["extra_mib"] < 300  # to the page
    assert held["total_mib"] > 512 + 100  # what was held before, and Python with torch


def holding(size: int):
    before = torch.ones(size, dtype=torch.uint8)

    def work():
        torch.ones(size, dtype=torch.uint8)
        return before

    return work


@pytest.mark.usefixtures("memory_in_this_process")
def test_loss_is_measured_beside_written_out_negatives_as_far_as_asked(run):
    small, large = run("loss", rows="64,256", dim=64, materialised_up_to=64, pairs=1)["results"]["loss"]
    assert (small["2N"], large["2N"]) == (64, 256)
    assert small["times as fast"] == pytest.approx(small["written out, ms"] / small["ours, ms"])
    assert "written out, ms" not in large
    assert large["ours, ms"] > 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("loss", {"rows": "7"}, "`--rows` must be even numbers of at least 4, got 7"),
        ("embed", {"parts": "probe"}, "The part `probe` needs `--corpus` and `--label_column`"),
        ("data", {"parts": "speed"}, "`--parts` must be some of decoding, views, iteration, memory, got speed"),
        ("probe", {"label_column": "smile"}, "`--label_column` must be one of image, subject, .*, got smile"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(run, tmp_path, name, options, message):
    with pytest.raises(SystemExit, match=message):
        run(name, **options)
    assert not list(tmp_path.iterdir())


def test_an_unknown_benchmark_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("speed")
    assert "invalid choice: 'speed'" in capsys.readouterr().err


@pytest.mark.usefixtures("memory_in_this_process")
def test_a_step_is_measured_beside_its_convolutions_and_a_plain_one(run):
    growth = {"growth_batch_sizes": "4", "growth_image_sizes": "32", "plain_up_to": 4, "parts": "iteration,growth"}
    results = run("step", corpus="orl", **SMALL, **SMALL_BATCH, plain_pairs=1, **growth)["results"]
    *objectives, whole = results["objectives"]
    assert [row["objective"] for row in objectives] == ["disentangling", "face_contrast", "pose_contrast"]
    assert [row["bare decoder, s"] > 0 for row in objectives] == [True, False, False]  # Only one draws.
    for row in objectives:
        bare = row["bare encoder, s"] + row["bare decoder, s"]
        assert row["times the bare"] == pytest.approx(row["ours, s"] / bare)
    assert sum(row["ours, s"] for row in objectives) < whole["ours, s"]
    (beside,) = results["iteration"]
    assert beside["times as fast"] == pytest.approx(beside["plain, s"] / beside["ours, s"])
    (size,) = results["growth"]
    assert (size["batch"], size["px"]) == (4, 32)


def test_bare_convolutions_are_those_of_the_published_network(benchmark):
    step = importlib.import_module("benchmarks.step")
    convolutions = step.record_iteration_convolutions(step.StepBenchmark(), 256, 64)
    layers = {name: len(found) for name, found in convolutions.items()}
    # 16 layers of the encoder and two attentions of 3, its two branches among them; 6 of the decoder.
    assert layers == {"disentangling": 24 + 6, "face_contrast": 24, "pose_contrast": 24}
    by_layer = {each.layer: each for each in convolutions["disentangling"]}
    first, last = by_layer["pcl.trunk.stages.0.conv1"], by_layer["decoder.blocks.5.conv"]
    assert (first.inputs, first.outputs, first.trains_inputs) == ((512, 3, 64, 64), (512, 64, 32, 32), False)
    assert (last.inputs, last.outputs, last.trains_inputs) == ((1024, 128, 64, 64), (1024, 3, 64, 64), True)
    assert convolutions["pose_contrast"][0].inputs[0] == 20 + 1000


@pytest.mark.usefixtures("memory_in_this_process")
def test_embedding_is_measured_beside_every_form_and_another_network(run, exported, colours, monkeypatch):  # noqa: F811
    embed = importlib.import_module("benchmarks.embed")
    for function, name in {"export_onnx": "model.onnx", "quantise_onnx": "model_quantized.onnx"}.items():
        copy = partial(shutil.copy, exported / "onnx" / name)
        monkeypatch.setattr(embed, function, lambda _, path, copy=copy: copy(path))
    sizes = {"model": exported, "image_size": 32, "batch_size": 4, "batches": 2, "pairs": 1, "others": "resnet18"}
    growth = {"growth_batch_sizes": "1,2", "growth_image_sizes": "48"}
    results = run("embed", parts="speed,growth,probe", corpus=colours, **sizes, **growth)["results"]
    names = ["PCL float32, eager", "PCL bf16, one batch at a time", "PCL ONNX float32", "PCL ONNX int8"]
    names += ["resnet18 float32", "resnet18 bf16"]
    if not has_fast_bfloat16("cuda" if torch.cuda.is_available() else "cpu"):
        names = [name.replace("bf16", "float32") for name in names[:-1]]
    assert [row["encoder"] for row in results["speed"]] == names
    for row in results["speed"]:
        ratio = row["ours, images/s"] / row["images/s"]
        assert row["ours is times as fast"] == pytest.approx(ratio)
    assert [(row["batch"], row["px"]) for row in results["growth"]] == [(1, 32), (2, 32), (4, 48)]
    exact, *others = results["probe"]
    assert [row["encoder"] for row in others] == ["PCL bf16", "PCL ONNX float32", "PCL ONNX int8"]
    assert exact["trunk, accuracy"] == 1.0
    assert exact["trunk, relative error"] == 0.0
    assert others[1]["trunk, relative error"] < 1e-5 < others[0]["trunk, relative error"] < 0.02
    assert 1e-4 < others[2]["trunk, relative error"] < 0.2


def test_a_probe_is_measured_beside_one_that_extracts_in_every_epoch(run, colours):
    sizes = {"widths": "0.05", "image_size": 32, "pairs": 1, "epochs": 6, "extracted_epochs": 2}
    results = run("probe", corpus=colours, label_column="label", **sizes)["results"]
    (epochs,), (extraction,) = results["epochs"], results["extraction"]
    assert epochs["times as fast"] == pytest.approx(epochs["extracted in every epoch, s"] / epochs["ours, s"])
    assert extraction["again, s"] > 0


def test_methods_are_timed_in_pairs_by_one_recipe(run):
    (row,) = run("methods", **SMALL, batch_size=16)["results"]["methods"]
    assert row["times the time"] == pytest.approx(row["PCL, s"] / row["SimCLR, s"])  # of a single pair
    assert row["recipe"] == "small"
