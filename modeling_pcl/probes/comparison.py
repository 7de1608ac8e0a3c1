"""Comparison of several models: gather the results of their probes, run missing probes, write a table and a chart."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate
from transformers import set_seed

from ..configuration_pcl import PCLConfig
from ..features_pcl import READABLE_FEATURES
from ..files import write_json
from ..hub.models import model_digest, open_encoder
from ..modeling_pcl import PCLModel
from ..pictures.comparison import draw_comparison
from ..progress import progress
from .arguments import TASKS, ComparisonArguments
from .probe import run_probe
from .results import ARROWS, DIRECTIONS, format_mean_and_spread, summarise_seeds, to_bars

logger = logging.getLogger(__name__)

RANDOM = "random initialisation"
MODEL_OPTIONS = {"model", "output_dir", "batch_size", "cache_dir"}  # Options of one model's probe, not of the task.
# Measures of each task in the table: 1 if higher is better, -1 if lower is better, 0 if neither.
MEASURES = {
    "expression": {"accuracy": 1, "mean_class_accuracy": 1},
    "verification": {"accuracy": 1, "auc": 1},
    "head_pose": {"mae": -1},
    "regression": {"mae": -1, "r2": 1},
    "action_units": {"f1": 1},
    "disentanglement": {"pose R²": 1, "identity AUC": 1, "expression accuracy": 1, "mirror movement": 0},
}

Summary = dict[str, dict[str, dict[str, dict]]]


def summarise(records: Mapping[str, Mapping[str, Sequence[Mapping]]]) -> Summary:
    """Gather mean and spread by measure, model and feature.

    The spread of a single model is over the seeds of its probe; that of random initialisations is over the
    initialisations.

    Args:
        records: Results of one or several runs, by task and model.
    """
    summary: Summary = {}
    for task, models in records.items():
        for model, runs in models.items():
            for measure in MEASURES[runs[0]["task"]]:
                row = summary.setdefault(f"{task}: {measure}", {}).setdefault(model, {})
                for feature in runs[0]["results"]:
                    cells = [_select_main_probe(run["results"][feature])[measure] for run in runs]
                    merged = summarise_seeds([{measure: cell["mean"]} for cell in cells])[measure]
                    cell = cells[0] if len(cells) == 1 else merged
                    row[feature] = {name: cell[name] for name in ("mean", "spread")}
    return summary


def _select_main_probe(probes: Mapping[str, Mapping]) -> Mapping:
    """Return the identity embedding, if there is one, and otherwise the first probe."""
    return probes.get("identity embedding") or next(iter(probes.values()))


def find_direction(measure: str) -> int:
    """Return 1 if higher is better, -1 if lower is better, 0 if neither."""
    name = measure.partition(": ")[2]
    return next(signs[name] for signs in MEASURES.values() if name in signs)


def format_markdown(summary: Summary) -> str:
    """Format a table with a line for each measure and feature and a column for each model. The best entry is bold."""
    rows = []
    for measure, models in summary.items():
        sign = find_direction(measure)
        for feature in (name for name in READABLE_FEATURES if any(name in features for features in models.values())):
            cells = {model: features[feature] for model, features in models.items() if feature in features}
            signed_means = {
                model: sign * cell["mean"] for model, cell in cells.items() if sign and cell["mean"] is not None
            }
            row = {model: format_mean_and_spread(cell) for model, cell in cells.items()}
            best = max(signed_means.values(), default=None)
            row |= {model: f"**{row[model]}**" for model in signed_means if signed_means[model] == best}
            rows.append({"measure": measure + ARROWS[sign], "feature": feature} | row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def compare(arguments: ComparisonArguments) -> str:
    """Compare models on every task that one of them was probed on.

    The tasks are those of the `results.json` files in the folders of the models, in `output_dir`, and below them.
    Models and random initialisations without results for a task are probed with the same options, into `output_dir`.
    A task that cannot be probed here, for example because only its results were downloaded and not its corpora, is
    left out with a warning.

    Returns:
        The table, in markdown.

    Raises:
        ValueError: If no model was probed, no task can be probed, or the number of names differs from that of models.
    """
    models, folder = name_models(arguments), Path(arguments.output_dir)
    searched = (*models.values(), str(folder))
    records = [record for path in searched for record in read_records(Path(path))]
    tasks = name_tasks(records)
    if not tasks:
        first = arguments.models[0]
        raise ValueError(f"No model was probed yet: run `pcl probe {first} --task … --output_dir {first}/TASK` first.")
    for name in arguments.tasks:
        if name not in tasks:
            raise ValueError(f"`--tasks` must be some of {', '.join(tasks)}; got {name}.")
    tasks = {name: options for name, options in tasks.items() if name in (arguments.tasks or tasks)}
    groups = make_random_models(models, folder / "models", arguments.random_seeds)
    groups |= {name: [model] for name, model in models.items()}
    keys = {path: identify_features(path) for paths in groups.values() for path in paths}
    digests = {path: digest for path, (digest, _) in keys.items()}
    results = {}
    with progress(total=len(tasks) * len(digests), desc="Probes", unit="probe") as bar:
        for task, options in tasks.items():
            task_records = [record for record in records if select_task_options(record) == options]
            # Reversed, so that the first record of each model wins.
            known_records = {
                (record["model_revision"], record.get("mirror_invariant_face", False)): record
                for record in reversed(task_records)
            }
            task_folder = folder / task.replace(" ", "-")
            try:
                runs = {name: [] for name in groups}
                for name, path in ((name, path) for name, paths in groups.items() for path in paths):
                    runs[name].append(
                        known_records.get(keys[path])
                        or probe_model(options, path, task_folder / (name if name in models else Path(path).name))
                    )
                    bar.update()
                results[task] = runs
            except (ValueError, OSError) as error:
                if task in arguments.tasks or len(tasks) == 1:
                    raise
                logger.warning("%s is left out: %s", task, error)
    if not results:
        raise ValueError(f"None of the tasks {', '.join(tasks)} can be probed here.")
    return _write_comparison(folder, summarise(results), {"options": dataclasses.asdict(arguments), "models": digests})


def _write_comparison(folder: Path, summary: Summary, facts: dict) -> str:
    """Write the table as markdown and as JSON, and draw the chart.

    Returns:
        The table, in markdown.
    """
    markdown = format_markdown(summary)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.md").write_text(markdown + "\n")
    write_json(folder / "comparison.json", facts | {"measures": summary})
    rows = {measure: {name: to_bars(cells) for name, cells in models.items()} for measure, models in summary.items()}
    draw_comparison(rows, {name: DIRECTIONS[find_direction(name)] for name in summary}).save(folder / "comparison.png")
    return markdown


def read_records(folder: Path) -> list[dict]:
    """Read the results of all probes in a folder and below it."""
    records = [json.loads(path.read_text()) for path in sorted(folder.rglob("results.json"))] if folder.is_dir() else []
    return [record for record in records if record.get("task") in TASKS and "model_revision" in record]


def identify_features(path: str) -> tuple[str, bool]:
    """Return the digest of an encoder's weights, and whether its face feature is that of the image and its mirror."""
    encoder = open_encoder(path)
    return model_digest(encoder), encoder.config.mirror_invariant_face


def select_task_options(record: Mapping) -> dict:
    """Select the options of a probe that apply to any model, of those that its task still has."""
    options = record["options"]
    names = {field.name for field in dataclasses.fields(TASKS[options["task"]])} - MODEL_OPTIONS
    return {name: value for name, value in options.items() if name in names}


def name_tasks(records: Sequence[Mapping]) -> dict[str, dict]:
    """Give each distinct set of task options a name."""
    tasks: dict[str, dict] = {}
    for options in map(select_task_options, records):
        name = options["task"] + (f" {options['label_column']}" if options.get("label_column") else "")
        if options not in tasks.values():
            count = sum(other == name or other.startswith(f"{name} (") for other in tasks)
            tasks[f"{name} ({count + 1})" if count else name] = options
    return tasks


def probe_model(options: Mapping, model: str, folder: Path) -> dict:
    """Probe a model with the options of another model's probe. Returns the content of its results.json."""
    run_probe(TASKS[options["task"]](model=model, output_dir=str(folder), **options))
    return json.loads((folder / "results.json").read_text())


def name_models(arguments: ComparisonArguments) -> dict[str, str]:
    """Give each model a name.

    Returns:
        Folder or Hub id, by name.

    Raises:
        ValueError: If the number of names differs from that of models, two names are equal, or a name begins with
            `RANDOM`.
    """
    names = arguments.names or [Path(model).name for model in arguments.models]
    if len(names) != len(arguments.models) or len(set(names)) < len(names):
        raise ValueError(f"`--names` must be {len(arguments.models)} different names, got {names}.")
    if any(name.startswith(RANDOM) for name in names):
        raise ValueError(f"`--names` must not begin with `{RANDOM}`, got {names}.")
    return dict(zip(names, arguments.models))


def make_random_models(models: dict[str, str], folder: Path, seeds: int) -> dict[str, list[str]]:
    """Save random initialisations of every architecture among the models.

    Returns:
        Folders of the initialisations, by their name in the table.
    """
    names = ("num_channels", "hidden_sizes", "feature_channels", "negative_slope", "image_size")
    names += ("mirror_invariant_face",)
    # By JSON of the sizes: the first model of that architecture, and its config.
    architectures: dict[str, tuple[str, PCLConfig]] = {}
    for name, model in models.items():
        config = open_encoder(model).config
        values = {field: getattr(config, field) for field in names}
        architectures.setdefault(json.dumps(values), (name, PCLConfig(**values)))
    folders = {}
    for sizes_json, (model_name, config) in architectures.items():
        name = RANDOM if len(architectures) == 1 else f"random, as large as {model_name}"
        folders[name] = []
        for seed in range(seeds):
            set_seed(seed)
            path = folder / f"random-{hashlib.sha256(sizes_json.encode()).hexdigest()[:8]}-seed{seed}"
            PCLModel(config).save_pretrained(path)
            folders[name].append(str(path))
    return folders
