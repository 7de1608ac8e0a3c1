import csv
import json
import shutil
import signal
import time

import numpy as np
import psutil
import pytest
import tiny
from datasets import Dataset
from PIL import Image
from refusals import refused

from modeling_pcl.probes import recipe_search
from modeling_pcl.probes.quick_scores import COLUMNS

COMMON = (
    "--config {config} --batch_size 8 --report_to none --picture_steps 0 --pose_images 2 --pose_negatives_per_image 4 "
    "--num_workers 0"
)


@pytest.fixture
def inputs(tmp_path) -> dict[str, str]:
    """Corpora, all of the same smooth images, and a small config."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(24):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((40, 40), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    images = [{"bytes": path.read_bytes(), "path": None} for path in sorted(folder.iterdir())]
    numbers = np.arange(24) % 4
    columns = {"label": numbers, "identity": numbers, "yaw": numbers * 3.0, "pitch": numbers * 2.0}
    columns |= {"roll": numbers * 1.0, "smile": numbers // 2, "age": numbers * 9.0, "gender": numbers // 2}
    rows = {"image": images} | {name: values.tolist() for name, values in columns.items()}
    Dataset.from_dict(rows).to_parquet(tmp_path / "labelled.parquet")
    tiny.config().to_json_file(tmp_path / "config.json")
    return {name: str(tmp_path / "labelled.parquet") for name in COLUMNS} | {"sides": "32"}


@pytest.fixture
def search(call, inputs, tmp_path):
    common = COMMON.format(config=tmp_path / "config.json") + " --steps 2 --save_steps 1"

    def run(*lines: str):
        (tmp_path / "variants.txt").write_text("\n".join([f"all: {common}", *lines]))
        options = inputs | {"corpus": tmp_path / "faces", "variants": tmp_path / "variants.txt"}
        options |= {"runs_dir": tmp_path / "runs", "output": tmp_path / "table.csv", "jobs": 2}
        call("search", "run", *(text for name, value in options.items() for text in (f"--{name}", value)))

    return run


def table(path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_variants_are_trained_and_scored_once_and_one_that_fails_is_named(search, tmp_path, capsys):
    lines = ["# seeds", "one: --face_temperature 0.2 --seed 3  # another seed", "random-1: random:1:0.05"]
    with refused("1 of 3 variants failed: bad"):
        search(*lines, "bad: --face_temperature -1")
    rows = table(tmp_path / "table.csv")
    assert [row["feature"] for row in rows if row["name"] == "one"] == ["trunk", "face", "pose", "face+pose"]
    (one,) = (row for row in rows if row["name"] == "one" and row["feature"] == "trunk")
    assert one["options"] == "--face_temperature 0.2 --seed 3"
    assert (one["seed"], one["steps"], one["images_seen"], one["side"]) == ("3", "2", "16", "32")
    assert 0 <= float(one["expression_accuracy"]) <= 1
    (untrained,) = (row for row in rows if row["name"] == "random-1" and row["feature"] == "trunk")
    assert (untrained["seed"], untrained["images_seen"]) == ("1", "0")
    assert not (tmp_path / "runs/bad/run.json").exists()

    (tmp_path / "table.csv").rename(tmp_path / "kept.csv")
    with refused("1 of 1 variants failed: one"):  # Another one, in the folder of the first.
        search("one: --face_temperature 0.3 --seed 3")
    assert "`--face_temperature` was 0.2, is 0.3" in capsys.readouterr().out
    (tmp_path / "kept.csv").rename(tmp_path / "table.csv")

    shutil.rmtree(tmp_path / "runs")
    search(*lines)
    search("one: --seed 3 --face_temperature 0.2", "random-1: random:1:0.05")  # The same in another order.
    assert table(tmp_path / "table.csv") == rows
    assert not (tmp_path / "runs").exists()

    for other in ("one: --face_temperature 0.3", "random-1: random:1:0.1"):
        with refused(r"table.csv has .* with other options"):
            search(other)


def test_what_trains_ends_with_the_search(search, tmp_path, monkeypatch):
    def stop_later(jobs):
        wait_for(lambda: list(tmp_path.glob("runs/*/begun")))
        trainers.extend(set(psutil.Process().children()) - earlier)
        raise KeyboardInterrupt

    trainers, earlier = [], set(psutil.Process().children())
    long = "import pathlib, sys, time; run = pathlib.Path(sys.argv[4]); (run / 'begun').touch(); time.sleep(30)"
    monkeypatch.setattr(recipe_search, "PRETRAIN", f"{long}; (run / 'ended').touch()")
    monkeypatch.setattr(recipe_search, "as_completed", stop_later)
    with refused("stopped; the same command goes on", status=128 + signal.SIGINT):
        search("one: --seed 1", "two: --seed 2", "three: --seed 3")
    assert 1 <= len(trainers) <= 2
    assert not list(tmp_path.glob("runs/three")) + list(tmp_path.glob("runs/*/ended"))
    _, alive = psutil.wait_procs(trainers, timeout=30)
    assert not alive


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_file_without_variants_is_refused(search):
    with refused("variants.txt must hold at least one variant"):
        search("# nothing yet")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "random:0"], "must be `random:SEED:WIDTH`, .* got `random:0`"),
        (["score", "random:a:1"], "must be `random:SEED:WIDTH`, .* got `random:a:1`"),
        (["score", "random:0:1", "--sides", "8"], r"`--sides` must be at least 32 px each, got \[8\]"),
        (["score", "random:0:1", "--features", "nose"], "`--features` must be some of trunk, .*'nose'"),
        (["follow", ".", "--every_min", "-1"], "`--every_min` must be at least 0, got -1"),
        (["run", "--jobs", "0"], "`--jobs` must be at least 1, got 0"),
        (["run", "--variants", "quote.txt"], "quote.txt, line 2: No closing quotation"),
        (["run", "--variants", "bytes"], "The file of variants `bytes` does not open: 'utf-8' codec"),
        (["table", "bytes"], "The table `bytes` does not open: 'utf-8' codec"),
        (["table", "text.csv"], "A score of x at 64 px is not a number: .*'high'"),
        (["table", "none.csv"], "none.csv must be a table that `pcl search run` wrote"),
        (["table", "long.csv"], "The table `long.csv` does not open: a row has more entries"),
        (["table", "side.csv"], "side.csv must be a table that `pcl search run` wrote"),
        (["score", "random:0:0.05", "--output", "text.csv"], "text.csv lacks the column model: name another file"),
        (["follow", ".", "--output", "text.csv", "--once"], "text.csv lacks the column step: name another file"),
        (["run", "--output", "other.csv", "--variants", "one.txt"], "other.csv lacks the column name or options"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_computed(call, inputs, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quote.txt").write_text("one: --seed 1\ntwo: --corpus 'half\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "text.csv").write_text("name,side,feature,yaw_r2\nx,64,trunk,high\n")
    (tmp_path / "long.csv").write_text("name,side,feature,yaw_r2\nx,64,trunk,0.1,0.2\n")
    (tmp_path / "side.csv").write_text("name,side,feature,yaw_r2\nx,small,trunk,0.1\n")
    (tmp_path / "other.csv").write_text("model,side,feature,yaw_r2\nx,64,trunk,0.1\n")
    (tmp_path / "one.txt").write_text("one: --seed 1")
    corpora = [f"--{name}={path}" for name, path in inputs.items() if words[0] == "score" and name in COLUMNS]
    monkeypatch.setattr(recipe_search, "compute_quick_scores", lambda *_: pytest.fail("computed"))
    with refused(message):
        call("search", *words, *corpora)


@pytest.mark.parametrize("line", ["--steps 3", "twice: --steps 3\ntwice: --steps 4", "../out: --steps 3"])
def test_lines_that_are_no_variants_are_refused_by_number(search, line):
    with refused("must be `name: options` with a new name"):
        search("first: --seed 1", line)


def test_a_line_that_begins_with_no_earlier_name_is_refused(search):
    with refused("line 2: there is no earlier line named 'later'"):
        search("first: later --seed 1", "later: --seed 2")


@pytest.mark.slow
def test_a_run_is_followed_checkpoint_by_checkpoint_with_a_picture(call, inputs, tmp_path):
    words = COMMON.format(config=tmp_path / "config.json").split()
    folders = ("--corpus", tmp_path / "faces", "--output_dir", tmp_path / "runs/run")
    call("pretrain", *words, *folders, "--steps", 2, "--save_steps", 1)
    folder, output = tmp_path / "runs/run", tmp_path / "curve/scores.csv"
    options = [text for name, value in inputs.items() for text in (f"--{name}", value)]
    for _ in range(2):  # The second look finds nothing new.
        call("search", "follow", folder, "--once", "--output", output, *options)
    rows = table(output)
    assert {(row["step"], row["images_seen"]) for row in rows} == {("2", "16")}
    assert len(rows) == 4
    with Image.open(output.with_suffix(".png")) as picture:
        assert picture.width > 1000
    assert json.loads((folder / "run.json").read_text())["images_seen"] == 16


def test_models_are_scored_by_name(call, inputs, tmp_path, capsys):
    options = [text for name, value in inputs.items() for text in (f"--{name}", value)]
    call("search", "score", "random:0:0.05", "--output", tmp_path / "scores.csv", *options)
    assert json.loads(capsys.readouterr().out)["model"] == "random:0:0.05"
    earlier = table(tmp_path / "scores.csv")
    assert len(earlier) == 4
    # Columns of an earlier version stay.
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    (tmp_path / "scores.csv").write_text("\n".join([f"{lines[0]},note", *(f"{line},old" for line in lines[1:])]))
    call("search", "score", "random:1:0.05", "--output", tmp_path / "scores.csv", *options, "--features", "face")
    rows = table(tmp_path / "scores.csv")
    assert [row["note"] for row in rows] == ["old"] * 4 + [""]
    assert rows[4]["feature"] == "face"
