"""Speed and memory of training in several processes, compared with one process."""

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
from .iterations import Iteration, build_flags


@dataclass
class ScalingBenchmark:
    """The model, and the amount of work. Other options of `pcl pretrain` keep their defaults."""

    corpus: str = option("orl", "Corpus, as for `pcl pretrain`.")
    processes: str | None = option(
        None,
        "Numbers of processes to compare with 1, separated by commas; by default 2, 4, ... up to the number of CPUs or "
        "GPUs.",
    )
    width: float = option(0.25, "Width of the model; 1 is the published one.")
    image_size: int = option(64, "Side of the images, in px.")
    batch_size: int = option(
        128, "Images per process on GPUs; on CPUs, which the processes share, images of all processes together."
    )
    pose_images: int = option(8, "Images of the pose contrast among them, divided in the same way.")
    pose_negatives_per_image: int = option(100, "Views of the mirror of each image of the pose contrast.")
    mixed_precision: str | None = option(None, "As for `pcl pretrain`.")
    fsdp: bool = option(False, "Use FSDP2 instead of DDP if there are several processes.")
    iterations: int = option(4, "Iterations to time, after two that are not counted.")
    pairs: int = option(2, "Number of starts for each number of processes, in turn; medians are reported.")
    output_dir: str = option("runs/benchmark-scaling", "Folder for results.json.")


def plan_processes(corpus: Dataset, options: ScalingBenchmark) -> dict[int, list[str]]:
    """Plan the options of `pcl pretrain` for each number of processes."""
    plans = {count: build_process_flags(options, count) for count in list_process_counts(options.processes)}
    images = f"{options.batch_size} images of {options.corpus}"
    print(f"{images}, width {options.width}, {report.available_cpus()} CPUs, {count_gpus()} GPUs")
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
        # Ratios of consecutive starts, so that drifts in the speed of the machine cancel out.
        row |= report.summarise("to one process", [rate / baseline for rate, baseline in zip(rates, single)])
        memory = statistics.median(timing["memory_mb"] for timing in timings)
        rows.append(row | {"memory of a process, MB": memory})
    return {"scaling": (f"Iterations of pretrain.py, {'FSDP2' if options.fsdp else 'DDP'}", rows)}


def count_gpus() -> int:
    return torch.cuda.device_count()


def list_process_counts(text: str | None) -> list[int]:
    """Return 1 and the given numbers of processes, by default 1, 2, 4, ... up to the number of GPUs or CPUs."""
    most = count_gpus() or report.available_cpus()
    counts = [2**power for power in range(most.bit_length())] if text is None else report.parse_integers(text)
    if min(counts) < 1:
        raise ValueError(f"`--processes` must be at least 1 each, got {text}.")
    return sorted({1, *counts})


def build_process_flags(options: ScalingBenchmark, count: int) -> list[str]:
    """Build the command line of each of `count` processes of `pcl pretrain`."""
    parts = 1 if count_gpus() else count
    shares = {}
    for name in ("batch_size", "pose_images"):
        images = getattr(options, name)
        if images % parts:
            raise ValueError(f"`--{name}` must be a multiple of every number of processes, got {images} for {count}.")
        shares[name] = images // parts
    return build_flags(options, **shares, steps=options.iterations + 2, picture_steps=0)


def start(count: int, plan: list[str], iterations: int) -> dict:
    """Time iterations in new processes. Returns the speed, and the memory of the process that uses the most."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"] if count > 1 else []
        command = [sys.executable, *launcher, "-m", __name__, str(iterations), *plan, f"--output_dir={folder}"]
        scripts = str(Path(__file__).parents[1])
        environment = os.environ | {
            "OMP_NUM_THREADS": str(max(1, report.available_cpus() // count)),
            "PYTHONPATH": os.pathsep.join([scripts, *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"{count} processes did not come to an end:\n{done.stderr[-2000:]}")
        return json.loads((Path(folder) / "timed.json").read_text())


def measure():
    """Time iterations of `pcl pretrain` in each process, and write `timed.json` in the main process."""
    iterations, *plan = sys.argv[1:]
    iteration = Iteration(plan)
    run, seconds = iteration.run, []
    for _ in range(int(iterations) + 2):
        begin = report.now()
        iteration()
        run.accelerator.wait_for_everyone()
        seconds.append(report.now() - begin)
    images = run.options.training.batch_size * run.accelerator.num_processes
    memory = run.accelerator.gather(torch.tensor([measure_memory_mb()], device=run.accelerator.device)).max().item()
    if run.accelerator.is_main_process:
        timed = {"images_per_s": images / statistics.median(seconds[2:]), "memory_mb": memory}
        (run.output_dir / "timed.json").write_text(json.dumps(timed))
    run.accelerator.end_training()


def measure_memory_mb() -> float:
    """Measure the peak memory on the GPU, or the unshared memory of this process on a CPU."""
    used = torch.cuda.max_memory_allocated() if count_gpus() else psutil.Process().memory_full_info().uss
    return used / report.MIB


run = partial(
    report.run, name="scaling", kind=ScalingBenchmark, parts={"scaling": measure_scaling}, prepare=plan_processes
)

if __name__ == "__main__":
    measure()
