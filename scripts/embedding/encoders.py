"""What computes features: torch or onnxruntime, with one face to the script."""

from typing import Protocol

import torch
from probing.encoder import open_encoder

from modeling_pcl.probes.features import Precision, encode, model_digest


class BatchEncoder(Protocol):
    """Images `(batch, 3, size, size)` uint8 to `trunk`, `face` and `pose`, each `(batch, dim)` on the CPU.

    Attributes:
        image_size: Side in px that the model is made for.
        digest: What identifies the weights.
        device: Where it computes.
    """

    image_size: int
    digest: str
    device: torch.device

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]: ...


class TorchEncoder:
    """A `BatchEncoder` by torch, on a GPU where there is one.

    Args:
        name: Folder or Hub id.
        precision: As for `encode`.

    Raises:
        ValueError: If the model does not open.
    """

    def __init__(self, name: str, precision: Precision):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = open_encoder(name).to(self.device, memory_format=torch.channels_last).eval()
        self.precision: Precision = precision
        self.image_size, self.digest = self.model.config.image_size, model_digest(self.model)

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return next(encode(self.model, [images], self.precision))


def open_backend(name: str, backend: str, precision: Precision) -> BatchEncoder:
    """The encoder of a model folder, a Hub id or an ONNX file.

    Raises:
        ValueError: If it does not open, or is not for this backend.
    """
    is_file = name.endswith(".onnx")
    if is_file != (backend == "onnx"):
        raise ValueError(
            f"`--backend {backend}` runs {'a folder or a Hub id' if is_file else 'an .onnx file'}, got `{name}`; "
            + ("add `--backend onnx`." if is_file else "scripts/export_onnx.py writes one.")
        )
    if backend == "torch":
        return TorchEncoder(name, precision)
    if precision != "float32":
        raise ValueError(f"`--precision` must be float32 with `--backend onnx`, got {precision}: the file decides.")
    try:
        from modeling_pcl.hub.onnx_export import OnnxEncoder

        return OnnxEncoder(name, threads=1)
    except (ImportError, OSError) as error:
        raise ValueError(f"The model `{name}` does not open: {error}") from error
