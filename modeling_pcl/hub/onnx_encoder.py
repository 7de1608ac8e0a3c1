"""Inference of an exported encoder with onnxruntime."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from ..features_pcl import FEATURES

try:
    import onnxruntime
except ImportError as error:
    raise ImportError("ONNX files need more packages: `pip install modeling_pcl[onnx]`.") from error

DYNAMIC_INT8 = "dynamic int8"


class OnnxEncoder:
    """An encoder in an ONNX file, which onnxruntime runs on the CPU. Several threads may call it at the same time.

    Args:
        path: File that `export_onnx` or `quantise_onnx` wrote.
        threads: Threads for one call; None uses all cores.

    Raises:
        ValueError: If the file is not an ONNX file, or does not have the outputs of `export_onnx`.
        OSError: If the file cannot be read.
    """

    device = torch.device("cpu")

    def __init__(self, path: str | Path, threads: int | None = None):
        content = Path(path).read_bytes()
        self.session = open_session(content, threads, str(path))
        self.image_size = read_image_size(self.session, str(path))
        self.is_quantised = self.session.get_modelmeta().custom_metadata_map.get("quantisation") == DYNAMIC_INT8
        self.digest = f"sha256:{hashlib.sha256(content).hexdigest()[:16]}"

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode images, `(batch, 3, height, width)` uint8 or float in [0, 1].

        Returns:
            `trunk`, `face` and `pose`, each `(batch, dim)` float32.
        """
        pixel_values = (images.float() / 255 if images.dtype == torch.uint8 else images.float()).numpy()
        if not self.is_quantised:
            return self._run(pixel_values)
        # One by one: the scale of dynamic quantisation is that of the whole batch, so the features of an image would
        # depend on the other images.
        rows = [self._run(row[None]) for row in pixel_values]
        return {name: torch.cat([row[name] for row in rows]) for name in FEATURES}

    def _run(self, pixel_values: np.ndarray) -> dict[str, torch.Tensor]:
        outputs = self.session.run(list(FEATURES.values()), {"pixel_values": pixel_values})
        return dict(zip(FEATURES, map(torch.from_numpy, outputs)))


def open_session(content: bytes, threads: int | None, name: str) -> onnxruntime.InferenceSession:
    """Open the bytes of an ONNX file for inference on the CPU.

    Args:
        content: Bytes of the file.
        threads: Threads for one call; None uses all cores.
        name: Name of the file for the error message.

    Raises:
        ValueError: If `content` is not an ONNX file.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors only.
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # The exceptions of onnxruntime have no other common base class.
        raise ValueError(f"`{name}` does not open as an ONNX file: {error}") from error


def read_image_size(session: onnxruntime.InferenceSession, name: str) -> int:
    """Read the image size of an exported encoder, in px.

    Raises:
        ValueError: If the file does not have the outputs and properties that `export_onnx` writes.
    """
    properties = session.get_modelmeta().custom_metadata_map
    missing = set(FEATURES.values()) - {output.name for output in session.get_outputs()}
    if missing or "image_size" not in properties:
        raise ValueError(f"`{name}` is no PCL encoder from `pcl export`: it lacks {sorted(missing)}.")
    return int(properties["image_size"])
