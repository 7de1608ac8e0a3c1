"""Training in several processes: images a second of an iteration of pretrain.py beside one process, and memory."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import torch
from datasets import Dataset
from tqdm import tqdm

from modeling_pcl.options import option

from . import report
from .iterations import Iteration, training_flags


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


def plan_processes(corpus: Dataset, options: ScalingBenchmark) -> dict[int, list[str]]:
    """By number of processes, the options of `pcl pretrain` of each."""
    plans = {count: process_flags(options, count) for count in process_counts(options.processes)}
    images = f"{options.batch_size} images of {options.corpus}"
    print(f"{images}, width {options.width}, {report.cpus()} CPUs, {gpus()} GPUs")
    return plans


def measure_scaling(plans: dict[int, list[str]], options: ScalingBenchmark) -> dict:
    timed = {count: [] for count in plans}
    with tqdm(total=options.pairs * len(plans), unit="start", leave=False) as bar:
        for _ in range(options.pairs):
            for count, plan in plans.items():
                timed[count].append(start(count, plan, options.iterations))
                bar.update()
    single = [timing["images_per_s"] for timing in timed[1]]
    rows = []
    for count, timings in timed.items():
        rates = [timing["images_per_s"] for timing in timings]
        row = {"processes": count, "images/s": statistics.median(rates)}
        # Ratios are of starts that followed one another.
        row |= report.spread("to one process", [rate / beside for rate, beside in zip(rates, single)])
        memory = statistics.median(timing["memory_mb"] for timing in timings)
        rows.append(row | {"memory of a process, MB": memory})
    return {"scaling": (f"Iterations of pretrain.py, {'FSDP2' if options.fsdp else 'DDP'}", rows)}


def gpus() -> int:
    return torch.cuda.device_count()


def process_counts(named: str | None) -> list[int]:
    """1 and the numbers asked for, or 1, 2, 4, ... up to what the machine has."""
    most = gpus() or report.cpus()
    counts = [2**power for power in range(most.bit_length())] if named is None else report.integers(named)
    if min(counts) < 1:
        raise ValueError(f"`--processes` must be at least 1 each, got {named}.")
    return sorted({1, *counts})


def process_flags(options: ScalingBenchmark, count: int) -> list[str]:
    """What each of `count` processes of `pcl pretrain` is asked for."""
    parts = 1 if gpus() else count
    shares = {}
    for name in ("batch_size", "pose_images"):
        images = getattr(options, name)
        if images % parts:
            raise ValueError(f"`--{name}` must be a multiple of every number of processes, got {images} for {count}.")
        shares[name] = images // parts
    return training_flags(options, **shares, steps=options.iterations + 2, picture_steps=0)


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


def measure():
    """In each process: iterations of `pcl pretrain`, and in the main one `timed.json`."""
    iterations, *plan = sys.argv[1:]
    iteration = Iteration(plan)
    run, seconds = iteration.run, []
    for _ in range(int(iterations) + 2):
        begin = report.now()
        iteration()
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


run = partial(
    report.run, name="scaling", kind=ScalingBenchmark, parts={"scaling": measure_scaling}, prepare=plan_processes
)

if __name__ == "__main__":
    measure()
