"""Several models side by side: their probes' results, what is missing measured, as one table and one plot."""

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
from .probe import probe
from .results import ARROWS, DIRECTIONS, bars, mean_and_spread, over_seeds

logger = logging.getLogger(__name__)

RANDOM = "random initialisation"
OF_ONE_MODEL = {"model", "output_dir", "batch_size", "cache_dir"}  # Options that are not of the task.
# What of each task stands in the table, and which way is better: up, down, or neither.
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
    """Gather mean and spread, by measure, model and feature, from the records by task and model.

    The spread of one model is over the seeds of its probe; that of several random initialisations over these.
    """
    summary: Summary = {}
    for task, models in records.items():
        for model, runs in models.items():
            for measure in MEASURES[runs[0]["task"]]:
                row = summary.setdefault(f"{task}: {measure}", {}).setdefault(model, {})
                for feature in runs[0]["results"]:
                    cells = [_main_probe(run["results"][feature])[measure] for run in runs]
                    merged = over_seeds([{measure: cell["mean"]} for cell in cells])[measure]
                    cell = cells[0] if len(cells) == 1 else merged
                    row[feature] = {name: cell[name] for name in ("mean", "spread")}
    return summary


def _main_probe(probes: Mapping[str, Mapping]) -> Mapping:
    """What was trained last of all, or else the first probe there is."""
    return probes.get("identity embedding") or next(iter(probes.values()))


def direction(measure: str) -> int:
    """1 if the higher is the better, -1 if the lower is, 0 if neither."""
    name = measure.partition(": ")[2]
    return next(signs[name] for signs in MEASURES.values() if name in signs)


def as_markdown(summary: Summary) -> str:
    """Write a line for each measure and feature, a column for each model; the best of a line is bold."""
    lines = []
    for measure, models in summary.items():
        sign = direction(measure)
        for feature in (name for name in READABLE_FEATURES if any(name in row for row in models.values())):
            cells = {model: row[feature] for model, row in models.items() if feature in row}
            known = {model: sign * cell["mean"] for model, cell in cells.items() if sign and cell["mean"] is not None}
            line = {model: mean_and_spread(cell) for model, cell in cells.items()}
            line |= {model: f"**{line[model]}**" for model in known if known[model] == max(known.values())}
            lines.append({"measure": measure + ARROWS[sign], "feature": feature} | line)
    return tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True)


def compare(arguments: ComparisonArguments) -> str:
    """Set models side by side, on every task that one of them was probed on.

    The tasks are those of the `results.json` in folders below the models' and below `output_dir`. Where another model,
    or a random initialisation, lacks one, it is probed with the same options, into `output_dir`. A task that cannot be
    probed here, as those of weights that came with their results and without their corpora, is left out with a warning.

    Returns:
        The table, in markdown.

    Raises:
        ValueError: If no model was probed, no task can be, or names are not one for each model.
    """
    models, folder = name_models(arguments), Path(arguments.output_dir)
    records = [record for place in (*models.values(), str(folder)) for record in read_records(Path(place))]
    tasks = name_tasks(records)
    if not tasks:
        first = arguments.models[0]
        raise ValueError(
            f"No model was probed yet: `pcl probe {first} --task … --output_dir {first}/TASK` comes first."
        )
    for name in arguments.tasks:
        if name not in tasks:
            raise ValueError(f"`--tasks` must be some of {', '.join(tasks)}; got {name}.")
    tasks = {name: options for name, options in tasks.items() if name in (arguments.tasks or tasks)}
    groups = make_random_models(models, folder / "models", arguments.random_seeds)
    groups |= {name: [model] for name, model in models.items()}
    digests = {path: model_digest(open_encoder(path)) for paths in groups.values() for path in paths}
    gathered = {}
    with progress(total=len(tasks) * len(digests), desc="Probes", unit="probe") as bar:
        for task, options in tasks.items():
            same = [record for record in records if task_options(record) == options]
            known = {record["model_revision"]: record for record in reversed(same)}  # The first of each stays.
            place = folder / task.replace(" ", "-")
            try:
                runs = {name: [] for name in groups}
                for name, path in ((name, path) for name, paths in groups.items() for path in paths):
                    runs[name].append(
                        known.get(digests[path])
                        or measure(options, path, place / (name if name in models else Path(path).name))
                    )
                    bar.update()
                gathered[task] = runs
            except (ValueError, OSError) as error:
                if task in arguments.tasks or len(tasks) == 1:
                    raise
                logger.warning("%s is left out: %s", task, error)
    if not gathered:
        raise ValueError(f"None of the tasks can be probed here: {', '.join(tasks)}.")
    return _write(folder, summarise(gathered), {"options": dataclasses.asdict(arguments), "models": digests})


def _write(folder: Path, summary: Summary, facts: dict) -> str:
    """The table, the same as JSON with some facts, and the picture; gives the table."""
    markdown = as_markdown(summary)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.md").write_text(markdown + "\n")
    write_json(folder / "comparison.json", facts | {"measures": summary})
    rows = {measure: {name: bars(cells) for name, cells in models.items()} for measure, models in summary.items()}
    draw_comparison(rows, {name: DIRECTIONS[direction(name)] for name in summary}).save(folder / "comparison.png")
    return markdown


def read_records(folder: Path) -> list[dict]:
    """Read the results of all probes in a folder and below."""
    records = [json.loads(path.read_text()) for path in sorted(folder.rglob("results.json"))] if folder.is_dir() else []
    return [record for record in records if record.get("task") in TASKS and "model_revision" in record]


def task_options(record: Mapping) -> dict:
    """What of a probe's options another model can be probed with."""
    return {name: value for name, value in record["options"].items() if name not in OF_ONE_MODEL}


def name_tasks(records: Sequence[Mapping]) -> dict[str, dict]:
    """Give each different task a name."""
    tasks: dict[str, dict] = {}
    for options in map(task_options, records):
        name = options["task"] + (f" {options['label_column']}" if options.get("label_column") else "")
        if options not in tasks.values():
            same = sum(other == name or other.startswith(f"{name} (") for other in tasks)
            tasks[f"{name} ({same + 1})" if same else name] = options
    return tasks


def measure(options: Mapping, model: str, folder: Path) -> dict:
    """Probe a model with the options of another's probe."""
    probe(TASKS[options["task"]](model=model, output_dir=str(folder), **options))
    return json.loads((folder / "results.json").read_text())


def name_models(arguments: ComparisonArguments) -> dict[str, str]:
    """Give each model a name.

    Returns:
        Folder or id, by name.

    Raises:
        ValueError: If names are not one for each model, or not different.
    """
    names = arguments.names or [Path(model).name for model in arguments.models]
    if len(names) != len(arguments.models) or len(set(names)) < len(names):
        raise ValueError(f"`--names` must be {len(arguments.models)} different names, got {names}.")
    if any(name.startswith(RANDOM) for name in names):
        raise ValueError(f"`--names` must leave `{RANDOM}` to the comparison, got {names}.")
    return dict(zip(names, arguments.models))


def make_random_models(models: dict[str, str], folder: Path, seeds: int) -> dict[str, list[str]]:
    """Save random initialisations of every architecture there is among the models, by their name in the table."""
    sizes = ("num_channels", "hidden_sizes", "feature_channels", "negative_slope", "image_size")
    architectures: dict[str, tuple[str, PCLConfig]] = {}  # By their sizes: the first model that has them.
    for name, model in models.items():
        config = open_encoder(model).config
        values = {size: getattr(config, size) for size in sizes}
        architectures.setdefault(json.dumps(values), (name, PCLConfig(**values)))
    made = {}
    for sizes_json, (like, config) in architectures.items():
        name = RANDOM if len(architectures) == 1 else f"random, as large as {like}"
        made[name] = []
        for seed in range(seeds):
            set_seed(seed)
            path = folder / f"random-{hashlib.sha256(sizes_json.encode()).hexdigest()[:8]}-seed{seed}"
            PCLModel(config).save_pretrained(path)
            made[name].append(str(path))
    return made
