"""A pre-training model with its ONNX files. An export takes ten seconds, so all processes of a test run share one."""

from pathlib import Path

import pytest
import tiny
import torch
from filelock import FileLock

from modeling_pcl import PCLForPreTraining, PCLImageProcessor


@pytest.fixture(scope="session")
def exported(tmp_path_factory, request) -> Path:
    """Folder of the model, with its files in `onnx`; tests that change it work on a copy."""
    from modeling_pcl.hub.onnx_export import export_files

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if hasattr(request.config, "workerinput") else base) / "exported"
    with FileLock(f"{folder}.lock"):
        if not (folder / "onnx" / "export.json").exists():
            torch.manual_seed(3)
            options = {"verification_threshold": 0.25, "verification_feature": "face+pose"}
            model = PCLForPreTraining(tiny.config(mirror_invariant_face=True, **options))
            model.bfloat16().float().save_pretrained(folder)  # bfloat16 holds the weights exactly.
            PCLImageProcessor.for_image_size(model.config.image_size).save_pretrained(folder)
            export_files(str(folder), folder / "onnx", int8=True, recorded_name="user/exported")
    return folder
