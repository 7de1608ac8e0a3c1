"""Export of PCL models to ONNX, with a comparison against torch, and quantisation to 8 bits.

    export_onnx(model, "onnx/model.onnx")
    quantise_onnx("onnx/model.onnx", "onnx/model_quantized.onnx")
    features = OnnxEncoder("onnx/model_quantized.onnx")(images)

transformers.js expects these file names, for `dtype: "fp32"` and `dtype: "q8"`.
"""

import copy
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import Dim

from ..configuration_pcl import SMALLEST_PX
from ..features_pcl import FEATURES, read_feature
from ..files import replacing, use_scratch_folder, write_json
from ..modeling_pcl import PCLForPreTraining, PCLModel, PCLPreTrainedModel
from .models import open_model
from .onnx_encoder import DYNAMIC_INT8, open_session, read_image_size

try:
    import onnx
    import onnxruntime
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata
except ImportError as error:
    raise ImportError("ONNX files need more packages: `pip install modeling_pcl[onnx]`.") from error

OPSET = 18  # The oldest opset that torch exports without conversion; onnxruntime runs it since 1.14, also in browsers.
TOLERANCE = 1e-4  # Largest accepted difference from torch, relative to the largest value of the output if above 1.
CHECKED_SHAPES = ((1, 32, 32), (3, 64, 64), (2, 100, 100), (1, 97, 131))  # Batch, height, width.
MAPS = ("last_hidden_state", *FEATURES.values())


def export_onnx(model: PCLPreTrainedModel, path: str | Path) -> dict[str, float]:
    """Export a model for inference, and check that onnxruntime computes the same outputs as torch.

    The input is `pixel_values`, `(batch, num_channels, height, width)` float32 in [0, 1]. The outputs are
    `last_hidden_state`, `pooler_output`, `face_features` and `pose_features` of `PCLModel`, and `logits` if the model
    has a head. Batch, height and width are dynamic, from 32 px; a model with a head accepts only its `image_size`.

    Args:
        model: Any PCL model, on any device and in any dtype; it is not changed. Of a pre-training model, only the
            encoder is exported.
        path: The file.

    Returns:
        Largest absolute difference from torch for each output, over random images of several batch and image sizes.

    Raises:
        ValueError: If an output differs from torch by more than 1e-4, or by more than 1e-4 of its largest value if that
            is above 1. Then no file is written.
    """
    encoder = _Encoder(_copy_to_cpu(model)).eval()
    config, head = model.config, encoder.head
    # The sides differ and are not multiples of 16, so that the exporter specialises neither of them.
    example = torch.zeros(2, config.num_channels, *((config.image_size,) * 2 if head else (70, 90)))
    dynamic = {0: Dim("batch")}
    if head is None:
        dynamic |= {2: Dim("height", min=SMALLEST_PX), 3: Dim("width", min=SMALLEST_PX)}
    outputs = (*MAPS, "logits") if head else MAPS
    exported = _export(encoder, {"pixel_values": example}, (dynamic,), outputs, config.image_size)
    shapes = [(batch, config.image_size, config.image_size) for batch in (1, 3)] if head else CHECKED_SHAPES
    generator = torch.Generator().manual_seed(0)
    batches = [
        {"pixel_values": torch.rand((batch, config.num_channels, *sides), generator=generator)}
        for batch, *sides in shapes
    ]
    return _write_checked(exported, encoder, batches, Path(path))


def export_decoder(model: PCLForPreTraining, path: str | Path) -> dict[str, float]:
    """Export `model.decode`, and check that onnxruntime computes the same images as torch.

    The inputs are `face_features` and `pose_features`, `(batch, feature_size)`, the output is `images`,
    `(batch, num_channels, drawn_size, drawn_size)`. The batch is dynamic.

    Args:
        model: A model on any device and in any dtype; it is not changed.
        path: The file.

    Returns:
        As for `export_onnx`.

    Raises:
        ValueError: As for `export_onnx`.
    """
    decoder, names = _Decoder(_copy_to_cpu(model)).eval(), ("face_features", "pose_features")
    generator = torch.Generator().manual_seed(0)
    batches = [
        {name: torch.randn(batch, model.config.feature_size, generator=generator) for name in names}
        for batch in (2, 1, 3)
    ]
    dynamic = ({0: Dim("batch")}, {0: Dim.AUTO})  # The exporter infers that the second batch equals the first.
    exported = _export(decoder, batches[0], dynamic, ("images",), model.config.image_size)
    return _write_checked(exported, decoder, batches, Path(path))


def quantise_onnx(path: str | Path, quantised_path: str | Path) -> dict[str, float]:
    """Write a copy of an exported model with 8-bit convolutions, a quarter of the size.

    The weights get one scale per output channel, and the inputs of the convolutions are quantised dynamically.

    Args:
        path: File that `export_onnx` wrote.
        quantised_path: The new file.

    Returns:
        Relative error of each output on random images: the norm of its difference from the output of `path`, divided by
        the norm of that output.

    Raises:
        ValueError: If `export_onnx` did not write `path`.
        OSError: If `path` cannot be read.
    """
    content = Path(path).read_bytes()
    session = open_session(content, None, str(path))
    image_size = read_image_size(session, str(path))
    model = onnx.load_from_string(content)
    # A file of 0.7 MB instead of 2.5 MB, with which probes lose at most 0.006 of accuracy (hub_cards/results.md).
    # onnxruntime quantises the weights of a convolution with one scale. With all channels scaled to a largest weight of
    # 1 first, that one scale fits all of them, and multiplying it by their factors gives one scale per channel.
    scales = _equalise_channels(model)
    add_pre_process_metadata(model)  # Avoids a warning; the export has already done what it asks for.
    target = Path(quantised_path)
    with use_scratch_folder(target.with_name(f".{target.name}-scratch")) as folder:  # For onnxruntime's files too.
        # Unsigned weights: onnxruntime's CPU provider takes three times as long with signed ones.
        quantize_dynamic(model, f"{folder}/model.onnx", op_types_to_quantize=["Conv"], weight_type=QuantType.QUInt8)
        quantised = onnx.load(f"{folder}/model.onnx")
    for constant in quantised.graph.initializer:
        if constant.name in scales:
            _set_values(constant, numpy_helper.to_array(constant) * scales[constant.name])
    onnx.helper.set_model_props(quantised, {"image_size": str(image_size), "quantisation": DYNAMIC_INT8})
    quantised_content = quantised.SerializeToString()
    errors = _compute_relative_errors(session, open_session(quantised_content, None, str(quantised_path)), image_size)
    with replacing(Path(quantised_path)) as unfinished:
        unfinished.write_bytes(quantised_content)
    return errors


def export_files(name: str, folder: Path, int8: bool, recorded_name: str | None = None) -> dict[str, dict[str, float]]:
    """Export all files of a model, and write `export.json` with their differences from torch.

    Args:
        name: Folder or Hub id of any PCL model.
        folder: Output folder: gets `model.onnx`, and `decoder_model.onnx` if it is a pre-training model.
        int8: Whether to write `model_quantized.onnx` too.
        recorded_name: Name of the model in `export.json`; None means `name`.

    Returns:
        For each file and output the largest difference from torch, or for `model_quantized.onnx` the relative error.

    Raises:
        ValueError, OSError: If the model cannot be opened, an output differs from torch, or a file cannot be written.
    """
    model = open_model(name)
    files = {"model.onnx": export_onnx(model, folder / "model.onnx")}
    if isinstance(model, PCLForPreTraining):
        files["decoder_model.onnx"] = export_decoder(model, folder / "decoder_model.onnx")
    if int8:
        files["model_quantized.onnx"] = quantise_onnx(folder / "model.onnx", folder / "model_quantized.onnx")
    record = {
        "model": recorded_name or name,
        "class": type(model).__name__,
        "image_size": model.config.image_size,
        "versions": {package: importlib.metadata.version(package) for package in ("torch", "onnx", "onnxruntime")},
        "files": {file: {name_export_measure(file): by_output} for file, by_output in files.items()},
    }
    write_json(folder / "export.json", record)
    return files


def name_export_measure(file: str) -> str:
    """Return the name of the numbers that `export_files` returns for a file."""
    return "relative_error" if file == "model_quantized.onnx" else "largest_difference"


def _equalise_channels(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Divide the weights of each convolution by the largest absolute weight of their output channel, in place.

    Returns:
        Factors, `(channels, 1, 1)`, for the scale of each convolution's weights, by the scale's name in the quantised
        model. Multiplying the scale by them undoes the division.
    """
    constants = {constant.name: constant for constant in model.graph.initializer}
    scales = {}
    for name in {node.input[1] for node in model.graph.node if node.op_type == "Conv"}:
        weight = numpy_helper.to_array(constants[name])  # (out, in, k, k)
        largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)  # (out, 1, 1, 1)
        largest[largest == 0] = 1
        _set_values(constants[name], weight / largest)
        scales[f"{name}_scale"] = largest[:, 0]
    return scales


def _set_values(constant: onnx.TensorProto, values: np.ndarray):
    constant.CopyFrom(numpy_helper.from_array(values.astype(np.float32), constant.name))


def _compute_relative_errors(
    exact: onnxruntime.InferenceSession, quantised: onnxruntime.InferenceSession, size_px: int
) -> dict[str, float]:
    names, channels = [output.name for output in exact.get_outputs()], exact.get_inputs()[0].shape[1]
    images = np.random.default_rng(0).random((8, 1, channels, size_px, size_px), dtype=np.float32)
    outputs = [[session.run(names, {"pixel_values": image}) for image in images] for session in (exact, quantised)]
    errors = {}
    for name, *pair in zip(names, *(zip(*rows) for rows in outputs)):
        exact_rows, quantised_rows = (np.concatenate(rows) for rows in pair)
        errors[name] = float(np.linalg.norm(exact_rows - quantised_rows) / np.linalg.norm(exact_rows))
    return errors


class _Encoder(nn.Module):
    """Module whose forward returns the outputs of a model as a tuple of tensors."""

    def __init__(self, model: PCLPreTrainedModel):
        super().__init__()
        self.encoder = model if isinstance(model, PCLModel) else model.pcl
        self.head = getattr(model, "classifier", None) or getattr(model, "regressor", None)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.encoder(pixel_values, return_dict=True)
        maps = tuple(outputs[name] for name in MAPS)
        if self.head is None:
            return maps
        return (*maps, self.head(read_feature(outputs, self.encoder.config.head_feature)))


class _Decoder(nn.Module):
    """Module whose forward is `decode` of a model."""

    def __init__(self, model: PCLForPreTraining):
        super().__init__()
        self.model = model

    def forward(self, face_features: torch.Tensor, pose_features: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.model.decode(face_features, pose_features),)


def _copy_to_cpu(model: PCLPreTrainedModel) -> PCLPreTrainedModel:
    copied = copy.deepcopy(model).float().cpu()
    for module in copied.modules():
        if isinstance(module, nn.LeakyReLU):
            module.inplace = False  # ONNX has no form in place: torch would take each apart, 40 % of the export's time.
    return copied


def _export(
    module: nn.Module, inputs: Mapping[str, torch.Tensor], dynamic: tuple, outputs: Sequence[str], image_size: int
) -> onnx.ModelProto:
    """Export the forward of a module, without the metadata that contains paths of this machine."""
    program = torch.onnx.export(
        module,
        tuple(inputs.values()),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=dynamic,
        verbose=False,
    )
    model = program.model_proto
    graph = model.graph
    for element in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del element.metadata_props[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
    onnx.helper.set_model_props(model, {"image_size": str(image_size)})
    onnx.checker.check_model(model)
    return model


@torch.no_grad()
def _write_checked(exported: onnx.ModelProto, module: nn.Module, batches: Sequence[Mapping], path: Path) -> dict:
    """Write an exported model if its outputs agree with the module's; return the largest difference for each output."""
    content = exported.SerializeToString()
    session = open_session(content, None, str(path))
    names = [output.name for output in session.get_outputs()]
    largest = dict.fromkeys(names, 0.0)
    for inputs in batches:
        outputs = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
        for name, output, expected in zip(names, outputs, module(*inputs.values())):
            difference = float(np.abs(output - expected.numpy()).max())
            largest[name] = max(largest[name], difference)
            # Not `>`, so that NaN is an error too.
            if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
                shapes = {key: tuple(tensor.shape) for key, tensor in inputs.items()}
                raise ValueError(
                    f"The exported `{name}` differs from torch's by {difference:.1e} for inputs of {shapes}: "
                    "nothing was written."
                )
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)
    return largest
