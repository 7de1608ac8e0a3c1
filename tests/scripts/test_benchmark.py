import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

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


def run(benchmark, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, arguments)])
    benchmark.main()


def test_every_figure_of_data_is_written(benchmark, monkeypatch, tmp_path, capsys):
    sizes = {"batch_size": 8, "pose_images": 2, "pose_negatives_per_image": 4, "image_size": 32, "width": 0.05}
    amounts = {"batches": 1, "pairs": 1, "iterations": 1, "streamed_images": 1600}
    options = [f"--{name}={value}" for name, value in (sizes | amounts).items()]
    run(benchmark, monkeypatch, "data", "--corpus", "orl", *options, "--output_dir", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "results.json").read_text())
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


SMALL = {"width": 0.05, "image_size": 32, "pairs": 1}


def results_of(benchmark, monkeypatch, folder, name, **options) -> dict:
    """What a benchmark writes."""
    run(benchmark, monkeypatch, name, *(f"--{key}={value}" for key, value in options.items()), "--output_dir", folder)
    return json.loads((folder / "results.json").read_text())["results"]


@pytest.fixture
def memory_in_this_process(benchmark, monkeypatch):
    """A new process takes ten seconds to start; what it measures is tested once."""
    report = importlib.import_module("benchmarks.report")
    monkeypatch.setattr(report, "peak_memory", lambda prepare, *arguments: report._peak_memory(prepare, arguments))


def test_peak_memory_is_what_the_work_holds_above_what_was_held_before(benchmark):
    report = importlib.import_module("benchmarks.report")
    held = report.peak_memory(holding, 2**28)
    assert 250 <= held["extra_mib"] < 300  # to the page
    assert held["total_mib"] > 512 + 100  # what was held before, and Python with torch


def holding(size: int):
    before = torch.ones(size, dtype=torch.uint8)

    def work():
        torch.ones(size, dtype=torch.uint8)
        return before

    return work


@pytest.mark.usefixtures("memory_in_this_process")
def test_loss_is_measured_beside_written_out_negatives_as_far_as_asked(benchmark, monkeypatch, tmp_path):
    sizes = {"rows": "64,256", "dim": 64, "materialised_up_to": 64, "pairs": 1}
    small, large = results_of(benchmark, monkeypatch, tmp_path, "loss", **sizes)["loss"]
    assert (small["2N"], large["2N"]) == (64, 256)
    assert small["times as fast"] == pytest.approx(small["written out, ms"] / small["ours, ms"])
    assert "written out, ms" not in large
    assert large["ours, ms"] > 0


def test_an_odd_number_of_embeddings_is_refused(benchmark, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="`--rows` must be even numbers of at least 4, got 7"):
        run(benchmark, monkeypatch, "loss", "--rows", "7", "--output_dir", tmp_path)


@pytest.mark.usefixtures("memory_in_this_process")
def test_a_step_is_measured_beside_its_convolutions_and_a_plain_one(benchmark, monkeypatch, tmp_path):
    sizes = SMALL | {"batch_size": 8, "pose_images": 2, "pose_negatives_per_image": 4, "plain_pairs": 1}
    growth = {"growth_batch_sizes": "4", "growth_image_sizes": "32", "plain_up_to": 4, "parts": "iteration,growth"}
    results = results_of(benchmark, monkeypatch, tmp_path, "step", corpus="orl", **sizes, **growth)
    *objectives, whole = results["objectives"]
    assert [row["objective"] for row in objectives] == ["disentangling", "face_contrast", "pose_contrast"]
    assert [row["bare decoder, s"] > 1e-4 for row in objectives] == [True, False, False]  # What no work takes.
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
    convolutions = step.iteration_convolutions(step.StepBenchmark(), 256, 64)
    layers = {name: len(found) for name, found in convolutions.items()}
    # 16 layers of the encoder and two attentions of 3, its two branches among them; 6 of the decoder.
    assert layers == {"disentangling": 24 + 6, "face_contrast": 24, "pose_contrast": 24}
    by_layer = {each.layer: each for each in convolutions["disentangling"]}
    first, last = by_layer["pcl.trunk.stages.0.conv1"], by_layer["decoder.blocks.5.conv"]
    assert (first.inputs, first.outputs, first.trains_inputs) == ((512, 3, 64, 64), (512, 64, 32, 32), False)
    assert (last.inputs, last.outputs, last.trains_inputs) == ((1024, 128, 64, 64), (1024, 3, 64, 64), True)
    assert convolutions["pose_contrast"][0].inputs[0] == 20 + 1000


@pytest.mark.usefixtures("memory_in_this_process")
def test_embedding_is_measured_beside_every_form_of_the_encoder_and_another_network(
    benchmark, monkeypatch, tmp_path, model, faces
):
    corpus = faces([row % 3 for row in range(60)], label=["red", "green", "blue"] * 20)
    corpus.to_parquet(tmp_path / "colours.parquet")
    sizes = {"model": model, "image_size": 32, "batch_size": 4, "batches": 2, "pairs": 1, "others": "resnet18"}
    growth = {"growth_batch_sizes": "1,2", "growth_image_sizes": "48", "corpus": tmp_path / "colours.parquet"}
    results = results_of(
        benchmark, monkeypatch, tmp_path / "out", "embed", parts="speed,growth,probe", **sizes, **growth
    )
    names = ["PCL float32, eager", "PCL bf16, one batch at a time", "PCL ONNX float32", "PCL ONNX int8"]
    assert [row["encoder"] for row in results["speed"]] == [*names, "resnet18 float32", "resnet18 bf16"]
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


def test_the_part_probe_of_embed_needs_a_corpus(benchmark, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="The part `probe` needs `--corpus` and `--label_column`"):
        run(benchmark, monkeypatch, "embed", "--parts", "probe", "--output_dir", tmp_path)


def test_a_probe_is_measured_beside_one_that_extracts_in_every_epoch(benchmark, monkeypatch, tmp_path, faces):
    faces([row % 3 for row in range(60)], label=["red", "green", "blue"] * 20).to_parquet(tmp_path / "c.parquet")
    sizes = {"widths": "0.05", "image_size": 32, "pairs": 1, "epochs": 6, "extracted_epochs": 2}
    corpus = {"corpus": tmp_path / "c.parquet", "label_column": "label"}
    results = results_of(benchmark, monkeypatch, tmp_path / "out", "probe", **sizes, **corpus)
    (epochs,), (extraction,) = results["epochs"], results["extraction"]
    assert epochs["times as fast"] == pytest.approx(epochs["extracted in every epoch, s"] / epochs["ours, s"])
    assert extraction["again, s"] > 0


def test_an_unknown_part_is_refused(benchmark, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="`--parts` must be some of decoding, views, iteration, memory, got speed"):
        run(benchmark, monkeypatch, "data", "--parts", "speed", "--output_dir", tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_benchmark_is_refused(benchmark, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(benchmark, monkeypatch, "speed")
    assert "invalid choice: 'speed'" in capsys.readouterr().err


def test_methods_are_timed_in_pairs_by_one_recipe(benchmark, monkeypatch, tmp_path):
    sizes = SMALL | {"batch_size": 16}
    options = [f"--{name}={value}" for name, value in sizes.items()]
    run(benchmark, monkeypatch, "methods", *options, "--output_dir", tmp_path / "out")
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())["results"]["methods"]
    assert row["times the time"] == pytest.approx(row["PCL, s"] / row["SimCLR, s"])  # of a single pair
    assert row["recipe"] == "small"
