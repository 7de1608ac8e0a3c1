"""Export a model to ONNX files for onnxruntime and browsers, and check that they compute the same as torch:

    pcl export runs/mine --output_dir runs/mine/onnx --int8

The folder gets model.onnx; with `--int8` model_quantized.onnx, a quarter of the size; for a pre-training model
decoder_model.onnx, which draws a face in a pose; with `--face_detector` face_detector.onnx; and export.json with the
differences from torch.
"""

from dataclasses import dataclass
from pathlib import Path

from ..options import Parser, option, positional, required
from .main import main


@dataclass
class ExportArguments:
    """The files to write."""

    model: str = positional("Folder or Hub id of a PCL model of any class.", "MODEL")
    output_dir: Path = required("Folder for the ONNX files; created if it does not exist.")
    int8: bool = option(
        False,
        "Also write model_quantized.onnx, with 8-bit weights and dynamic 8-bit quantisation of convolution inputs.",
    )
    face_detector: bool = option(
        False, "Also write face_detector.onnx (7 MB), which the static page needs to find faces."
    )


def parse(argv: list[str], prog: str) -> ExportArguments:
    (arguments,) = Parser(ExportArguments, prog=prog, description=__doc__).parse_args_into_dataclasses(argv)
    return arguments


def run(arguments: ExportArguments) -> str:
    from tabulate import tabulate

    from ..detection_pcl import save_detector
    from ..hub.onnx_export import export_files, name_export_measure

    if arguments.face_detector:
        save_detector(arguments.output_dir / "face_detector.onnx")
    files, folder = export_files(arguments.model, arguments.output_dir, arguments.int8), arguments.output_dir
    rows = [
        [file, f"{(folder / file).stat().st_size / 2**20:.1f}", output, f"{number:.1e}", name_export_measure(file)]
        for file, by_output in files.items()
        for output, number in by_output.items()
    ]
    return tabulate(rows, ["file", "MiB", "output", "from torch", "as"], disable_numparse=True)


if __name__ == "__main__":
    main("export")
