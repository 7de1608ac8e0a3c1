import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import torch
from exported import exported  # noqa: F401 a fixture
from onnx import numpy_helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import QuantType, quantize_dynamic

from modeling_pcl import PCLForPreTraining, PCLModel
from modeling_pcl.hub import onnx_export
from modeling_pcl.hub.onnx_encoder import OnnxEncoder
from modeling_pcl.hub.onnx_export import FEATURES, MAPS, export_decoder, export_onnx, quantise_onnx

ATOL = 1e-5  # Single precision, of values around 1.


@pytest.fixture
def model(exported) -> PCLForPreTraining:  # noqa: F811
    return PCLForPreTraining.from_pretrained(exported).eval()


@pytest.fixture
def path(exported) -> Path:  # noqa: F811
    """The encoder's file."""
    return exported / "onnx" / "model.onnx"


@pytest.fixture
def quantised(exported) -> Path:  # noqa: F811
    return exported / "onnx" / "model_quantized.onnx"


@pytest.fixture
def decoder(exported) -> Path:  # noqa: F811
    return exported / "onnx" / "decoder_model.onnx"


def edited(path: Path, target: Path, edit: Callable[[dict[str, np.ndarray], list[str]], None]) -> Path:
    """A file with other weights, which `edit` changes; it gets the names of the convolutions' weights in order too."""
    model = onnx.load(path)
    weights = {constant.name: numpy_helper.to_array(constant).copy() for constant in model.graph.initializer}
    edit(weights, [node.input[1] for node in model.graph.node if node.op_type == "Conv"])
    for constant in model.graph.initializer:
        constant.CopyFrom(numpy_helper.from_array(weights[constant.name], constant.name))
    onnx.save(model, target)
    return target


def run(path: Path, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    session = InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
    return dict(zip(names, map(torch.from_numpy, found)))


class TestExport:
    @pytest.mark.parametrize("shape", [(1, 3, 32, 32), (5, 3, 45, 200), (2, 3, 129, 34)])
    @torch.no_grad()
    def test_a_file_computes_what_torch_does_at_sizes_that_it_was_not_exported_with(self, shape, path, model):
        images = torch.rand(shape)
        found, expected = run(path, pixel_values=images), model.pcl(images)
        assert list(found) == list(MAPS)
        for name, values in found.items():
            torch.testing.assert_close(values, expected[name], rtol=0, atol=ATOL)

    @torch.no_grad()
    def test_the_decoder_draws_what_decode_does(self, model, decoder):
        face, pose = torch.randn(2, 5, model.config.feature_size)
        found = run(decoder, face_features=face, pose_features=pose)["images"]
        torch.testing.assert_close(found, model.decode(face, pose), rtol=0, atol=ATOL)

    def test_a_model_that_is_being_trained_in_half_precision_stays_so(self, model, decoder, tmp_path, monkeypatch):
        monkeypatch.setattr(onnx_export, "_export", lambda *arguments: onnx.load(decoder))
        training = copy.deepcopy(model).bfloat16().train()
        before = copy.deepcopy(training.state_dict())
        differences = export_decoder(training, tmp_path / "new folder" / "decoder_model.onnx")
        assert differences["images"] < ATOL
        assert training.training
        for name, tensor in training.state_dict().items():
            assert tensor.dtype == before[name].dtype
            assert torch.equal(tensor, before[name])

    def test_what_differs_from_torch_is_not_written(self, path, tmp_path, monkeypatch):
        monkeypatch.setattr(onnx_export, "_export", lambda *arguments: onnx.load(path))
        with pytest.raises(ValueError, match=r"`last_hidden_state` differs from torch's by .*nothing was written"):
            export_onnx(PCLModel(tiny.config()), tmp_path / "model.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_leaves_no_half_a_file(self, path, tmp_path, monkeypatch):
        def full(file: Path, content: bytes):
            with file.open("wb") as opened:
                opened.write(content[:100])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            quantise_onnx(path, tmp_path / "model_quantized.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_says_nothing_of_the_machine_that_wrote_it(self, path):
        content = path.read_bytes()
        assert b".py" not in content
        assert str(Path.cwd()).encode() not in content


class TestInt8:
    def test_all_convolutions_have_unsigned_bytes_for_weights(self, path, quantised):
        exact, small = onnx.load(path), onnx.load(quantised)
        kinds = [node.op_type for node in small.graph.node]
        assert kinds.count("ConvInteger") == sum(node.op_type == "Conv" for node in exact.graph.node) > 10
        assert "Conv" not in kinds
        stored = {constant.name: constant.data_type for constant in small.graph.initializer}
        weights = {stored[node.input[1]] for node in small.graph.node if node.op_type == "ConvInteger"}
        assert weights == {onnx.TensorProto.UINT8}

    @torch.no_grad()
    def test_its_features_are_close_and_the_errors_are_told(self, model, path, quantised, tmp_path):
        told = quantise_onnx(path, tmp_path / "model.onnx")
        assert list(told) == list(MAPS)
        images = torch.rand(16, 3, 32, 32)
        found, expected = OnnxEncoder(quantised)(images), model.pcl(images)
        for name, output in FEATURES.items():
            error = (found[name] - expected[output]).norm() / expected[output].norm()
            assert 1e-4 < error < 0.1
            assert told[output] == pytest.approx(error, rel=0.5)

    def test_an_images_features_do_not_hang_on_the_others_of_its_batch(self, quantised):
        encoder, images = OnnxEncoder(quantised), torch.rand(3, 3, 32, 32)
        images[1] *= 0.01  # In a common range of the batch nothing would be left of it.
        together = encoder(images)
        for row in range(3):
            for name, values in encoder(images[row : row + 1]).items():
                assert torch.equal(values[0], together[name][row])

    def test_a_channel_with_large_weights_does_not_drown_the_others(self, path, tmp_path):
        def enlarge(weights: dict[str, np.ndarray], convolutions: list[str]):
            first, second = convolutions[:2]
            weights[first][0] *= 100
            weights[second][:, 0] /= 100

        exact = edited(path, tmp_path / "model.onnx", enlarge)
        ours = quantise_onnx(exact, tmp_path / "ours.onnx")
        quantize_dynamic(exact, tmp_path / "theirs.onnx", weight_type=QuantType.QUInt8)
        image = torch.rand(1, 3, 32, 32)
        found, theirs = (run(tmp_path / name, pixel_values=image) for name in ("model.onnx", "theirs.onnx"))
        for name in MAPS:
            assert ours[name] < 0.7 * (found[name] - theirs[name]).norm() / found[name].norm()

    def test_a_channel_of_zeros_stays_one(self, path, tmp_path):
        def erase(weights: dict[str, np.ndarray], convolutions: list[str]):
            weights[convolutions[0]][0] = 0

        errors = quantise_onnx(edited(path, tmp_path / "model.onnx", erase), tmp_path / "ours.onnx")
        assert max(errors.values()) < 0.1


class TestOnnxEncoder:
    @torch.no_grad()
    def test_bytes_and_floats_of_the_same_images_give_the_same_features(self, path, model):
        images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
        encoder = OnnxEncoder(path, threads=1)
        found, expected = encoder(images), model.pcl(images / 255)
        assert list(found) == ["trunk", "face", "pose"]
        for name, output in FEATURES.items():
            assert torch.equal(found[name], encoder(images / 255)[name])
            torch.testing.assert_close(found[name], expected[output], rtol=0, atol=ATOL)

    def test_a_file_knows_its_size_and_kind_and_has_a_digest_of_its_own(self, path, quantised):
        exact, small = OnnxEncoder(path), OnnxEncoder(quantised)
        assert (exact.image_size, small.image_size) == (32, 32)
        assert (exact.is_quantised, small.is_quantised) == (False, True)
        assert exact.digest != small.digest
        assert exact.digest == OnnxEncoder(path).digest

    def test_other_files_are_refused(self, decoder, tmp_path):
        (tmp_path / "text.onnx").write_text("no network")
        with pytest.raises(ValueError, match=r"text\.onnx` does not open as an ONNX file"):
            OnnxEncoder(tmp_path / "text.onnx")
        for refuses in (OnnxEncoder, lambda path: quantise_onnx(path, tmp_path / "small.onnx")):
            with pytest.raises(ValueError, match=r"decoder_model\.onnx` is no PCL encoder .*lacks \['face_features'"):
                refuses(decoder)
        with pytest.raises(FileNotFoundError):
            OnnxEncoder(tmp_path / "none.onnx")
