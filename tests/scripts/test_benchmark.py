import importlib.util
import json
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState
from PIL import Image

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


def test_every_figure_of_data_is_written_and_drawn(benchmark, monkeypatch, tmp_path, capsys):
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
    assert Image.open(tmp_path / "out" / "results.png").width > 1000
    assert "From the corpus to a ready batch of views" in capsys.readouterr().out


def test_an_unknown_part_is_refused(benchmark, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="`--parts` must be some of decoding, views, iteration, memory, got speed"):
        run(benchmark, monkeypatch, "data", "--parts", "speed", "--output_dir", tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_benchmark_is_refused(benchmark, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(benchmark, monkeypatch, "speed")
    assert "invalid choice: 'speed'" in capsys.readouterr().err
