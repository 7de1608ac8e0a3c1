import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from modeling_pcl import PCLModel
from modeling_pcl.probes import comparison

TASK_OF_ANOTHER_MACHINE = {"task": "expression", "options": {"task": "expression", "train": "/gone/faces.parquet"}}


@pytest.fixture(scope="module")
def people(faces, tmp_path_factory) -> Path:
    """48 images of 12 people, each with a colour of one's own."""
    colours = np.random.default_rng(1).integers(30, 226, (12, 3)).repeat(4, axis=0)
    path = tmp_path_factory.mktemp("corpora") / "people.parquet"
    faces(colours, subject=[f"p{row // 4}" for row in range(48)]).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def models(model, tmp_path_factory) -> dict[str, Path]:
    """Three models of one architecture, and one whose stages are wider and whose features are not."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(model, folder / "first")
    sizes = {"second": {}, "third": {}, "wide": {"hidden_sizes": [8, 10, 12, 14]}}
    for seed, (name, changes) in enumerate(sizes.items(), 10):
        torch.manual_seed(seed)
        PCLModel(tiny.config(**changes)).save_pretrained(folder / name)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def options(people, tmp_path) -> list:
    """Of a verification probe."""
    cache = ("--cache_dir", tmp_path / "features", "--image_size", 32)
    return ["--task", "verification", "--test", people, "--pairs", 24, "--folds", 2, "--features", "trunk", *cache]


@pytest.fixture
def compare(call, models, options, tmp_path):
    """Compare models, of which the first was probed, into `out`."""

    def run(*names: str, extra: tuple = (), random_seeds: int = 1, probe: list | None = None):
        chosen = [models.get(name, name) for name in names]
        if probe is None or probe:
            call("probe", chosen[0], "--output_dir", tmp_path / "out" / "probed", *(probe or options))
        folder = ("--output_dir", tmp_path / "out", "--random_seeds", random_seeds)
        call("compare", *chosen, *folder, *extra)

    return run


@pytest.fixture
def probed(monkeypatch) -> list[str]:
    """The models that a comparison measures, from here on."""
    measured, run_probe = [], comparison.run_probe

    def counted(arguments) -> str:
        measured.append(Path(arguments.model).name)
        return run_probe(arguments)

    monkeypatch.setattr(comparison, "run_probe", counted)
    return measured


def rows(markdown: str) -> list[list[str]]:
    """The cells of a table, its heading first."""
    lines = [line.strip("|").split("|") for line in markdown.splitlines() if not line.startswith("|-")]
    return [[cell.strip() for cell in line] for line in lines]


def test_models_stand_beside_random_initialisations_and_the_best_is_bold(compare, tmp_path, capsys):
    out = tmp_path / "out"
    compare("first", "second", extra=("--names", "ours", "theirs"), random_seeds=2)
    markdown = (out / "comparison.md").read_text()
    assert markdown.strip() in capsys.readouterr().out
    heading, accuracy, auc = rows(markdown)
    assert heading == ["measure", "feature", "random initialisation", "ours", "theirs"]
    names = [["verification: accuracy ↑", "trunk"], ["verification: auc ↑", "trunk"]]
    assert [line[:2] for line in (accuracy, auc)] == names
    record = json.loads((out / "comparison.json").read_text())
    for line, measure in ((accuracy, "accuracy"), (auc, "auc")):
        measured = record["measures"][f"verification: {measure}"]
        means = {name: measured[name]["trunk"]["mean"] for name in heading[2:]}
        for name, cell in zip(heading[2:], line[2:]):
            assert f"{means[name]:.3f}" in cell
            assert cell.startswith("**") == (means[name] == max(means.values()))
    runs = [json.loads(path.read_text()) for path in out.glob("verification/random*/results.json")]
    seeds = [run["results"]["trunk"]["cosine"]["auc"]["mean"] for run in runs]
    assert len(set(seeds)) == 2
    random = record["measures"]["verification: auc"]["random initialisation"]["trunk"]
    assert random == {"mean": pytest.approx(np.mean(seeds)), "spread": pytest.approx(np.std(seeds, ddof=1))}
    with Image.open(out / "comparison.png") as picture:
        assert len(picture.convert("L").getcolors()) > 20


def test_what_is_measured_already_is_not_measured_again(compare, models, tmp_path, probed, options):
    copy = tmp_path / "second"
    shutil.copytree(models["second"], copy)
    compare("first", str(copy))
    assert [name.split("-")[0] for name in probed] == ["random", "second"]
    table = (tmp_path / "out" / "comparison.md").read_text()
    probed.clear()
    compare("first", str(copy), probe=[])
    assert probed == []
    assert (tmp_path / "out" / "comparison.md").read_text() == table
    torch.manual_seed(5)
    PCLModel(tiny.config()).save_pretrained(copy)  # Other weights under the same name.
    compare("first", str(copy), probe=[])
    assert probed == ["second"]
    probed.clear()
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"mirror_invariant_face": True}))  # Other face features.
    compare("first", str(copy), probe=[])
    assert "second" in probed


def test_tasks_whose_corpora_are_not_here_are_left_out(compare, models, options, tmp_path, capsys, caplog, refused):
    gone = json.loads(json.dumps(TASK_OF_ANOTHER_MACHINE)) | {"model_revision": "sha256:0"}
    (tmp_path / "out" / "shipped").mkdir(parents=True)
    (tmp_path / "out" / "shipped" / "results.json").write_text(json.dumps(gone))
    compare("first", "second")
    assert "expression is left out" in caplog.text
    assert "expression" not in capsys.readouterr().out
    said = refused("compare", models["first"], "--output_dir", tmp_path / "out", "--tasks", "expression")
    assert "/gone/faces.parquet" in said
    said = refused("compare", models["first"], "--output_dir", tmp_path / "out", "--tasks", "smile")
    assert "must be some of" in said


def test_two_architectures_have_two_random_initialisations(compare, tmp_path, probed):
    compare("first", "wide")
    heading, *_ = rows((tmp_path / "out" / "comparison.md").read_text())
    assert heading[2:] == ["random, as large as first", "random, as large as wide", "first", "wide"]
    sizes = [PCLModel.from_pretrained(path).config.hidden_sizes for path in (tmp_path / "out" / "models").iterdir()]
    assert sorted(sizes) == [[4, 6, 10, 12], [8, 10, 12, 14]]
    assert len(probed) == 3  # The first was probed before.


def test_several_tasks_of_one_kind_have_names_of_their_own():
    options = [
        {"task": "expression", "train": "a"},
        {"task": "expression", "train": "b"},
        {"task": "expression", "train": "c", "label_column": "smile"},
        {"task": "expression", "train": "a"},
    ]
    tasks = comparison.name_tasks([{"options": each} for each in options])
    assert tasks == dict(zip(("expression", "expression (2)", "expression smile"), options))


def test_options_that_a_task_had_in_an_earlier_version_are_left_out():
    options = {"task": "verification", "test": "lfw", "dim": 128, "model": "runs/one", "folds": 10}
    selected = comparison.select_task_options({"options": options})
    assert selected == {"task": "verification", "test": "lfw", "folds": 10}


class TestWhatCannotBeComparedSaysWhy:
    @pytest.fixture
    def message(self, refused, models, tmp_path):
        def compare(*options, names=("first", "second")) -> str:
            chosen = (models.get(name, name) for name in names)
            return refused("compare", *chosen, "--output_dir", tmp_path / "out", *options)

        return compare

    def test_models_that_nobody_probed(self, message):
        assert "No model was probed yet: run `pcl probe" in message()

    def test_names_that_are_not_different_or_not_enough(self, message, models):
        assert "`--names` must be 2 different names" in message("--names", "same", "same")
        assert "`--names` must be 2 different names" in message("--names", "one")
        assert "`--names` must be 2 different names" in message(names=("first", f"{models['wide']}/../first"))
        assert "`--names`" in message("--names", "random initialisation", "ours")

    def test_no_random_initialisation(self, message):
        assert "`--random_seeds` must be at least 1, got 0" in message("--random_seeds", 0)

    def test_a_model_that_does_not_exist(self, compare, capsys):
        with pytest.raises(SystemExit):
            compare("first", "/nowhere/model")
        assert "/nowhere/model" in capsys.readouterr().err
