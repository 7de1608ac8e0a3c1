"""Write a model as ONNX files, for onnxruntime and browsers, each checked against torch before it is kept:

python scripts/export_onnx.py runs/mine runs/mine/onnx --int8

OUTPUT_DIR gets model.onnx; with `--int8` model_quantized.onnx, a quarter as large; of a pre-training model
decoder_model.onnx, which draws a face in a pose; and export.json, with how far the files are from torch.
"""

import argparse
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path

from probing.encoder import open_model
from tabulate import tabulate
from transformers import HfArgumentParser
from transformers.utils.logging import disable_progress_bar

from modeling_pcl import PCLForPreTraining
from modeling_pcl.hub.onnx_export import export_decoder, export_onnx, quantise_onnx
from modeling_pcl.training.arguments import option


@dataclass
class ExportArguments:
    """What to write beside the model."""

    int8: bool = option(
        False,
        "Also write model_quantized.onnx: 8-bit weights, and inputs of convolutions quantised to 8 bits as they come.",
    )


def export(name: str, folder: Path, int8: bool) -> dict[str, dict[str, float]]:
    """Write all files; for each its differences from torch, or of `model_quantized.onnx` its errors, by output.

    Raises:
        ValueError, OSError: If the model does not open, a file would differ from torch, or it cannot be written.
    """
    model = open_model(name)
    files = {"model.onnx": export_onnx(model, folder / "model.onnx")}
    if isinstance(model, PCLForPreTraining):
        files["decoder_model.onnx"] = export_decoder(model, folder / "decoder_model.onnx")
    if int8:
        files["model_quantized.onnx"] = quantise_onnx(folder / "model.onnx", folder / "model_quantized.onnx")
    record = {
        "model": name,
        "class": type(model).__name__,
        "image_size": model.config.image_size,
        "versions": {package: importlib.metadata.version(package) for package in ("torch", "onnx", "onnxruntime")},
        "files": {file: {_measure(file): by_output} for file, by_output in files.items()},
    }
    (folder / "export.json").write_text(json.dumps(record, indent=2) + "\n")
    return files


def _measure(file: str) -> str:
    return "relative_error" if file == "model_quantized.onnx" else "largest_difference"


def as_table(files: dict[str, dict[str, float]], folder: Path) -> str:
    rows = [
        [file, f"{(folder / file).stat().st_size / 2**20:.1f}", output, f"{number:.1e}", _measure(file)]
        for file, by_output in files.items()
        for output, number in by_output.items()
    ]
    return tabulate(rows, ["file", "MiB", "output", "from torch", "as"], disable_numparse=True)


def main():
    parser = HfArgumentParser(
        ExportArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="Folder or Hub id of a PCL model of any class.")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="Folder of the ONNX files; made.")
    arguments, places = parser.parse_args_into_dataclasses()
    disable_progress_bar()  # transformers' own, for the weights
    try:
        files = export(places.model, places.output_dir, arguments.int8)
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")
    print(as_table(files, places.output_dir))


if __name__ == "__main__":
    main()
