"""Measure speed and memory, each figure as a ratio within one run:

python scripts/benchmark.py loss
python scripts/benchmark.py step --corpus path/to/corpus.parquet
python scripts/benchmark.py data --corpus path/to/corpus.parquet
python scripts/benchmark.py embed
python scripts/benchmark.py probe --corpus path/to/corpus.parquet
python scripts/benchmark.py scaling --corpus path/to/corpus.parquet
python scripts/benchmark.py methods --corpus path/to/corpus.parquet

Every benchmark prints a table, and writes results.json and results.png. `benchmark.py data --help` lists its options.
"""

import argparse

from benchmarks import data, embed, loss, methods, probe, scaling, step
from transformers.utils.logging import disable_progress_bar

BENCHMARKS = {
    "loss": loss,
    "step": step,
    "data": data,
    "embed": embed,
    "probe": probe,
    "scaling": scaling,
    "methods": methods,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, module in BENCHMARKS.items():
        benchmarks.add_parser(name, help=module.__doc__, add_help=False)  # Each shows its own.
    chosen, rest = parser.parse_known_args()
    disable_progress_bar()  # transformers' own, for the weights
    try:
        BENCHMARKS[chosen.benchmark].run(rest)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
