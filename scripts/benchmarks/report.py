"""What every benchmark shares: paired timings, memory, and its figures as a table and as JSON."""

import importlib.metadata
import mmap
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import torch
from tabulate import tabulate
from tqdm import trange

from modeling_pcl.files import write_json
from modeling_pcl.options import Parser
from modeling_pcl.training.record import describe_run

MIB = 2**20
ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def now() -> float:
    """Seconds, when all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work: Callable[[], object]) -> float:
    start = now()
    work()
    return now() - start


def median_seconds(work: Callable[[], object], times: int) -> float:
    """After one run that does not count."""
    work()
    return statistics.median(seconds(work) for _ in range(times))


def paired(
    ours: Callable[[], object], baseline: Callable[[], object], pairs: int, warm_up: bool = True
) -> dict[str, float]:
    """Time two pieces of work in turn, after one run of each that does not count.

    Args:
        ours: Called with no arguments.
        baseline: Likewise.
        pairs: At least 1.
        warm_up: False leaves out the run that does not count.

    Returns:
        Median seconds of both, and the median, least and greatest of baseline over ours, pair by pair: where the
        machine's speed drifts, both drift.
    """
    if warm_up:
        ours(), baseline()
    turns = trange(pairs, desc="Pairs", unit="pair", leave=False, delay=5)
    timed = [(seconds(ours), seconds(baseline)) for _ in turns]
    ratios = [theirs / own for own, theirs in timed]
    own, theirs = (statistics.median(column) for column in zip(*timed))
    return {
        "ours_s": own,
        "baseline_s": theirs,
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def peak_memory(prepare: Callable[..., Callable[[], object]], *arguments) -> dict[str, float]:
    """Memory that a piece of work takes, in a new process of its own.

    On a CPU it is resident memory, read from the system; on a GPU what torch has allocated there.

    Args:
        prepare: From the arguments to the work, called in the new process; a function of a module.
        arguments: What can be sent there.

    Returns:
        `extra_mib`, the most that was held during the work above what was held before, at least a page, and
        `total_mib`, all of it.

    Raises:
        OSError: If the process was ended from outside, as the system does where memory runs out.
    """
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_peak_memory, prepare, arguments).result()
    except BrokenProcessPool as error:
        raise OSError(
            f"The process that measured the memory of {arguments} was ended from outside, as happens where memory runs "
            "out: measure a smaller size."
        ) from error


def _peak_memory(prepare: Callable, arguments: tuple) -> dict[str, float]:
    work = prepare(*arguments)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        peak = torch.cuda.max_memory_allocated()
    else:
        _forget_peak()
        before = psutil.Process().memory_info().rss
        work()
        peak = _peak_bytes()
    return {"extra_mib": max(peak - before, mmap.PAGESIZE) / MIB, "total_mib": peak / MIB}


def _forget_peak():
    """Linux counts the peak from now on; elsewhere it is that of the process's life."""
    counters = Path("/proc/self/clear_refs")
    if counters.exists():
        counters.write_text("5")


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_kind() -> str:
    return "allocated by torch on the GPU" if torch.cuda.is_available() else "resident, in a new process"


def allocator() -> str:
    """The memory allocator that was loaded before all else, `malloc` where none was."""
    maps = Path("/proc/self/maps")
    loaded = maps.read_text() if maps.exists() else os.environ.get("DYLD_INSERT_LIBRARIES", "")
    return next((name for name in ALLOCATORS if name in loaded), "malloc")


def describe_machine() -> str:
    """One line on what is measured on, and a second where another allocator would make a difference."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    described = f"{torch.get_num_threads()} threads, {cpus()} CPUs, allocator {allocator()}"
    if allocator() == "malloc":
        described += (
            "\nHint: with LD_PRELOAD=libjemalloc.so.2 MALLOC_CONF=dirty_decay_ms:30000,muzzy_decay_ms:30000 large "
            "tensors are not given back to the system and taken again at every step, which costs both sides time."
        )
    return described


def parse(kind: type, name: str, words: list[str]):
    """Parse the options of a benchmark, a dataclass."""
    (options,) = Parser(kind, prog=f"benchmark.py {name}", description=kind.__doc__).parse_args_into_dataclasses(words)
    return options


def check_parts(parts: str, known: Iterable[str]):
    """Refuse names of parts that there are not.

    Raises:
        ValueError: With those there are.
    """
    unknown = set(parts.split(",")) - set(known)
    if unknown:
        raise ValueError(f"`--parts` must be some of {', '.join(known)}, got {', '.join(sorted(unknown))}.")


def show(title: str, rows: Sequence[Mapping]):
    print(f"\n{title}\n{tabulate(rows, headers='keys', floatfmt='.4g')}", flush=True)


def save(output_dir: str, options: dict, data_revision: str | None, results: Mapping, packages: Sequence[str] = ()):
    """Write `results.json`, with command and versions, those of further packages too."""
    record = describe_run(options, data_revision)
    record["versions"] |= {name: importlib.metadata.version(name) for name in packages}
    record["machine"] |= {"cpus": cpus(), "allocator": allocator()}
    write_json(Path(output_dir) / "results.json", record | {"results": results})
