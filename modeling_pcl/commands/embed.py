"""Compute the features of many images or videos, and write them to files for other programs:

    pcl embed runs/mine --corpus path/to/images --output_dir features
    pcl embed runs/mine --corpus path/to/videos --every_s 0.5 --output_dir features
    pcl embed onnx/model_quantized.onnx --backend onnx --corpus faces.parquet --output_dir features

The faces should fill their images, as crops by a face detector do. The folder gets features-00000.parquet and so on,
with the columns of the corpus and `trunk`, `face` and `pose`, and embed.json, which lists rows that were left out
because their images cannot be decoded. After an interruption, the same command continues, and the files have the same
bytes.

datasets.load_dataset("parquet", data_files="features/*.parquet") and safetensors.torch.load_file open the results.
"""

from ..options import Parser
from ..probes.arguments import EmbeddingArguments
from .main import main


def parse(argv: list[str], prog: str) -> EmbeddingArguments:
    (arguments,) = Parser(EmbeddingArguments, prog=prog, description=__doc__).parse_args_into_dataclasses(argv)
    return arguments


def run(arguments: EmbeddingArguments) -> str:
    from ..probes.embedding import embed

    record = embed(arguments)
    shapes = ", ".join(f"{name} {rows} x {width}" for name, (rows, width) in record["shapes"].items())
    broken = f"; {len(record['broken'])} broken, see embed.json" if record["broken"] else ""
    return f"{arguments.output_dir}: {shapes}; files: {len(record['files'])}{broken}"


if __name__ == "__main__":
    main("embed")
