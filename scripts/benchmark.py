"""Measure speed and memory, as ratios to a baseline in the same run:

python scripts/benchmark.py loss
python scripts/benchmark.py step --corpus path/to/corpus.parquet

Every benchmark prints a table and writes results.json. `benchmark.py data --help` lists the options of one.
"""

import argparse
import importlib
import sys

BENCHMARKS = {
    "loss": "the loss of the face contrast, compared with materialised negatives",
    "step": "a training iteration, compared with a plain one and with its convolutions alone",
    "data": "decoding and views, compared with a plain implementation",
    "embed": "features, compared with float32, ONNX and other networks; needs pip install modeling_pcl[benchmark]",
    "browser": "features in the static page; needs Chromium and pip install playwright",
    "probe": "a linear probe, compared with one that extracts features in every epoch",
    "scaling": "training in several processes, compared with one",
    "methods": "an iteration of PCL, compared with one of SimCLR",
    "crops": "face detection in scenes, and the effect of other crops; needs pip install modeling_pcl[align]",
}


def main():
    benchmark_list = "\n".join(f"  {name:8} {text}" for name, text in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nbenchmarks:\n{benchmark_list}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=BENCHMARKS, metavar="BENCHMARK", help=argparse.SUPPRESS)
    argv = sys.argv[1:]
    name = parser.parse_args(argv[:1]).benchmark
    try:
        importlib.import_module(f"benchmarks.{name}").run(argv[1:])
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
