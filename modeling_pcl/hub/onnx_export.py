"""PCL models as ONNX files: exported, checked against torch, made smaller, and run.

    export_onnx(model, "onnx/model.onnx")
    quantise_onnx("onnx/model.onnx", "onnx/model_quantized.onnx")
    features = OnnxEncoder("onnx/model_quantized.onnx")(images)

These are the file names that transformers.js opens, as `dtype: "fp32"` and `dtype: "q8"`.
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
from ..files import replacing, scratch_folder, write_json
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

OPSET = 18  # The oldest that torch exports to as it is; every onnxruntime since 1.14 runs it, in browsers too.
TOLERANCE = 1e-4
CHECKED_SHAPES = ((1, 32, 32), (3, 64, 64), (2, 100, 100), (1, 97, 131))  # batch, height, width
MAPS = ("last_hidden_state", *FEATURES.values())


def export_onnx(model: PCLPreTrainedModel, path: str | Path) -> dict[str, float]:
    """Write a model's inference as one file, if onnxruntime computes what torch does.

    Input `pixel_values`, `(batch, num_channels, height, width)` float32 in [0, 1]; outputs `last_hidden_state`,
    `pooler_output`, `face_features` and `pose_features` as of `PCLModel`, and `logits` where there is a head. Batch,
    height and width are free, from 32 px up; a head's model takes its `image_size` only.

    Args:
        model: Any PCL model, on any device and in any dtype, not changed. Of a pre-training model the encoder is taken.
        path: The file.

    Returns:
        The largest absolute difference from torch by output, over several batch and image sizes of random images.

    Raises:
        ValueError: If an output differs by more than 1e-4, or, where its values are larger than 1, by more than 1e-4 of
            the largest. Then nothing is written.
    """
    encoder = _Encoder(_copy(model)).eval()
    config, head = model.config, encoder.head
    # Sides that are no multiples of each other or of 16, so that none is taken for a constant or for the other.
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
    """Write `model.decode` as one file, if onnxruntime computes what torch does.

    Inputs `face_features` and `pose_features`, `(batch, feature_size)`; output `images`,
    `(batch, num_channels, image_size, image_size)`. The batch is free.

    Args:
        model: On any device and in any dtype, not changed.
        path: The file.

    Returns:
        As of `export_onnx`.

    Raises:
        ValueError: As of `export_onnx`.
    """
    decoder, names = _Decoder(_copy(model)).eval(), ("face_features", "pose_features")
    generator = torch.Generator().manual_seed(0)
    batches = [
        {name: torch.randn(batch, model.config.feature_size, generator=generator) for name in names}
        for batch in (2, 1, 3)
    ]
    dynamic = ({0: Dim("batch")}, {0: Dim.AUTO})  # The second is found to be the first's.
    exported = _export(decoder, batches[0], dynamic, ("images",), model.config.image_size)
    return _write_checked(exported, decoder, batches, Path(path))


def quantise_onnx(path: str | Path, quantised_path: str | Path) -> dict[str, float]:
    """Write a file's convolutions with 8-bit weights, a quarter of the size; their inputs are quantised as they come.

    Weights are unsigned: onnxruntime's CPU provider needs three times as long for signed ones. Each output channel has
    a scale of its own, which onnxruntime's own quantiser does not give convolutions.

    Args:
        path: What `export_onnx` wrote.
        quantised_path: The new file.

    Returns:
        By output the relative error that it makes on random images: the length of the difference from `path`'s output,
        divided by the output's length.

    Raises:
        ValueError: If `path` is not what `export_onnx` wrote.
        OSError: If it cannot be read.
    """
    content = Path(path).read_bytes()
    session = open_session(content, None, str(path))
    image_size = read_image_size(session, str(path))
    model = onnx.load_from_string(content)
    scales = _equalise_channels(model)
    add_pre_process_metadata(model)  # Or there would be a warning: what is meant by it, the export has done.
    target = Path(quantised_path)
    with scratch_folder(target.with_name(f".{target.name}-scratch")) as folder:  # onnxruntime has files of its own.
        quantize_dynamic(model, f"{folder}/model.onnx", op_types_to_quantize=["Conv"], weight_type=QuantType.QUInt8)
        quantised = onnx.load(f"{folder}/model.onnx")
    for constant in quantised.graph.initializer:
        if constant.name in scales:
            _set(constant, numpy_helper.to_array(constant) * scales[constant.name])
    onnx.helper.set_model_props(quantised, {"image_size": str(image_size), "quantisation": DYNAMIC_INT8})
    quantised_content = quantised.SerializeToString()
    errors = _relative_errors(session, open_session(quantised_content, None, str(quantised_path)), image_size)
    with replacing(Path(quantised_path)) as unfinished:
        unfinished.write_bytes(quantised_content)
    return errors


def export_files(name: str, folder: Path, int8: bool, recorded_name: str | None = None) -> dict[str, dict[str, float]]:
    """Write every file of a model, and `export.json` with how far they are from torch.

    Args:
        name: Folder or Hub id of any PCL model.
        folder: Gets `model.onnx`; of a pre-training model `decoder_model.onnx`.
        int8: Write `model_quantized.onnx`, too.
        recorded_name: What `export.json` calls the model; by default `name`.

    Returns:
        By file and output the largest difference from torch, or of `model_quantized.onnx` the relative error.

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
        "model": recorded_name or name,
        "class": type(model).__name__,
        "image_size": model.config.image_size,
        "versions": {package: importlib.metadata.version(package) for package in ("torch", "onnx", "onnxruntime")},
        "files": {file: {export_measure(file): by_output} for file, by_output in files.items()},
    }
    write_json(folder / "export.json", record)
    return files


def export_measure(file: str) -> str:
    """Name what the numbers of a file are."""
    return "relative_error" if file == "model_quantized.onnx" else "largest_difference"


def _equalise_channels(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Divide each convolution's weights by the largest of their output channel, in place.

    Returns:
        By what the quantiser calls the scale of these weights: what to multiply it with, `(channels, 1, 1)`.
    """
    constants = {constant.name: constant for constant in model.graph.initializer}
    scales = {}
    for name in {node.input[1] for node in model.graph.node if node.op_type == "Conv"}:
        weight = numpy_helper.to_array(constants[name])  # (out, in, k, k)
        largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
        largest[largest == 0] = 1
        _set(constants[name], weight / largest)
        scales[f"{name}_scale"] = largest[:, 0]
    return scales


def _set(constant: onnx.TensorProto, values: np.ndarray):
    constant.CopyFrom(numpy_helper.from_array(values.astype(np.float32), constant.name))


def _relative_errors(
    exact: onnxruntime.InferenceSession, quantised: onnxruntime.InferenceSession, size_px: int
) -> dict[str, float]:
    names, channels = [output.name for output in exact.get_outputs()], exact.get_inputs()[0].shape[1]
    images = np.random.default_rng(0).random((8, 1, channels, size_px, size_px), dtype=np.float32)
    computed = [[session.run(names, {"pixel_values": image}) for image in images] for session in (exact, quantised)]
    errors = {}
    for name, *outputs in zip(names, *(zip(*rows) for rows in computed)):
        ours, theirs = (np.concatenate(rows) for rows in outputs)
        errors[name] = float(np.linalg.norm(ours - theirs) / np.linalg.norm(ours))
    return errors


class _Encoder(nn.Module):
    """A model's forward, with plain tensors for outputs."""

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
    """A model's `decode`, as a forward."""

    def __init__(self, model: PCLForPreTraining):
        super().__init__()
        self.model = model

    def forward(self, face_features: torch.Tensor, pose_features: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.model.decode(face_features, pose_features),)


def _copy(model: PCLPreTrainedModel) -> PCLPreTrainedModel:
    return copy.deepcopy(model).float().cpu()


def _export(
    module: nn.Module, inputs: Mapping[str, torch.Tensor], dynamic: tuple, outputs: Sequence[str], image_size: int
) -> onnx.ModelProto:
    """The module's forward as ONNX, without what only tells where this machine keeps its code."""
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
    for described in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del described.metadata_props[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
    onnx.helper.set_model_props(model, {"image_size": str(image_size)})
    onnx.checker.check_model(model)
    return model


@torch.no_grad()
def _write_checked(exported: onnx.ModelProto, module: nn.Module, batches: Sequence[Mapping], path: Path) -> dict:
    """Write a file if it computes what the module does; the largest differences by output."""
    content = exported.SerializeToString()
    session = open_session(content, None, str(path))
    names = [output.name for output in session.get_outputs()]
    largest = dict.fromkeys(names, 0.0)
    for inputs in batches:
        computed = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
        for name, ours, torchs in zip(names, computed, module(*inputs.values())):
            difference = float(np.abs(ours - torchs.numpy()).max())
            largest[name] = max(largest[name], difference)
            if not difference <= TOLERANCE * max(1.0, float(torchs.abs().max())):
                shapes = {key: tuple(tensor.shape) for key, tensor in inputs.items()}
                raise ValueError(
                    f"The exported `{name}` differs from torch's by {difference:.1e} for inputs of {shapes}: "
                    "nothing was written."
                )
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)
    return largest
