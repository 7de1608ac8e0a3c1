"""Training recipes compared, and long runs followed, by a few scores on validation data."""

import csv
import json
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
from ..files import replacing
from ..hub.models import open_encoder
from ..modeling_pcl import PCLModel
from ..pictures.charts import draw_learning_curve
from ..progress import progress
from ..training.checkpoints import CheckpointFolder, read_state
from ..training.options import MAY_CHANGE, parse_options
from ..training.state import check_same_run
from .arguments import FollowArguments, ScoreArguments, ScoreModelsArguments, SearchArguments
from .quick_scores import ScoreData, compute_quick_scores, read_score_data

# As `python -m modeling_pcl.commands.pretrain`.
PRETRAIN = "import runpy; runpy.run_module('modeling_pcl.commands.pretrain', run_name='__main__', alter_sys=True)"


class Scorer:
    """Scores models at several sides, and adds what it found to a table."""

    def __init__(self, arguments: ScoreArguments):
        self.arguments, self.path = arguments, Path(arguments.output)
        self.data: dict[int, ScoreData] = {}
        self.lock = FileLock(f"{arguments.output}.lock")

    def load_images(self):
        """Read all images, once for all models."""
        for side in self.arguments.sides:
            if side not in self.data:
                self.data[side] = read_score_data(self.arguments, side)

    def read_rows(self) -> list[dict[str, str]]:
        """What the table holds."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def add(self, model: PCLModel, facts: dict) -> dict[str, float]:
        """Score a model, and write a row for each side and feature. Returns the first of these rows."""
        rows = []
        for side in self.arguments.sides:
            for feature, scores in compute_quick_scores(model, self.data[side], self.arguments.features):
                rounded = {name: round(score, 4) for name, score in scores.items()}
                rows.append({**facts, "side": side, "feature": feature, **rounded})
        with self.lock:
            before = self.read_rows()
            with replacing(self.path) as unfinished, unfinished.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows([*before, *rows])
        return rows[0]


def open_scored_model(name: str) -> PCLModel:
    """A folder or Hub id, or `random:SEED:WIDTH` for a model that is not trained."""
    kind, *numbers = name.split(":")
    if kind != "random":
        return open_encoder(name)
    seed, width = numbers
    torch.manual_seed(int(seed))
    return PCLModel(PCLConfig().scaled(float(width)))


def read_variants(path: str) -> tuple[list[str], dict[str, list[str]]]:
    """Options of all, and each one's own by name.

    Raises:
        ValueError: If a line is not `name: options`, a name stands twice, or options begin with no known name.
    """
    variants: dict[str, list[str]] = {}
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        name, colon, options = text.partition(":")
        if not colon or name in variants or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"{path}, line {number}: must be `name: options`, each name once, got {line!r}.")
        words = shlex.split(options)
        if words and not words[0].startswith(("--", "random:")):
            if words[0] not in variants:
                raise ValueError(f"{path}, line {number}: no line before it is named {words[0]!r}.")
            words = [*variants[words[0]], *words[1:]]
        variants[name] = words
    return variants.pop("all", []), variants


class Trainer:
    """Trains variants, each in a process of one thread that ends with this one."""

    def __init__(self, arguments: SearchArguments):
        self.arguments = arguments
        self.running: set[subprocess.Popen] = set()

    def train(self, name: str, options: list[str]) -> Path:
        """Train a variant, unless it is trained already. Returns its folder.

        Raises:
            ValueError: If training failed, with the last lines of its log; or if the folder is of other options.
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
        """End all that are training; each goes on from its last checkpoint another time."""
        for process in list(self.running):
            process.terminate()


def read_run_facts(folder: Path) -> dict:
    """Of a run that is finished."""
    record = json.loads((folder / "run.json").read_text())
    started, finished = (datetime.fromisoformat(record[key]) for key in ("started", "finished"))
    return {
        "seed": record["options"]["seed"],
        "steps": record["options"]["steps"],
        "images_seen": record["images_seen"],
        "minutes": round((finished - started).total_seconds() / 60, 1),
    }


def search_recipes(arguments: SearchArguments):
    """Train what is not trained, score what is not scored.

    Raises:
        ValueError: If a variant's options differ from those in the table, or variants failed.
    """
    (common, variants), scorer, trainer = read_variants(arguments.variants), Scorer(arguments), Trainer(arguments)
    scored = {row["name"]: row["options"] for row in scorer.read_rows()}
    for name, options in variants.items():
        if scored.get(name, shlex.join(options)) != shlex.join(options):
            raise ValueError(f"{arguments.output} has {name} with other options: give the variant another name.")
    missing = {name: options for name, options in variants.items() if name not in scored}
    if missing:
        scorer.load_images()

    def work(name: str, options: list[str]) -> dict:
        facts = {"name": name, "options": shlex.join(options)}
        if name.startswith("random"):  # options: the model's name
            seed = int(options[0].split(":")[1])
            facts |= {"seed": seed, "steps": 0, "images_seen": 0, "minutes": 0}
            return scorer.add(open_scored_model(options[0]), facts)
        folder = trainer.train(name, [*common, *options])
        return scorer.add(open_encoder(str(folder)), facts | read_run_facts(folder))

    failed = []
    pool = ThreadPoolExecutor(arguments.jobs)
    try:
        running = {pool.submit(work, name, options): name for name, options in missing.items()}
        for job in progress(as_completed(running), total=len(running), desc="Variants", unit="run"):
            try:
                tqdm.write(json.dumps(job.result()))
            except (ValueError, OSError) as error:
                failed.append(running[job])
                tqdm.write(f"{running[job]} failed: {error}")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        trainer.stop()
        pool.shutdown()
    if failed:
        raise ValueError(f"{len(failed)} of {len(missing)} variants failed: {', '.join(failed)}.")


def score_models(arguments: ScoreModelsArguments):
    """Score models, a row of the table for each side and feature."""
    scorer = Scorer(arguments)
    scorer.load_images()
    for name in arguments.models:
        print(json.dumps(scorer.add(open_scored_model(name), {"model": name})))


def score_newest_checkpoint(scorer: Scorer, run: Path):
    """Score the newest checkpoint, unless that is done."""
    newest = CheckpointFolder(run / "checkpoints").newest()
    step = newest and read_state(newest)["step"]
    if newest is None or str(step) in {row["step"] for row in scorer.read_rows()}:
        return
    scorer.load_images()
    model = open_encoder(str(newest / "model"))  # Before a later checkpoint takes its place.
    images_seen = step * json.loads((run / "run.json").read_text())["images_per_step"]
    facts = {"time": datetime.now().isoformat(timespec="minutes"), "step": step, "images_seen": images_seen}
    print(json.dumps(scorer.add(model, facts)), flush=True)
    draw_learning_curve(scorer.read_rows()).save(scorer.path.with_suffix(".png"))


def follow_run(arguments: FollowArguments):
    """Score the newest checkpoint of a run, again and again unless once is enough.

    Raises:
        ValueError: If there is no such folder, or a corpus does not open.
    """
    run = Path(arguments.run)
    if not run.is_dir():
        raise ValueError(f"{run} is no folder of a run.")
    arguments.output = arguments.output or str(run / "scores.csv")
    scorer = Scorer(arguments)
    score_newest_checkpoint(scorer, run)
    while not arguments.once:
        time.sleep(60 * arguments.every_min)
        score_newest_checkpoint(scorer, run)
