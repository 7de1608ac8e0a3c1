"""Each metric, opened by its path, offline, in a new process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_pcl.probes import metrics
from modeling_pcl.probes.metrics import METRICS, load_metric

STRANGER = """
import json, socket, sys
from pathlib import Path

def no_network(*args):
    raise OSError("the network was asked for")

socket.socket.connect = socket.getaddrinfo = no_network

import evaluate

results = {}
for name, inputs in json.loads(sys.argv[2]).items():
    for path in (Path(sys.argv[1]) / name, Path(sys.argv[1]) / name / f"{name}.py"):
        results[name] = evaluate.load(str(path)).compute(**inputs)
print(json.dumps(results))
"""

INPUTS = {
    "action_unit_f1": {"predictions": [[0.9, 0.2], [0.1, 0.7]], "references": [[1, 0], [0, -1]]},
    "angular_mae": {"predictions": [[1, 2, 3]], "references": [[0, 0, 0]]},
    "expression_accuracy": {"predictions": [0, 1, 1], "references": [0, 1, 2]},
    "fold_verification": {"predictions": [0.9, 0.1, 0.8, 0.2], "references": [1, 0, 1, 0], "folds": [0, 0, 1, 1]},
}
FOLDER = Path(metrics.__file__).parent


def test_every_folder_is_a_known_metric():
    folders = {path.parent.name for path in FOLDER.glob("*/*.py")}
    assert sorted(folders) == sorted(METRICS) == sorted(INPUTS)


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"action_unit_f1, angular_mae, .*, got 'accuracy'"):
        load_metric("accuracy")


@pytest.mark.parametrize("name", METRICS)
def test_metrics_go_by_their_name_and_say_what_they_take(name):
    metric = load_metric(name)
    assert metric.name == name
    assert "Args:" in metric.inputs_description
    assert "Returns:" in metric.compute.__doc__


@pytest.mark.parametrize("name", METRICS)
def test_batches_add_up_to_all_rows(name):
    metric = load_metric(name)
    for row in range(len(INPUTS[name]["predictions"])):
        metric.add_batch(**{key: rows[row : row + 1] for key, rows in INPUTS[name].items()})
    assert metric.compute() == metric.compute(**INPUTS[name])


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> tuple[dict, Path, Path]:
    """Results of a new process, its working directory and its cache."""
    directory, home = tmp_path_factory.mktemp("working"), tmp_path_factory.mktemp("home")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", STRANGER, str(FOLDER), json.dumps(INPUTS)]
    process = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout), directory, home


def test_every_metric_loads_by_path_offline_in_a_new_process(stranger):
    results, _, _ = stranger
    expected = {name: load_metric(name).compute(**inputs) for name, inputs in INPUTS.items()}
    assert results == expected


def test_nothing_is_left_in_the_working_directory_and_no_rows_in_the_cache(stranger):
    _, directory, home = stranger
    assert list(directory.iterdir()) == []
    assert {path.stem for path in home.rglob("*.py")} >= set(METRICS)
    assert list(home.rglob("*.arrow")) == []


def test_repeated_loads_and_errors_leave_nothing_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in METRICS:
        with pytest.raises(ValueError, match="got none"):
            load_metric(name).compute(**{key: [] for key in INPUTS[name]})
        assert load_metric(name).compute(**INPUTS[name]) == load_metric(name).compute(**INPUTS[name])
    assert list(tmp_path.iterdir()) == []
