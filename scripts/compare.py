"""Set models beside each other and beside random initialisation, on the same tasks:

python scripts/compare.py --models runs/mine runs/simclr --output_dir runs/comparison \
    --tasks "expression --train corpora/fer2013" "verification --test corpora/lfw:pairs"

Each task is written as probe.py's options after `--task`. What the output folder holds already, of the same model with
the same options, is not measured again: empty it when the images behind a corpus's name have changed.
"""

import argparse
import dataclasses
import hashlib
import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from probe import probe
from probing.arguments import ProbeArguments
from probing.comparison import as_markdown, draw, summarise
from probing.encoder import open_encoder
from tqdm.auto import tqdm
from transformers import HfArgumentParser, set_seed
from transformers.utils.logging import disable_progress_bar

from modeling_pcl import PCLConfig, PCLModel
from modeling_pcl.probes.features import model_digest
from modeling_pcl.training.arguments import option

RANDOM = "random initialisation"


@dataclass
class ComparisonArguments:
    """What to compare, on what."""

    models: list[str] = field(metadata={"help": "Folders or Hub ids of PCL models."})
    tasks: list[str] = field(metadata={"help": 'Tasks such as "expression --train corpora/fer2013".'})
    output_dir: str = option("runs/comparison", "Folder for comparison.md, .png and .json, and each probe's folder.")
    names: list[str] = field(
        default_factory=list,
        metadata={"help": "What to call the models; by default the last part of their folder or id."},
    )
    random_seeds: int = option(3, "Random initialisations of each architecture, at least 1.")


def parse_tasks(tasks: list[str]) -> dict[str, ProbeArguments]:
    """Each task's options, by a name that is its own.

    Raises:
        ValueError: If an option is unknown, or one of those that the comparison sets.
    """
    parser = HfArgumentParser(ProbeArguments, exit_on_error=False, add_help=False)
    parsed = {}
    for text in tasks:
        try:
            arguments, rest = parser.parse_args_into_dataclasses(["--task", *shlex.split(text)], True)
        except argparse.ArgumentError as error:
            raise ValueError(f"The task `{text}`: {error}") from error
        if rest:
            raise ValueError(f"The task `{text}` has the unknown option `{rest[0]}`; they are those of probe.py.")
        if arguments.model or arguments.output_dir:
            raise ValueError(f"The task `{text}` must leave `--model` and `--output_dir` to the comparison.")
        name = arguments.task + (f" {arguments.label_column}" if arguments.label_column else "")
        same = sum(other == name or other.startswith(f"{name} (") for other in parsed)
        parsed[f"{name} ({same + 1})" if same else name] = arguments
    return parsed


def name_models(arguments: ComparisonArguments) -> dict[str, str]:
    """Folder or id of each model, by its name.

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
    """Random initialisations of every architecture there is among the models, saved, by their name in the table.

    Raises:
        ValueError: If `seeds` is below 1.
    """
    if seeds < 1:
        raise ValueError(f"`--random_seeds` must be at least 1, got {seeds}.")
    sizes = ("num_channels", "hidden_sizes", "feature_channels", "negative_slope", "image_size")
    architectures: dict[str, tuple[str, PCLConfig]] = {}  # By their sizes: the first model that has them.
    for name, model in models.items():
        config = open_encoder(model).config
        own = {size: getattr(config, size) for size in sizes}
        architectures.setdefault(json.dumps(own), (name, PCLConfig(**own)))
    made = {}
    for own, (like, config) in architectures.items():
        name = RANDOM if len(architectures) == 1 else f"{RANDOM}, sizes of {like}"
        made[name] = []
        for seed in range(seeds):
            set_seed(seed)
            path = folder / f"random-{hashlib.sha256(own.encode()).hexdigest()[:8]}-seed{seed}"
            PCLModel(config).save_pretrained(path)
            made[name].append(str(path))
    return made


def results_of(arguments: ProbeArguments, digest: str) -> dict:
    """A probe's results: those on disk, if they are of the same model and options, else new ones."""
    path = Path(arguments.output_dir) / "results.json"
    if path.exists():
        record = json.loads(path.read_text())
        if record["options"] == dataclasses.asdict(arguments) and record["model_revision"] == digest:
            return record
    probe(arguments)
    return json.loads(path.read_text())


def compare(arguments: ComparisonArguments) -> str:
    """Measure what is not measured yet; the table in markdown."""
    tasks, models, folder = parse_tasks(arguments.tasks), name_models(arguments), Path(arguments.output_dir)
    groups = make_random_models(models, folder / "models", arguments.random_seeds)
    groups |= {name: [model] for name, model in models.items()}
    digests = {path: model_digest(open_encoder(path)) for paths in groups.values() for path in paths}
    records = {}
    with tqdm(total=len(tasks) * len(digests), desc="probes", unit="probe") as bar:
        for task, options_of_task in tasks.items():
            for name, paths in groups.items():
                for path in paths:
                    own = folder / task.replace(" ", "-") / (name if name in models else Path(path).name)
                    run = dataclasses.replace(options_of_task, model=path, output_dir=str(own))
                    records.setdefault(task, {}).setdefault(name, []).append(results_of(run, digests[path]))
                    bar.update()
    summary = summarise(records)
    markdown = as_markdown(summary)
    (folder / "comparison.md").write_text(markdown + "\n")
    record = {"options": dataclasses.asdict(arguments), "models": digests, "measures": summary}
    (folder / "comparison.json").write_text(json.dumps(record, indent=2) + "\n")
    draw(summary).save(folder / "comparison.png")
    return markdown


def main():
    parser = HfArgumentParser(
        ComparisonArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    (arguments,) = parser.parse_args_into_dataclasses()
    disable_progress_bar()  # transformers' own, for the weights
    try:
        print(compare(arguments))
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
