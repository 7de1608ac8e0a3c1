"""What every benchmark shares: paired timings, and its figures as a table, as JSON and as a picture."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from tabulate import tabulate

from modeling_pcl.training.record import describe_run


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def paired(ours: Callable[[], object], baseline: Callable[[], object], pairs: int) -> dict[str, float]:
    """Time two pieces of work in turn, after one run of each that does not count.

    Returns:
        Median seconds of both, and the median, least and greatest of baseline over ours, pair by pair: where the
        machine's speed drifts, both drift.
    """
    ours(), baseline()
    timed = [(seconds(ours), seconds(baseline)) for _ in range(pairs)]
    ratios = [theirs / own for own, theirs in timed]
    own, theirs = (statistics.median(column) for column in zip(*timed))
    return {
        "ours_s": own,
        "baseline_s": theirs,
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def show(title: str, rows: Sequence[Mapping]):
    print(f"\n{title}\n{tabulate(rows, headers='keys', floatfmt='.4g')}", flush=True)


def save(output_dir: Path, options: dict, data_revision: str, results: Mapping, draw: Callable[[Figure], None]):
    """`results.json`, with command and versions, and `results.png`."""
    output_dir.mkdir(parents=True, exist_ok=True)
    record = describe_run(options, data_revision) | {"results": results}
    (output_dir / "results.json").write_text(json.dumps(record, indent=2) + "\n")
    figure = Figure((13, 4), dpi=100, layout="constrained")
    draw(figure)
    figure.savefig(output_dir / "results.png")
