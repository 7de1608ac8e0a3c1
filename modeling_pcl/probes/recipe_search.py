"""Comparison of training recipes, and following of long runs, by quick scores on validation data."""

import csv
import json
import logging
import os
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime
from pathlib import Path

import torch
from filelock import FileLock
from tqdm import tqdm

from ..configuration_pcl import PCLConfig
from ..data.child_processes import python_command
from ..files import replacing, report_open_errors
from ..hub.models import open_encoder
from ..modeling_pcl import PCLModel
from ..pictures.charts import draw_learning_curve
from ..progress import progress
from ..training.checkpoints import CheckpointFolder, read_state
from ..training.options import MAY_CHANGE, parse_options
from ..training.state import check_same_run
from .quick_scores import ScoreData, compute_quick_scores, read_score_data
from .search_arguments import FollowArguments, ScoreArguments, ScoreModelsArguments, SearchArguments
from .search_table import read_score_table

logger = logging.getLogger(__name__)

# Equivalent to `python -m modeling_pcl.commands.pretrain`.
PRETRAIN = "import runpy; runpy.run_module('modeling_pcl.commands.pretrain', run_name='__main__', alter_sys=True)"


class Scorer:
    """Scores models at several sides, and appends the scores to a CSV file.

    Args:
        arguments: Corpora, sides, features and CSV file.
        columns: Columns that the CSV file must have, if it exists.

    Raises:
        ValueError: If the CSV file is of another kind.
    """

    def __init__(self, arguments: ScoreArguments, *columns: str):
        self.arguments, self.path = arguments, Path(arguments.output)
        self.data: dict[int, ScoreData] = {}
        self.lock = FileLock(f"{arguments.output}.lock")
        for row in read_score_table(self.path)[:1]:
            if not {*columns, "side", "feature"} <= row.keys():
                raise ValueError(f"`--output` {self.path} lacks the column {' or '.join(columns)}: name another file.")

    def load_images(self):
        """Read the images of all corpora, once for all models."""
        for side in self.arguments.sides:
            if side not in self.data:
                self.data[side] = read_score_data(self.arguments, side)

    def add(self, model: PCLModel, facts: dict) -> dict[str, float]:
        """Score a model, and append a row for each side and feature. Returns the first of these rows."""
        rows = []
        for side in self.arguments.sides:
            for feature, scores in compute_quick_scores(model, self.data[side], self.arguments.features):
                rounded = {name: round(score, 4) for name, score in scores.items()}
                rows.append({**facts, "side": side, "feature": feature, **rounded})
        with self.lock:
            old_rows = read_score_table(self.path)
            with replacing(self.path) as unfinished, unfinished.open("w", newline="") as file:
                writer = csv.DictWriter(file, dict.fromkeys([*(old_rows[0] if old_rows else ()), *rows[0]]))
                writer.writeheader()
                writer.writerows([*old_rows, *rows])
        return rows[0]


def open_scored_model(name: str) -> PCLModel:
    """Open a folder or Hub id, or make a random model from `random:SEED:WIDTH`.

    Raises:
        ValueError: If the model cannot be opened, or the name of a random model has another form.
    """
    if not name.startswith("random:"):
        return open_encoder(name)
    seed, width = parse_random_model(name)
    torch.manual_seed(seed)
    return PCLModel(PCLConfig().scaled(width))


def parse_random_model(name: str) -> tuple[int, float]:
    """Parse the seed and the width of `random:SEED:WIDTH`."""
    try:
        _, seed, width = name.split(":")
        return int(seed), float(width)
    except ValueError as error:
        raise ValueError(f"A random model must be `random:SEED:WIDTH`, such as random:0:0.25, got `{name}`.") from error


def read_variants(path: str) -> tuple[list[str], dict[str, list[str]]]:
    """Read a file of variants.

    Returns:
        The options of all variants, and the options of each variant by name.

    Raises:
        ValueError: If a line is not `name: options`, a name occurs twice, options begin with an unknown name, or there
            is no variant.
    """
    variants: dict[str, list[str]] = {}
    with report_open_errors(f"The file of variants `{path}`"):
        lines = Path(path).read_text().splitlines()
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        name, colon, options = text.partition(":")
        if not colon or name in variants or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"{path}, line {number}: must be `name: options` with a new name, got {line!r}.")
        try:
            words = shlex.split(options)
        except ValueError as error:  # A quotation mark without its other half.
            raise ValueError(f"{path}, line {number}: {error}, in {line!r}.") from error
        if words and not words[0].startswith(("--", "random:")):
            if words[0] not in variants:
                raise ValueError(f"{path}, line {number}: there is no earlier line named {words[0]!r}.")
            words = [*variants[words[0]], *words[1:]]
        variants[name] = words
    common = variants.pop("all", [])
    if not variants:
        raise ValueError(f"{path} must hold at least one variant, a line `name: options`.")
    return common, variants


class Trainer:
    """Trains variants, each in a process of one thread that ends with this process."""

    def __init__(self, arguments: SearchArguments):
        self.arguments = arguments
        self.running: set[subprocess.Popen] = set()

    def train(self, name: str, options: list[str]) -> Path:
        """Train a variant, unless it is already trained. Returns its folder.

        Raises:
            ValueError: If training failed, with the last lines of its log, or if the folder has a run with other
                options.
        """
        folder = Path(self.arguments.runs_dir) / name
        arguments = ["--corpus", self.arguments.corpus, "--output_dir", str(folder), *options]
        newest = CheckpointFolder(folder / "checkpoints").newest()
        if newest:
            check_same_run(newest, parse_options(arguments).flat(), 1, MAY_CHANGE)
            if "finished" in json.loads((folder / "run.json").read_text()):
                return folder
            arguments += ["--resume"]
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a") as log:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(python_command(PRETRAIN, *arguments), stdout=log, stderr=log, env=environment)
            self.running.add(process)
            status = process.wait()
            self.running.remove(process)
        if status:
            lines = (folder / "log.txt").read_text().replace("\r", "\n").splitlines()
            raise ValueError("\n".join(lines[-3:]))
        return folder

    def stop(self):
        """Terminate all running training processes. Each resumes from its last checkpoint in the next search."""
        for process in list(self.running):
            process.terminate()


def read_run_facts(folder: Path) -> dict:
    """Read seed, steps, images seen and duration of a finished run."""
    record = json.loads((folder / "run.json").read_text())
    started, finished = (datetime.fromisoformat(record[key]) for key in ("started", "finished"))
    return {
        "seed": record["options"]["seed"],
        "steps": record["options"]["steps"],
        "images_seen": record["images_seen"],
        "minutes": round((finished - started).total_seconds() / 60, 1),
    }


def _mean_the_same(common: list[str], options: list[str], scored_options: list[str]) -> bool:
    """Whether two variants are the same model or the same training, though their options may be in another order."""
    if options == scored_options or any(word.startswith("random:") for word in (*options, *scored_options)):
        return options == scored_options
    ours, theirs = (parse_options([*common, *words]).flat() for words in (options, scored_options))
    return ours == theirs


def search_recipes(arguments: SearchArguments):
    """Train variants that are not trained yet, and score those that are not scored yet.

    Raises:
        ValueError: If the table has a variant with other options, or variants failed.
    """
    (common, variants), scorer, trainer = (
        read_variants(arguments.variants),
        Scorer(arguments, "name", "options"),
        Trainer(arguments),
    )
    scored = {row["name"]: row["options"] for row in read_score_table(scorer.path)}
    for name, options in variants.items():
        if name in scored and not _mean_the_same(common, options, shlex.split(scored[name])):
            raise ValueError(f"{arguments.output} has {name} with other options: rename the variant.")
    missing = {name: options for name, options in variants.items() if name not in scored}
    if missing:
        scorer.load_images()

    def train_and_score(name: str, options: list[str]) -> dict:
        """Train and score one variant."""
        facts = {"name": name, "options": shlex.join(options)}
        if name.startswith("random"):  # The options are the model's name.
            facts |= {"seed": parse_random_model(options[0])[0], "steps": 0, "images_seen": 0, "minutes": 0}
            return scorer.add(open_scored_model(options[0]), facts)
        folder = trainer.train(name, [*common, *options])
        return scorer.add(open_encoder(str(folder)), facts | read_run_facts(folder))

    failed = []
    pool = ThreadPoolExecutor(arguments.jobs)
    try:
        name_of_job = {pool.submit(train_and_score, name, options): name for name, options in missing.items()}
        for job in progress(as_completed(name_of_job), total=len(name_of_job), desc="Variants", unit="run"):
            try:
                tqdm.write(json.dumps(job.result()))
            except (ValueError, OSError) as error:
                failed.append(name_of_job[job])
                tqdm.write(f"{name_of_job[job]} failed: {error}")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        trainer.stop()
        pool.shutdown()
    if failed:
        raise ValueError(f"{len(failed)} of {len(missing)} variants failed: {', '.join(failed)}.")


def score_models(arguments: ScoreModelsArguments):
    """Score models, and append a row to the CSV file for each side and feature."""
    scorer = Scorer(arguments, "model")
    models = {name: open_scored_model(name) for name in arguments.models}  # Before the images, which take a minute.
    scorer.load_images()
    for name, model in models.items():
        print(json.dumps(scorer.add(model, {"model": name})))


def score_newest_checkpoint(scorer: Scorer, run: Path):
    """Score the newest checkpoint, unless it is already scored, and redraw the learning curve."""
    newest = CheckpointFolder(run / "checkpoints").newest()
    if newest is None:
        logger.warning("%s has no checkpoint yet", run)
        return
    step = read_state(newest)["step"]
    if str(step) in {row["step"] for row in read_score_table(scorer.path)}:
        return
    scorer.load_images()
    model = open_encoder(str(newest / "model"))  # Opened before a later checkpoint can replace it.
    images_seen = step * json.loads((run / "run.json").read_text())["images_per_step"]
    facts = {"time": datetime.now().isoformat(timespec="minutes"), "step": step, "images_seen": images_seen}
    print(json.dumps(scorer.add(model, facts)), flush=True)
    draw_learning_curve(read_score_table(scorer.path)).save(scorer.path.with_suffix(".png"))


def follow_run(arguments: FollowArguments):
    """Score the newest checkpoint of a run, repeatedly unless `--once` is given.

    Raises:
        ValueError: If the folder does not exist, or a corpus cannot be opened.
    """
    run = Path(arguments.run)
    if not run.is_dir():
        raise ValueError(f"{run} is not the folder of a run.")
    arguments.output = arguments.output or str(run / "scores.csv")
    scorer = Scorer(arguments, "step")
    score_newest_checkpoint(scorer, run)
    while not arguments.once:
        time.sleep(60 * arguments.every_min)
        score_newest_checkpoint(scorer, run)
