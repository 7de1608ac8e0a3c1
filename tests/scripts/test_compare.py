import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from modeling_pcl import PCLModel


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
def task(people, tmp_path) -> str:
    cache = f"--cache_dir {tmp_path / 'features'}"
    return f"verification --test {people} --pairs 24 --folds 2 --image_size 32 --features trunk {cache}"


@pytest.fixture
def probed(scripts, monkeypatch) -> list[str]:
    """The models that are measured, from here on."""
    compare, measured = scripts("compare"), []
    probe = compare.probe

    def counted(arguments) -> str:
        measured.append(Path(arguments.model).name)
        return probe(arguments)

    monkeypatch.setattr(compare, "probe", counted)
    return measured


def rows(markdown: str) -> list[list[str]]:
    """The cells of a table, its heading first."""
    lines = [line.strip("|").split("|") for line in markdown.splitlines() if not line.startswith("|-")]
    return [[cell.strip() for cell in line] for line in lines]


def test_models_stand_beside_random_initialisations_and_the_best_is_bold(call, models, task, tmp_path, capsys):
    out = tmp_path / "out"
    two = ("--models", models["first"], models["second"], "--names", "ours", "theirs")
    call("compare", *two, "--tasks", task, "--random_seeds", 2, "--output_dir", out)
    markdown = (out / "comparison.md").read_text()
    assert markdown.strip() in capsys.readouterr().out
    heading, accuracy, auc = rows(markdown)
    assert heading == ["measure", "feature", "random initialisation", "ours", "theirs"]
    assert [line[:2] for line in (accuracy, auc)] == [
        ["verification: accuracy ↑", "trunk"],
        ["verification: auc ↑", "trunk"],
    ]
    record = json.loads((out / "comparison.json").read_text())
    for line, measure in ((accuracy, "accuracy"), (auc, "auc")):
        measured = record["measures"][f"verification: {measure}"]
        means = {name: measured[name]["trunk"]["mean"] for name in heading[2:]}
        for name, cell in zip(heading[2:], line[2:]):
            assert f"{means[name]:.3f}" in cell
            assert cell.startswith("**") == (means[name] == max(means.values()))
    for name in ("ours", "theirs"):
        assert "±" not in auc[heading.index(name)]
    runs = [json.loads(path.read_text()) for path in out.glob("verification/random*/results.json")]
    seeds = [run["results"]["trunk"]["cosine"]["auc"]["mean"] for run in runs]
    assert len(set(seeds)) == 2
    random = record["measures"]["verification: auc"]["random initialisation"]["trunk"]
    assert random == {"mean": pytest.approx(np.mean(seeds)), "spread": pytest.approx(np.std(seeds, ddof=1))}
    for path, digest in record["models"].items():
        assert digest.startswith("sha256:")
        assert Path(path).is_dir()
    with Image.open(out / "comparison.png") as picture:
        assert picture.width > 500
        assert len(picture.convert("L").getcolors()) > 20


def test_what_is_measured_already_is_not_measured_again(call, models, task, tmp_path, probed):
    copy = tmp_path / "second"
    shutil.copytree(models["second"], copy)

    def compare(*names: str, tasks=(task,)) -> list[str]:
        probed.clear()
        chosen = [copy if name == "second" else models[name] for name in names]
        call("compare", "--models", *chosen, "--tasks", *tasks, "--random_seeds", 1, "--output_dir", tmp_path / "out")
        return list(probed)

    random, first = compare("first")
    assert random.startswith("random")
    assert first == "first"
    table = (tmp_path / "out" / "comparison.md").read_text()
    assert compare("first") == []
    assert (tmp_path / "out" / "comparison.md").read_text() == table
    assert compare("second", "first") == ["second"]
    PCLModel(tiny.config()).save_pretrained(copy)  # Other weights under the same name.
    assert compare("first", "second") == ["second"]
    assert compare("first", tasks=(task.replace("--pairs 24", "--pairs 20"),)) == [random, "first"]


def test_two_architectures_have_two_random_initialisations(call, models, task, tmp_path, probed):
    both = ("--models", models["first"], models["wide"])
    call("compare", *both, "--tasks", task, "--random_seeds", 1, "--output_dir", tmp_path / "out")
    heading, *_ = rows((tmp_path / "out" / "comparison.md").read_text())
    assert len(heading) == 2 + 2 + 2
    assert [name.startswith("random initialisation") for name in heading[2:]] == [True, True, False, False]
    assert len(set(heading)) == 6
    sizes = [PCLModel.from_pretrained(path).config.hidden_sizes for path in (tmp_path / "out" / "models").iterdir()]
    assert sorted(sizes) == [[4, 6, 10, 12], [8, 10, 12, 14]]
    assert len(probed) == 4


def test_several_tasks_of_one_kind_have_names_of_their_own(scripts):
    tasks = ["expression --train a", "expression --train b --epochs 7", "expression --train c --label_column smile"]
    parsed = scripts("compare").parse_tasks(tasks)
    assert list(parsed) == ["expression", "expression (2)", "expression smile"]
    assert [arguments.train for arguments in parsed.values()] == ["a", "b", "c"]
    assert parsed["expression (2)"].epochs == 7


class TestWhatCannotBeComparedSaysWhy:
    @pytest.fixture
    def said(self, refused, models, tmp_path):
        def say(tasks, *options, names=("first", "second")) -> str:
            own = ("--models", *(models.get(name, name) for name in names), "--output_dir", tmp_path / "out")
            return refused("compare", *own, "--tasks", *tasks, *options)

        return say

    def test_an_unknown_option_of_a_task(self, said, task):
        assert "unknown option `--spread`" in said([f"{task} --spread 3"])

    def test_an_unknown_task_or_value(self, said, task):
        assert "`beauty --test x`" in said(["beauty --test x"])
        assert "argument --pairs" in said([task.replace("--pairs 24", "--pairs many")])

    def test_options_that_the_comparison_sets(self, said, task):
        assert "`--model` and `--output_dir`" in said([f"{task} --model other"])
        assert "`--model` and `--output_dir`" in said([f"{task} --output_dir other"])

    def test_names_that_are_not_different_or_not_enough(self, said, task, models):
        assert "`--names` must be 2 different names" in said([task], "--names", "same", "same")
        assert "`--names` must be 2 different names" in said([task], "--names", "one")
        assert "`--names` must be 2 different names" in said([task], names=("first", f"{models['wide']}/../first"))
        assert "`--names`" in said([task], "--names", "random initialisation", "ours")

    def test_no_random_initialisation(self, said, task):
        assert "`--random_seeds` must be at least 1, got 0" in said([task], "--random_seeds", 0)

    def test_a_model_that_does_not_exist(self, said, task):
        assert "/nowhere/model" in said([task], names=("first", "/nowhere/model"))

    def test_a_wrong_option_of_a_task(self, said, people):
        assert "`--folds` must be at least 2" in said([f"verification --test {people} --folds 1"])
