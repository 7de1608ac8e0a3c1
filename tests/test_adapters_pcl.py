"""What others attach to a model's layers: LoRA and DoRA, fake quantisation, hooks."""

import warnings

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from modeling_pcl import PCLForImageClassification, PCLForPreTraining
from modeling_pcl.decoder_pcl import PCLDecoderBlock

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch would rather have another package for it.
    from torch.ao import quantization
    from torch.ao.nn import qat

CONVOLUTIONS = r".*\.(conv1|conv2|conv|gather|describe|distribute)"


@pytest.mark.parametrize("use_dora", [False, True], ids=["LoRA", "DoRA"])
def test_adapters_attach_to_every_convolution_and_train(use_dora):
    config = tiny.config()
    model = PCLForPreTraining(config)
    count = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=CONVOLUTIONS, use_dora=use_dora))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)  # They start at zero, and then lora_A has no gradient yet.
    adapted(**tiny.all_inputs(config)).loss.backward()
    trained = {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == (3 if use_dora else 2) * count
    for name, gradient in trained.items():
        # A constant that the softmax over positions takes off again is all that the last of these adds.
        assert gradient is not None, name
        assert gradient.any() or "gather" in name, name


@pytest.mark.parametrize("use_dora", [False, True], ids=["LoRA", "DoRA"])
@torch.no_grad()
def test_an_adapted_decoder_draws_what_the_merged_one_draws(use_dora):
    config = tiny.config()
    model = PCLForPreTraining(config).double().eval()
    features = torch.randn(2, 3, config.feature_size, dtype=torch.float64)
    before = model.decode(*features)
    options = LoraConfig(r=2, target_modules=r"decoder\.blocks\..*conv", use_dora=use_dora)
    adapted = get_peft_model(model, options).double()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    drawn = adapted.base_model.model.decode(*features)
    assert (drawn - before).abs().max() > 1e-3
    torch.testing.assert_close(adapted.merge_and_unload().decode(*features), drawn)


def test_quantisation_aware_training_reaches_every_convolution():
    config = tiny.config()
    model = PCLForPreTraining(config).train()
    count = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.qconfig = quantization.get_default_qat_qconfig("x86")
        quantization.prepare_qat(model, inplace=True)
    assert sum(isinstance(module, qat.Conv2d) for module in model.modules()) == count
    model(**tiny.all_inputs(config)).loss.backward()
    for name, module in model.named_modules():
        if isinstance(module, qat.Conv2d):
            assert module.weight.grad is not None, name
            assert module.weight_fake_quant.activation_post_process.min_val.isfinite().all(), name


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@torch.no_grad()
def test_a_decoders_convolution_calls_its_hooks(register):
    block, hidden_state = PCLDecoderBlock(6, 5, 8).double(), torch.randn(2, 6, 4, 4, dtype=torch.float64)
    plain, calls = block(hidden_state), []
    handle = getattr(block.conv, register)(lambda *_: calls.append(1))
    torch.testing.assert_close(block(hidden_state), plain)
    assert calls == [1]
    handle.remove()
    block(hidden_state)
    assert calls == [1]


@torch.no_grad()
def test_a_decoders_convolution_with_another_forward_is_called():
    block = PCLDecoderBlock(6, 5, 8)
    block.conv.forward = lambda images: images.new_zeros(2, 5, 8, 8)  # As of a layer that is kept in another memory.
    assert not block(torch.randn(2, 6, 4, 4)).any()


def test_an_adapted_head_is_saved_merged_as_any_other(tmp_path):
    config, images = tiny.config(num_labels=3), tiny.images(tiny.config(), 2)
    options = LoraConfig(r=2, target_modules=r"pcl\.trunk\..*conv1", modules_to_save=["classifier"])
    adapted = get_peft_model(PCLForImageClassification(config), options)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    expected = adapted.eval()(images).logits
    adapted.merge_and_unload().save_pretrained(tmp_path)
    opened = PCLForImageClassification.from_pretrained(tmp_path)
    # The adapters' random weights make large logits: rounding is a share of the largest.
    torch.testing.assert_close(opened(images).logits, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
