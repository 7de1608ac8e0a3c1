"""transformers' own common tests, for every class of this package, but for named exceptions.

    TRANSFORMERS_SOURCE=transformers-5.24.0 pytest tests/test_transformers_common.py

runs them from an unpacked source distribution, `HF_HUB_OFFLINE=0 pytest tests/test_transformers_common.py` downloads it
from PyPI; without either they are skipped, since they take most of a minute.
"""

import inspect
import os
import unittest
from importlib import import_module

import pytest
import tiny
import torch
import transformers_source

from modeling_pcl import (
    PCLBackbone,
    PCLConfig,
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLImageProcessor,
    PCLModel,
)

pytestmark = pytest.mark.slow
is_asked_for = "TRANSFORMERS_SOURCE" in os.environ or os.environ["HF_HUB_OFFLINE"] == "0"
SOURCE = transformers_source.find_source() if is_asked_for else None
if SOURCE is None:
    pytest.skip("needs TRANSFORMERS_SOURCE, or HF_HUB_OFFLINE=0 to download it", allow_module_level=True)
transformers_source.make_importable(SOURCE)
modeling, backbone, configuration, image_processing = (
    import_module(f"{transformers_source.PACKAGE}.test_{kind}_common")
    for kind in ("modeling", "backbone", "configuration", "image_processing")
)

NO_EMBEDDINGS = "a convolution reads the pixels: there are no input embeddings, as in no ResNet"
NO_LOSS = "it has no loss; transformers leaves its own such models out by their names"
REENTRANT = "`use_reentrant=True` is refused: no gradient would reach the encoder"
EXCEPTIONS = {
    "test_model_get_set_embeddings": dict.fromkeys(
        (PCLModel, PCLForPreTraining, PCLForImageClassification, PCLForHeadPoseEstimation, PCLBackbone), NO_EMBEDDINGS
    ),
    "test_training": dict.fromkeys((PCLModel, PCLBackbone), NO_LOSS),
    "test_training_gradient_checkpointing": dict.fromkeys((PCLModel, PCLBackbone), NO_LOSS),
    "test_training_gradient_checkpointing_use_reentrant_false": dict.fromkeys((PCLModel, PCLBackbone), NO_LOSS),
    "test_training_gradient_checkpointing_use_reentrant_true": dict.fromkeys(
        (PCLModel, PCLForPreTraining, PCLForImageClassification, PCLForHeadPoseEstimation, PCLBackbone), REENTRANT
    ),
    "test_batching_equivalence": {
        PCLForPreTraining: "its objectives compare the images of a batch with each other, and refuse a batch of one"
    },
    "test_retain_grad_hidden_states_attentions": {
        PCLBackbone: "the test wants a tensor as first output; of every backbone it is the tuple of feature maps"
    },
}


class Tester:
    """What the common tests ask of a model's own test file."""

    batch_size, is_training = 3, True

    def prepare_config_and_inputs_for_common(self) -> tuple[PCLConfig, dict[str, torch.Tensor]]:
        config = tiny.config(out_features=["stage1", "stage4"])
        return config, {"pixel_values": tiny.images(config, self.batch_size)}


class ModelTests(modeling.ModelTesterMixin):
    has_attentions = False
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = Tester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        if not return_labels:
            return inputs
        labels = {
            PCLForImageClassification: {"labels": torch.tensor([0, 1, 1])},
            PCLForHeadPoseEstimation: {"labels": torch.ones(3, 3)},
            PCLForPreTraining: tiny.all_inputs(tiny.config()),
        }
        return inputs | labels.get(model_class, {})

    def test_hidden_states_output(self):
        """As transformers' tests of convolutional models have it: theirs of all others counts tokens."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for is_in_config in (False, True):
            config.output_hidden_states = is_in_config
            for model_class in self.all_model_classes:
                options = {} if is_in_config else {"output_hidden_states": True}
                hidden_states = model_class(config).eval()(**inputs, **options).hidden_states
                assert [maps.shape[-1] for maps in hidden_states] == [16, 16, 8, 4, 2]


def without_exceptions(model_class: type, tests: type) -> type:
    """The test case of one class of models, in which each exception is skipped with its reason."""
    attributes = {"all_model_classes": (model_class,), "config_class": PCLConfig}
    for name, reasons in EXCEPTIONS.items():
        if model_class in reasons and hasattr(tests, name):
            attributes[name] = unittest.skip(reasons[model_class])(lambda self: None)
    return type(f"Test{model_class.__name__}", (tests, unittest.TestCase), attributes)


TestPCLModel = without_exceptions(PCLModel, ModelTests)
TestPCLForPreTraining = without_exceptions(PCLForPreTraining, ModelTests)
TestPCLForImageClassification = without_exceptions(PCLForImageClassification, ModelTests)
TestPCLForHeadPoseEstimation = without_exceptions(PCLForHeadPoseEstimation, ModelTests)
TestPCLBackbone = without_exceptions(PCLBackbone, ModelTests)


class TestPCLBackboneAsOne(backbone.BackboneTesterMixin, unittest.TestCase):
    all_model_classes = (PCLBackbone,)
    config_class = PCLConfig
    has_attentions = False

    def setUp(self):
        self.model_tester = Tester()


class TestPCLConfig(unittest.TestCase):
    def test_config(self):
        options = {"has_text_modality": False, "common_properties": ["hidden_sizes", "num_channels"]}
        tester = configuration.ConfigTester(self, config_class=PCLConfig, **options, feature_channels=37)
        tester.run_common_tests()


class ProcessorTester(image_processing.ImageProcessingTester):
    def __init__(self, parent):
        super().__init__(parent, size={"shortest_edge": 20}, crop_size={"height": 18, "width": 18})

    def _get_image_processing_classes(self):
        return {"torchvision": PCLImageProcessor}


class TestPCLImageProcessor(image_processing.ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = ProcessorTester

    @unittest.skip("four channels are RGB and transparency, which is laid on white: three come out")
    def test_call_numpy_4_channels(self): ...


def test_an_exception_names_a_test_that_there_is():
    for name in EXCEPTIONS:
        assert inspect.isfunction(getattr(modeling.ModelTesterMixin, name)), name
