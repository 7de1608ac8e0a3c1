"""What every benchmark shares: paired timings, memory, and a runner that shows and writes the tables of its parts."""

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

from modeling_pcl.data.corpora import corpus_revision, load_corpus
from modeling_pcl.data.label_columns import names
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


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """The columns of a table for values that were measured several times: their median as `name`, least and most."""
    return {name: statistics.median(values), "least": min(values), "most": max(values)}


@dataclass(frozen=True)
class Timings:
    """Two pieces of work that took turns.

    Args:
        ours_s: Median seconds of the one.
        baseline_s: Of the other.
        ratios: The other's over the one's, pair by pair: where the machine's speed drifts, both drift.
    """

    ours_s: float
    baseline_s: float
    ratios: Sequence[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def columns(self, name: str = "times as fast", factor: float = 1.0) -> dict[str, float]:
        """The ratios as `spread`, multiplied by a factor where the other piece was of another amount of work."""
        return spread(name, [factor * ratio for ratio in self.ratios])


def paired(ours: Callable[[], object], baseline: Callable[[], object], pairs: int) -> Timings:
    """Time two pieces of work in turn, at least one pair, after one run of each that does not count."""
    ours(), baseline()
    turns = trange(pairs, desc="Pairs", unit="pair", leave=False, delay=5)
    timed = [(seconds(ours), seconds(baseline)) for _ in turns]
    ratios = [baseline_s / ours_s for ours_s, baseline_s in timed]
    return Timings(*map(statistics.median, zip(*timed)), ratios)


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


def integers(words: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [int(word) for word in words.split(",")]


def class_names(corpus: Dataset, column: str) -> list[str | None]:
    """The classes of a corpus's rows, None where a row has none.

    Raises:
        ValueError: If there is no such column.
    """
    if column not in corpus.column_names:
        raise ValueError(f"`--label_column` must be one of {', '.join(corpus.column_names)}, got {column}.")
    return names(corpus, column)


def parse(kind: type, name: str, words: list[str]):
    """Parse the options of a benchmark, a dataclass."""
    (options,) = Parser(kind, prog=f"benchmark.py {name}", description=kind.__doc__).parse_args_into_dataclasses(words)
    return options


def run(
    words: list[str],
    name: str,
    kind: type,
    parts: Mapping[str, Callable],
    prepare: Callable,
    packages: Sequence[str] = (),
):
    """Run the parts of a benchmark that are asked for: show each one's tables, and write `results.json` after each.

    Args:
        words: Its options, as they are typed.
        name: As it is typed.
        kind: Dataclass of its options: `output_dir`; `corpus` if it reads one, `parts` if it can be run in parts.
        parts: By name, from what `prepare` returns and the options to the tables: title and rows by name.
        prepare: From the corpus, None where there is none, and the options to what the parts measure, once it has
            checked the options and printed what is measured.
        packages: Whose versions are written beside those of every run.

    Raises:
        ValueError: If there is no such part, or an option is not as it must be.
    """
    options = parse(kind, name, words)
    chosen = options.parts.split(",") if hasattr(options, "parts") else list(parts)
    unknown = set(chosen) - set(parts)
    if unknown:
        raise ValueError(f"`--parts` must be some of {', '.join(parts)}, got {', '.join(sorted(unknown))}.")
    corpus = load_corpus(options.corpus) if getattr(options, "corpus", None) else None
    measured = prepare(corpus, options)
    results = {}
    for part in chosen:
        for table, (title, rows) in parts[part](measured, options).items():
            results[table] = rows
            print(f"\n{title}\n{tabulate(rows, headers='keys', floatfmt='.4g')}", flush=True)
        revision = None if corpus is None else corpus_revision(corpus)
        record = describe_run(vars(options), revision)
        record["versions"] |= {package: importlib.metadata.version(package) for package in packages}
        record["machine"] |= {"cpus": cpus(), "allocator": allocator()}
        write_json(Path(options.output_dir) / "results.json", record | {"results": results})
    print(f"\nWritten to {options.output_dir}/results.json")
