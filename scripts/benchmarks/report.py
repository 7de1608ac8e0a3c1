"""Functions that all benchmarks share: paired timings, memory, and a runner that prints and writes tables."""

import importlib.metadata
import mmap
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from datasets import Dataset
from tabulate import tabulate
from tqdm import trange

from modeling_pcl.data.child_processes import available_cpus
from modeling_pcl.data.corpora import corpus_revision, load_corpus
from modeling_pcl.data.label_columns import names
from modeling_pcl.files import write_json
from modeling_pcl.options import Parser
from modeling_pcl.precision import has_fast_bfloat16
from modeling_pcl.training.record import describe_run

MIB = 2**20
ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")


def get_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_fast_dtype() -> torch.dtype:
    """Return the dtype in which `pcl` trains and encodes on the device that benchmarks use."""
    return torch.bfloat16 if has_fast_bfloat16(get_device().type) else torch.float32


def now() -> float:
    """Return the time in seconds, after all work on the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_seconds(work: Callable[[], object]) -> float:
    start = now()
    work()
    return now() - start


def median_seconds(work: Callable[[], object], times: int) -> float:
    """Compute the median seconds of `work`, after one call that is not counted."""
    work()
    return statistics.median(measure_seconds(work) for _ in range(times))


def summarise(name: str, values: Sequence[float]) -> dict[str, float]:
    """Summarise repeated measurements as columns of a table: their median as `name`, `least` and `most`."""
    return {name: statistics.median(values), "least": min(values), "most": max(values)}


@dataclass(frozen=True)
class Timings:
    """Timings of two functions that were called in turn.

    Args:
        ours_s: Median seconds of the first function.
        baseline_s: Median seconds of the second function.
        ratios: Time of the second divided by the time of the first, for each pair of calls. Drifts in the speed of the
            machine affect both times of a pair and cancel out.
    """

    ours_s: float
    baseline_s: float
    ratios: Sequence[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def columns(self, name: str = "times as fast", factor: float = 1.0) -> dict[str, float]:
        """Summarise the ratios, multiplied by a factor if the second function does another amount of work."""
        return summarise(name, [factor * ratio for ratio in self.ratios])


def time_pairs(ours: Callable[[], object], baseline: Callable[[], object], pairs: int) -> Timings:
    """Time two functions in turn, after one call of each that is not counted."""
    ours(), baseline()
    turns = trange(pairs, desc="Pairs", unit="pair", leave=False, delay=5)
    timed = [(measure_seconds(ours), measure_seconds(baseline)) for _ in turns]
    ratios = [baseline_s / ours_s for ours_s, baseline_s in timed]
    return Timings(*map(statistics.median, zip(*timed)), ratios)


def measure_peak_memory(prepare: Callable[..., Callable[[], object]], *arguments) -> dict[str, float]:
    """Measure the peak memory of a function in a new process.

    On a CPU this is resident memory as the system reports it, on a GPU the memory that torch has allocated.

    Args:
        prepare: Function of a module that returns the function to measure. It is called in the new process.
        arguments: Arguments of `prepare`, which must be picklable.

    Returns:
        `extra_mib`, the peak above the memory before the call, at least one page, and `total_mib`, the whole peak.

    Raises:
        OSError: If the process was killed, as the system does if memory runs out.
    """
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_measure_peak_memory, prepare, arguments).result()
    except BrokenProcessPool as error:
        raise OSError(
            f"The process that measured the memory of {arguments} was killed, probably because memory ran out: "
            "measure a smaller size."
        ) from error


def _measure_peak_memory(prepare: Callable, arguments: tuple) -> dict[str, float]:
    work = prepare(*arguments)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        peak = torch.cuda.max_memory_allocated()
    else:
        _reset_peak()
        before = psutil.Process().memory_info().rss
        work()
        peak = _read_peak_bytes()
    return {"extra_mib": max(peak - before, mmap.PAGESIZE) / MIB, "total_mib": peak / MIB}


def _reset_peak():
    """Reset the peak of this process on Linux. On other systems the peak is that of the whole life of the process."""
    counters = Path("/proc/self/clear_refs")
    if counters.exists():
        counters.write_text("5")


def _read_peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe_memory() -> str:
    return "allocated by torch on the GPU" if torch.cuda.is_available() else "resident, in a new process"


def find_allocator() -> str:
    """Return the memory allocator that was loaded with LD_PRELOAD, or `malloc` if there is none."""
    maps = Path("/proc/self/maps")
    loaded = maps.read_text() if maps.exists() else os.environ.get("DYLD_INSERT_LIBRARIES", "")
    return next((name for name in ALLOCATORS if name in loaded), "malloc")


def describe_machine() -> str:
    """Describe the machine in one line, with a hint in a second line if another allocator would be faster."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    description = f"{torch.get_num_threads()} threads, {available_cpus()} CPUs, allocator {find_allocator()}"
    if find_allocator() == "malloc":
        # glibc returns large activations to the kernel at every step; without that, a training step ran up to 6 times
        # faster.
        description += (
            "\nHint: with LD_PRELOAD=libjemalloc.so.2 MALLOC_CONF=dirty_decay_ms:30000,muzzy_decay_ms:30000 large "
            "tensors are not returned to the system and requested again at every step, which slows both sides down."
        )
    return description


def parse_integers(text: str) -> list[int]:
    """Parse integers separated by commas."""
    return [int(word) for word in text.split(",")]


def read_class_names(corpus: Dataset, column: str) -> list[str | None]:
    """Read the class of each row of a corpus; None for a row without one.

    Raises:
        ValueError: If the corpus has no such column.
    """
    if column not in corpus.column_names:
        raise ValueError(f"`--label_column` must be one of {', '.join(corpus.column_names)}, got {column}.")
    return names(corpus, column)


def parse(kind: type, name: str, argv: list[str]):
    """Parse the options of a benchmark into its dataclass `kind`."""
    (options,) = Parser(kind, prog=f"benchmark.py {name}", description=kind.__doc__).parse_args_into_dataclasses(argv)
    return options


def run(
    argv: list[str],
    name: str,
    kind: type,
    parts: Mapping[str, Callable],
    prepare: Callable,
    packages: Sequence[str] = (),
):
    """Run the selected parts of a benchmark, print the tables of each part, and write `results.json` after each.

    Args:
        argv: Arguments of the command line.
        name: Name of the benchmark on the command line.
        kind: Dataclass of the options: `output_dir`, and `corpus` and `parts` if the benchmark has them.
        parts: Functions by name, which take the result of `prepare` and the options, and return tables: title and rows
            by name.
        prepare: Function that takes the corpus (or None) and the options, checks the options, prints what is measured,
            and returns the subject of the measurements.
        packages: Packages whose versions are recorded too.

    Raises:
        ValueError: If there is no such part, or an option is not valid.
    """
    options = parse(kind, name, argv)
    selected = options.parts.split(",") if hasattr(options, "parts") else list(parts)
    unknown = set(selected) - set(parts)
    if unknown:
        raise ValueError(f"`--parts` must be some of {', '.join(parts)}, got {', '.join(sorted(unknown))}.")
    corpus = load_corpus(options.corpus) if getattr(options, "corpus", None) else None
    subject = prepare(corpus, options)
    results = {}
    for part in selected:
        for table, (title, rows) in parts[part](subject, options).items():
            results[table] = rows
            print(f"\n{title}\n{tabulate(rows, headers='keys', floatfmt='.4g')}", flush=True)
        revision = None if corpus is None else corpus_revision(corpus)
        record = describe_run(vars(options), revision)
        record["versions"] |= {package: importlib.metadata.version(package) for package in packages}
        record["machine"] |= {"cpus": available_cpus(), "allocator": find_allocator()}
        write_json(Path(options.output_dir) / "results.json", record | {"results": results})
    print(f"\nWritten to {options.output_dir}/results.json")
