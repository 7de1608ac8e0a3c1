"""Measure speed and memory, each figure as a ratio within one run:

python scripts/benchmark.py loss
python scripts/benchmark.py step --corpus path/to/corpus.parquet

Every benchmark prints a table and writes results.json. `benchmark.py data --help` lists the options of one.
"""

import argparse
import importlib
import sys

BENCHMARKS = {
    "loss": "the face contrast's loss beside negatives that are written out",
    "step": "a training iteration beside a plain one, and beside its convolutions alone",
    "data": "decoding and views beside a plain way",
    "embed": "features beside float32, ONNX and other networks; needs pip install modeling_pcl[benchmark]",
    "browser": "features in the static page; needs Chromium and pip install playwright",
    "probe": "a linear probe beside one that extracts features in every epoch",
    "scaling": "several processes beside one",
    "methods": "an iteration of PCL beside one of SimCLR",
    "crops": "faces found in scenes, and what features lose by another crop; needs pip install modeling_pcl[align]",
}


def main():
    listed = "\n".join(f"  {name:8} {text}" for name, text in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nbenchmarks:\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=BENCHMARKS, metavar="BENCHMARK", help=argparse.SUPPRESS)
    words = sys.argv[1:]
    chosen = parser.parse_args(words[:1]).benchmark
    try:
        importlib.import_module(f"benchmarks.{chosen}").run(words[1:])
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
