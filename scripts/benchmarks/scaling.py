"""Training in several processes: images a second of an iteration of pretrain.py beside one process, and memory."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from tqdm import tqdm

from modeling_pcl.data.corpora import corpus_revision, load_corpus
from modeling_pcl.options import option
from modeling_pcl.training.options import parse_options
from modeling_pcl.training.run import Pretraining, train_step

from . import report


@dataclass
class ScalingBenchmark:
    """Which model, and how much work. The options of `pcl pretrain` that are not here keep their defaults."""

    corpus: str = option("orl", "Corpus, as for `pcl pretrain`.")
    processes: str | None = option(
        None, "Numbers of processes, with commas between them, beside 1; by default doubled up to the CPUs or GPUs."
    )
    width: float = option(0.25, "Width of the model; 1 is the published one.")
    image_size: int = option(64, "Side of the images, in px.")
    batch_size: int = option(128, "Images of one process; on CPUs, which processes share, of all together.")
    pose_images: int = option(8, "Images of the pose contrast among them, shared out in the same way.")
    pose_negatives_per_image: int = option(100, "Views of the mirror of each.")
    mixed_precision: str = option("bf16", "As for `pcl pretrain`.")
    fsdp: bool = option(False, "Shards instead of DDP where there are several processes.")
    iterations: int = option(4, "Iterations to time, after two that do not count.")
    pairs: int = option(2, "Times that each number of processes is started, in turn; medians are taken.")
    output_dir: str = option("runs/benchmark-scaling", "Folder for results.json.")


def run(arguments: list[str]):
    options = report.parse(ScalingBenchmark, "scaling", arguments)
    counts = process_counts(options.processes)
    plans = {count: flags(options, count) for count in counts}
    corpus = load_corpus(options.corpus)
    print(
        f"{options.batch_size} images of {options.corpus}, width {options.width}, {report.cpus()} CPUs, {gpus()} GPUs"
    )
    timed = {count: [] for count in counts}
    with tqdm(total=options.pairs * len(counts), unit="start", leave=False) as bar:
        for _ in range(options.pairs):
            for count, plan in plans.items():
                timed[count].append(start(count, plan, options.iterations))
                bar.update()
    rows = [row(count, timed) for count in counts]
    report.show(f"Iterations of pretrain.py, {'FSDP2' if options.fsdp else 'DDP'}", rows)
    results = {"scaling": rows}
    report.save(options.output_dir, vars(options), corpus_revision(corpus), results)
    print(f"\nWritten to {options.output_dir}/results.json")


def gpus() -> int:
    return torch.cuda.device_count()


def process_counts(named: str | None) -> list[int]:
    """1 and the numbers asked for, or 1, 2, 4, ... up to what the machine has."""
    most = gpus() or report.cpus()
    counts = [2**power for power in range(most.bit_length())] if named is None else [*map(int, named.split(","))]
    if min(counts) < 1:
        raise ValueError(f"`--processes` must be at least 1 each, got {named}.")
    return sorted({1, *counts})


def flags(options: ScalingBenchmark, count: int) -> list[str]:
    """What each of `count` processes of `pcl pretrain` is asked for."""
    parts = 1 if gpus() else count
    shared = {"batch_size": options.batch_size, "pose_images": options.pose_images}
    for name, images in shared.items():
        if images % parts:
            raise ValueError(f"`--{name}` must be a multiple of every number of processes, got {images} for {count}.")
    values = {name: images // parts for name, images in shared.items()}
    names = ("corpus", "width", "image_size", "pose_negatives_per_image", "mixed_precision", "fsdp")
    values |= {name: getattr(options, name) for name in names}
    values |= {"subject_sampling": "off", "report_to": "none", "steps": options.iterations + 2, "picture_steps": 0}
    return [f"--{name}={value}" for name, value in values.items()]


def start(count: int, plan: list[str], iterations: int) -> dict:
    """Time iterations in new processes: what process 0 measured, and the memory of the one that holds most."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"] if count > 1 else []
        command = [sys.executable, *launcher, "-m", __name__, str(iterations), *plan, f"--output_dir={folder}"]
        scripts = str(Path(__file__).parents[1])
        environment = os.environ | {
            "OMP_NUM_THREADS": str(max(1, report.cpus() // count)),
            "PYTHONPATH": os.pathsep.join([scripts, *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"{count} processes did not come to an end:\n{done.stderr[-2000:]}")
        return json.loads((Path(folder) / "timed.json").read_text())


def row(count: int, timed: Mapping[int, list[dict]]) -> dict:
    """One line of the table; ratios are of starts that followed one another."""
    rates = {number: [timing["images_per_s"] for timing in starts] for number, starts in timed.items()}
    ratios = [ours / single for ours, single in zip(rates[count], rates[1])]
    return {
        "processes": count,
        "images/s": statistics.median(rates[count]),
        "to one process": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "memory of a process, MB": statistics.median(timing["memory_mb"] for timing in timed[count]),
    }


def measure():
    """In each process: iterations of `pcl pretrain`, and in the main one `timed.json`."""
    iterations, *plan = sys.argv[1:]
    run = Pretraining(parse_options(plan))
    batches, seconds = iter(run.loader), []
    for _ in range(int(iterations) + 2):
        begin = report.now()
        train_step(run, run.read_batches(batches))
        run.accelerator.wait_for_everyone()
        seconds.append(report.now() - begin)
    images = run.options.training.batch_size * run.accelerator.num_processes
    memory = run.accelerator.gather(torch.tensor([memory_mb()], device=run.accelerator.device)).max().item()
    if run.accelerator.is_main_process:
        timed = {"images_per_s": images / statistics.median(seconds[2:]), "memory_mb": memory}
        (run.output_dir / "timed.json").write_text(json.dumps(timed))
    run.accelerator.end_training()


def memory_mb() -> float:
    """Most that the GPU held, or what this process holds for itself."""
    used = torch.cuda.max_memory_allocated() if gpus() else psutil.Process().memory_full_info().uss
    return used / report.MIB


if __name__ == "__main__":
    measure()
