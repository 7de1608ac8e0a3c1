import math

import pytest
import tiny
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    pipeline,
)

import modeling_pcl.modeling_pcl as modeling_pcl
from modeling_pcl import (
    PCLConfig,
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLImageProcessor,
    PCLModel,
)
from modeling_pcl.losses_pcl import (
    cosine_orthogonality_loss,
    info_nce_loss,
    mixed_negative_logits,
    orthogonality_loss,
    pose_logits,
)

QUARTER = {"hidden_sizes": [16, 32, 32, 64], "feature_channels": 32, "projection_size": 128, "decoder_size": 128}
CLASSES = [PCLModel, PCLForPreTraining, PCLForImageClassification, PCLForHeadPoseEstimation]
HEADS = {PCLForImageClassification: "classifier", PCLForHeadPoseEstimation: "regressor"}
every_class = pytest.mark.parametrize("model_class", CLASSES)


def inputs_for(model_class: type, config: PCLConfig) -> dict[str, torch.Tensor]:
    return tiny.all_inputs(config) if model_class is PCLForPreTraining else {"pixel_values": tiny.images(config, 3)}


def result_of(outputs) -> torch.Tensor:
    """The tensor at the end of the computation, whichever model it is."""
    for name in ("loss", "logits", "face_features"):
        if outputs.get(name) is not None:
            return outputs[name]
    raise AssertionError("an output without a result")


def assert_same_weights(model: nn.Module, other: nn.Module):
    expected = model.state_dict()
    found = other.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


# Shapes and outputs


@torch.no_grad()
def test_encoder_returns_the_trunk_map_and_three_flattened_features(tiny_config):
    outputs = PCLModel(tiny_config).eval()(tiny.images(tiny_config, 3))
    assert list(outputs) == ["last_hidden_state", "pooler_output", "face_features", "pose_features"]
    assert outputs.last_hidden_state.shape == (3, 8, 2, 2)
    assert torch.equal(outputs.pooler_output, outputs.last_hidden_state.flatten(1))
    assert outputs.face_features.shape == outputs.pose_features.shape == (3, tiny_config.feature_size)
    assert not torch.equal(outputs.face_features, outputs.pose_features)


@torch.no_grad()
def test_a_mirror_invariant_face_feature_is_the_mean_of_image_and_mirror(tiny_config):
    model, images = PCLModel(tiny_config).eval(), tiny.images(tiny_config, 3)
    plain, mirrored = (model(given, output_hidden_states=True) for given in (images, images.flip(3)))
    model.config.mirror_invariant_face = True
    outputs = model(images, output_hidden_states=True)
    expected = (plain.face_features + mirrored.face_features) / 2
    torch.testing.assert_close(outputs.face_features, expected)
    torch.testing.assert_close(model(images.flip(3)).face_features, expected)
    assert not torch.allclose(plain.face_features, expected)
    for name in ("last_hidden_state", "pooler_output", "pose_features"):
        torch.testing.assert_close(outputs[name], plain[name])
    torch.testing.assert_close(outputs.hidden_states, plain.hidden_states)
    torch.testing.assert_close(model(images, mirror_invariant_face=False).face_features, plain.face_features)


@torch.no_grad()
def test_pretraining_tells_an_image_from_its_mirror_whatever_the_encoder_returns(tiny_config):
    model, inputs = PCLForPreTraining(tiny_config).eval(), tiny.all_inputs(tiny_config)
    loss = model(**inputs).loss
    model.config.mirror_invariant_face = True
    assert torch.equal(model(**inputs).loss, loss)


def test_reconstructions_are_compared_with_images_of_the_drawn_side():
    config = tiny.config(decoder_image_size=16)
    model = PCLForPreTraining(config).double().eval()
    images = tiny.images(config, 3, dtype=torch.float64)
    outputs = model(pixel_values=images)
    mirrors = images.flip(3)
    face, pose = model.pcl(images).face_features, model.pcl(mirrors).pose_features
    small = F.interpolate(mirrors, size=(16, 16), mode="bilinear", antialias=True)
    expected = (model.decode(face, pose) - small).abs().mean()
    torch.testing.assert_close(outputs.face_mirror_pose_loss, expected)
    outputs.loss.backward()
    assert model.decoder.blocks[-1].conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("widths", "image_size"), [({}, 32), ({}, 47), *((QUARTER, side) for side in (32, 64, 100))])
def test_every_objective_works_at_every_width_and_size(widths, image_size):
    config = PCLConfig(image_size=image_size, **widths)
    model = PCLForPreTraining(config)
    inputs = {
        name: value
        for make_inputs in (tiny.disentangling_inputs, tiny.face_contrast_inputs)
        for name, value in make_inputs(config, 2).items()
    }
    outputs = model(**inputs, **tiny.pose_contrast_inputs(config, 2, negatives=2))
    outputs.loss.backward()
    assert all(outputs[name].isfinite() for name in outputs)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    head = PCLForImageClassification(config).eval()
    assert head(tiny.images(config, 1)).logits.shape == (1, 2)


@torch.no_grad()
def test_pretraining_gives_the_maps_of_all_that_the_encoder_saw_on_request(tiny_config, monkeypatch):
    model, inputs = PCLForPreTraining(tiny_config).eval(), tiny.all_inputs(tiny_config)
    assert model(**inputs).hidden_states is None
    images = inputs["pixel_values"]
    negatives = inputs["pose_negative_views"].flatten(0, 1)
    noisy = torch.cat([images, images.flip(3)]) + inputs["noise"]
    seen = torch.cat([noisy, inputs["face_views"], inputs["pose_views"], negatives])
    expected = model.pcl(seen, output_hidden_states=True).hidden_states
    monkeypatch.setattr(modeling_pcl, "CPU_CHUNK", 3)
    for has_gradient in (True, False):
        model.config.pose_negative_gradient = has_gradient
        found = model(**inputs, output_hidden_states=True).hidden_states
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
    model.config.output_hidden_states = True
    assert len(model(pixel_values=images).hidden_states) == 5
    assert model(pixel_values=images, output_hidden_states=False).hidden_states is None


@torch.no_grad()
def test_pretraining_leaves_its_loss_out_on_request(tiny_config):
    outputs = PCLForPreTraining(tiny_config)(tiny.images(tiny_config, 2), return_loss=False)
    assert outputs.loss is None
    assert outputs.disentangling_loss is not None


@pytest.mark.parametrize("model_class", [PCLModel, *HEADS])
@torch.no_grad()
def test_hidden_states_come_on_request_by_argument_or_config(model_class, tiny_config):
    model, images = model_class(tiny_config).eval(), tiny.images(tiny_config, 2)
    assert model(images).hidden_states is None
    hidden_states = model(images, output_hidden_states=True).hidden_states
    assert [tuple(hidden_state.shape) for hidden_state in hidden_states] == [
        (2, 4, 16, 16),
        (2, 4, 16, 16),
        (2, 6, 8, 8),
        (2, 10, 4, 4),
        (2, 8, 2, 2),
    ]
    model.config.output_hidden_states = True
    assert len(model(images).hidden_states) == 5
    assert model(images, output_hidden_states=False).hidden_states is None


@every_class
@torch.no_grad()
def test_return_dict_false_gives_the_same_entries_as_a_tuple(model_class, tiny_config):
    model, inputs = model_class(tiny_config).eval(), inputs_for(model_class, tiny_config)
    expected = model(**inputs)
    found = model(**inputs, return_dict=False)
    assert isinstance(found, tuple)
    assert len(found) == len(expected)
    for value, name in zip(found, expected):
        assert torch.equal(value, expected[name]), name
    model.config.return_dict = False
    assert isinstance(model(**inputs), tuple)


@every_class
@torch.no_grad()
def test_rows_do_not_see_one_another_in_eval_mode(model_class, tiny_config):
    model, images = model_class(tiny_config).eval(), tiny.images(tiny_config, 4)

    def rows(images):
        if model_class is PCLForPreTraining:
            outputs = model.pcl(images)
            return model.face_projection(outputs.face_features), model.decode(
                outputs.face_features, outputs.pose_features
            )
        return tuple(model(images).values())

    for together, alone in zip(rows(images), rows(images[1:2])):
        # Convolutions of another batch size may sum in another order.
        torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-6)


# What each objective computes


@torch.no_grad()
def contrasted(model: PCLForPreTraining) -> PCLForPreTraining:
    """Let the decoder draw light and dark: what lies below all pixels is as far from an image as from its mirror."""
    model.decoder.blocks[-1].conv.weight *= 100
    return model


@torch.no_grad()
def test_disentangling_terms_follow_their_definitions(tiny_config):
    tiny_config.orthogonality_weight = 3.0
    model, inputs = contrasted(PCLForPreTraining(tiny_config).eval()), tiny.disentangling_inputs(tiny_config)
    image, mirror = inputs["pixel_values"], inputs["pixel_values"].flip(3)
    seen, seen_mirror = (model.pcl(part) for part in (torch.cat([image, mirror]) + inputs["noise"]).chunk(2))

    def reconstruction(face, pose, target):
        return F.l1_loss(model.decode(face.face_features, pose.pose_features), target)

    expected = {
        "face_pose_loss": reconstruction(seen, seen, image),
        "face_mirror_pose_loss": reconstruction(seen, seen_mirror, mirror),
        "mirror_face_pose_loss": reconstruction(seen_mirror, seen, image),
        "mirror_face_mirror_pose_loss": reconstruction(seen_mirror, seen_mirror, mirror),
        "orthogonality_loss": orthogonality_loss(seen.face_features, seen.pose_features),
        "mirror_orthogonality_loss": orthogonality_loss(seen_mirror.face_features, seen_mirror.pose_features),
    }
    outputs = model(**inputs)
    for name, value in expected.items():
        torch.testing.assert_close(outputs[name], value, msg=lambda text, name=name: f"{name}: {text}")
    total = sum((3 if "orthogonality" in name else 1) * value for name, value in expected.items())
    torch.testing.assert_close(outputs.disentangling_loss, total)
    torch.testing.assert_close(outputs.loss, total)


@torch.no_grad()
def test_mirrored_images_swap_the_terms_of_image_and_mirror(tiny_config):
    model, images = contrasted(PCLForPreTraining(tiny_config).eval()), tiny.images(tiny_config, 4)
    outputs, mirrored = model(pixel_values=images), model(pixel_values=images.flip(3))
    pairs = {
        "face_pose_loss": "mirror_face_mirror_pose_loss",
        "face_mirror_pose_loss": "mirror_face_pose_loss",
        "orthogonality_loss": "mirror_orthogonality_loss",
        "disentangling_loss": "disentangling_loss",
    }
    for name, other in pairs.items():
        torch.testing.assert_close(outputs[name], mirrored[other])


@torch.no_grad()
def test_no_noise_is_noise_of_zeros(tiny_config):
    model, images = PCLForPreTraining(tiny_config).eval(), tiny.images(tiny_config, 4)
    zeros = torch.zeros(8, 3, 32, 32)
    assert torch.equal(model(pixel_values=images).loss, model(pixel_values=images, noise=zeros).loss)


@torch.no_grad()
def test_cosine_orthogonality_is_selected_by_the_config(tiny_config):
    tiny_config.orthogonality = "cosine"
    model, images = PCLForPreTraining(tiny_config).eval(), tiny.images(tiny_config, 4)
    features = model.pcl(images)
    expected = cosine_orthogonality_loss(features.face_features, features.pose_features)
    torch.testing.assert_close(model(pixel_values=images).orthogonality_loss, expected)


@torch.no_grad()
def test_decoding_depends_on_the_direction_of_the_sum_only(tiny_config):
    model = PCLForPreTraining(tiny_config).eval()
    face, pose = torch.randn(2, 3, tiny_config.feature_size)
    images = model.decode(face, pose)
    assert images.shape == (3, 3, 32, 32)
    torch.testing.assert_close(model.decode(5 * pose, 5 * face), images)
    assert (model.decode(face, torch.zeros_like(pose)) - images).abs().max() > 1e-4


@torch.no_grad()
def test_face_contrast_compares_projected_face_features(tiny_config):
    tiny_config.face_temperature = 0.2
    model, inputs = PCLForPreTraining(tiny_config).train(), tiny.face_contrast_inputs(tiny_config)
    embeddings = model.face_projection(model.pcl(inputs["face_views"]).face_features)
    logits = mixed_negative_logits(embeddings, inputs["face_mix"], inputs["face_permutation"], 0.2)
    torch.testing.assert_close(model(**inputs).face_contrast_loss, info_nce_loss(logits))
    plain = info_nce_loss(mixed_negative_logits(embeddings, None, None, 0.2))
    torch.testing.assert_close(model(face_views=inputs["face_views"]).face_contrast_loss, plain)


@torch.no_grad()
def test_turns_are_predicted_linearly_from_the_difference_of_unit_pose_features():
    config = tiny.config(turn_weight=3.0)
    model, inputs = PCLForPreTraining(config).train(), tiny.face_contrast_inputs(config)
    first, second = F.normalize(model.pcl(inputs["face_views"]).pose_features, dim=1).chunk(2)
    predicted = config.feature_size**0.5 * (second - first) @ model.turn_head.linear.weight.T
    known = ~inputs["face_turns"].isnan().any(dim=1)
    assert known.tolist() == [True, False, True, True]
    expected = (predicted - inputs["face_turns"])[known].square().sum() / inputs["face_turns"].numel()
    outputs = model(**inputs)
    torch.testing.assert_close(outputs.turn_loss, expected)
    model.config.turn_weight = 0.0
    torch.testing.assert_close(outputs.loss, model(**inputs).loss + 3 * expected)


def test_unknown_turns_have_no_gradient_and_missing_ones_are_refused_by_name():
    config = tiny.config(turn_weight=1.0)
    model, inputs = PCLForPreTraining(config).train(), tiny.face_contrast_inputs(config)
    model(**inputs).turn_loss.backward()
    gradient = model.turn_head.linear.weight.grad.clone()
    assert gradient.abs().max() > 0
    assert all(parameter.grad.isfinite().all() for parameter in model.pcl.pose_branch.parameters())
    assert model.face_projection.fc1.weight.grad is None
    model.zero_grad()
    model(**inputs | {"face_turns": torch.full((4, 2), torch.nan)}).turn_loss.backward()
    assert not model.turn_head.linear.weight.grad.any()
    with pytest.raises(ValueError, match="face_turn_probability"):
        model(face_views=inputs["face_views"])


@torch.no_grad()
def test_pose_contrast_compares_projected_pose_features_views_apart_from_negatives(tiny_config):
    tiny_config.pose_temperature = 0.2
    model, inputs = PCLForPreTraining(tiny_config).train(), tiny.pose_contrast_inputs(tiny_config)
    queries = model.pose_projection(model.pcl(inputs["pose_views"]).pose_features)
    mirrors = inputs["pose_negative_views"]
    negatives = model.pose_projection(model.pcl(mirrors.flatten(0, 1)).pose_features).unflatten(0, mirrors.shape[:2])
    logits = pose_logits(queries, negatives, inputs["pose_mix"], inputs["pose_permutation"], 0.2)
    torch.testing.assert_close(model(**inputs).pose_contrast_loss, info_nce_loss(logits))


@torch.no_grad()
def test_pose_negatives_of_the_batch_are_dealt_in_equal_shares(tiny_config):
    own = PCLForPreTraining(tiny_config).train()
    batch = PCLForPreTraining(tiny.config(pose_negatives="batch")).train()
    batch.load_state_dict(own.state_dict())
    inputs = tiny.pose_contrast_inputs(tiny_config, count=3, negatives=6)
    views = inputs["pose_negative_views"]
    # Of each image's six views, image 0 gets the first two, image 1 the next two, image 2 the last two.
    dealt = torch.stack(
        [torch.cat([views[giver, 2 * taker : 2 * taker + 2] for giver in range(3)]) for taker in range(3)]
    )
    expected = own(**(inputs | {"pose_negative_views": dealt})).pose_contrast_loss
    torch.testing.assert_close(batch(**inputs).pose_contrast_loss, expected)
    assert (own(**inputs).pose_contrast_loss - expected).abs() > 1e-3


@torch.no_grad()
def test_loss_is_the_weighted_sum_of_the_objectives_present(tiny_config):
    weights = {"disentangling": 2.0, "face_contrast": 0.5, "pose_contrast": 0.0}
    config = tiny.config(**{f"{name}_weight": weight for name, weight in weights.items()})
    model = PCLForPreTraining(config).train()
    outputs = model(**tiny.all_inputs(config))
    torch.testing.assert_close(outputs.loss, 2 * outputs.disentangling_loss + 0.5 * outputs.face_contrast_loss)
    alone = model(**tiny.face_contrast_inputs(config))
    assert list(alone) == ["loss", "face_contrast_loss"]
    torch.testing.assert_close(alone.loss, 0.5 * outputs.face_contrast_loss)
    assert outputs.pose_contrast_loss > 0


@torch.no_grad()
def test_terms_are_float32_under_autocast(tiny_config):
    model, inputs = PCLForPreTraining(tiny_config).train(), tiny.all_inputs(tiny_config)
    expected = model(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(**inputs)
    for name, value in outputs.items():
        assert value.dtype == torch.float32, name
    # bfloat16 keeps 8 bits; after twenty layers and a temperature of 0.07 tens of per cent are left of that.
    torch.testing.assert_close(outputs.disentangling_loss, expected.disentangling_loss, rtol=0.02, atol=0)
    torch.testing.assert_close(outputs.face_contrast_loss, expected.face_contrast_loss, rtol=0.2, atol=0)


# What each objective trains

TRAINED = {
    "disentangling": {"pcl.trunk", "pcl.face_branch", "pcl.pose_branch", "decoder"},
    "face_contrast": {"pcl.trunk", "pcl.face_branch", "face_projection"},
    "pose_contrast": {"pcl.trunk", "pcl.pose_branch", "pose_projection"},
}


def is_blind_to(name: str) -> bool:
    """Whether nothing sees this bias: a softmax over positions or a batch norm takes it off again."""
    return name.endswith(("attention.gather.bias", "projection.fc2.bias")) or (
        name.startswith("decoder.blocks") and name.endswith("conv.bias") and not name.startswith("decoder.blocks.4")
    )


@torch.no_grad()
def halve_hidden_units(model: PCLForPreTraining):
    """Let every hidden unit of the projections be on for some rows only: batch norm hides one that is always on."""
    outputs = model.pcl(tiny.images(model.config, 16, dtype=torch.float64))
    for projection, features in (
        (model.face_projection, outputs.face_features),
        (model.pose_projection, outputs.pose_features),
    ):
        projection.fc1.bias -= projection.fc1(features).mean(0)


@pytest.mark.parametrize("objective", TRAINED)
def test_gradient_reaches_exactly_the_parts_that_an_objective_trains(objective, tiny_config):
    # In float64, where the gradient of a bias that nothing sees is rounding of 1e-12, and all others are far above.
    model = PCLForPreTraining(tiny_config).double().train()
    halve_hidden_units(model)
    model(**tiny.INPUTS[objective](tiny_config, dtype=torch.float64)).loss.backward()
    for name, parameter in model.named_parameters():
        if not any(name.startswith(f"{part}.") for part in TRAINED[objective]):
            assert parameter.grad is None, name
        elif is_blind_to(name):
            assert parameter.grad.abs().max() < 1e-11, name
        elif name.endswith("projection.fc1.bias"):
            # The batch norm takes it off but for units that are active in some rows only, of which there may be none.
            assert parameter.grad is not None, name
        else:
            assert parameter.grad.abs().max() > 1e-8, name


@pytest.mark.parametrize("head_feature", ["trunk", "face", "pose", "face+pose"])
@pytest.mark.parametrize("model_class", HEADS)
def test_a_head_reads_and_trains_the_feature_that_the_config_names(model_class, head_feature):
    config = tiny.config(head_feature=head_feature)
    model, images = model_class(config), tiny.images(config, 3)
    features = model.pcl(images)
    feature = {"trunk": features.pooler_output, "face": features.face_features, "pose": features.pose_features}
    feature["face+pose"] = torch.cat([features.face_features, features.pose_features], dim=1)
    head = getattr(model, HEADS[model_class])
    outputs = model(images)
    torch.testing.assert_close(outputs.logits, head(feature[head_feature]))
    outputs.logits.square().sum().backward()
    for branch in ("face", "pose"):
        is_trained = all(
            parameter.grad is not None for parameter in getattr(model.pcl, f"{branch}_branch").parameters()
        )
        assert is_trained == (branch in head_feature)
    assert all(parameter.grad is not None for parameter in model.pcl.trunk.parameters())


def test_gradient_checkpointing_recomputes_and_leaves_the_gradients_as_they_are(tiny_config):
    inputs = tiny.all_inputs(tiny_config)
    gradients, calls = {}, {}
    for is_checkpointed in (False, True):
        torch.manual_seed(1)
        model = PCLForPreTraining(tiny_config).train()
        if is_checkpointed:
            model.activation_checkpointing_enable()
        count = []
        for stage in (*model.pcl.trunk.stages, model.pcl.face_branch, model.pcl.pose_branch):
            stage.conv1.register_forward_hook(lambda *_, count=count: count.append(1))
        model(**inputs).loss.backward()
        gradients[is_checkpointed] = {name: parameter.grad for name, parameter in model.named_parameters()}
        calls[is_checkpointed] = len(count)
    # Three passes of seven stages; the branch that a contrast does not read needs no gradient and no second pass.
    assert calls == {False: 3 * 7, True: 3 * 7 + 7 + 6 + 6}
    for name, gradient in gradients[False].items():
        assert torch.equal(gradients[True][name], gradient), name


@every_class
@pytest.mark.parametrize("options", [{"use_reentrant": True}, {}])
def test_checkpoints_through_which_no_gradient_passes_are_refused(model_class, options, tiny_config):
    model = model_class(tiny_config)
    with pytest.raises(ValueError, match="`use_reentrant` must be False"):
        model.activation_checkpointing_enable(options)
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert model.is_activation_checkpointing


@pytest.mark.parametrize("model_class", HEADS)
def test_an_opened_head_asks_for_no_gradient_of_what_it_does_not_read(model_class, tmp_path):
    model_class(tiny.config(head_feature="face")).save_pretrained(tmp_path)
    model = model_class.from_pretrained(tmp_path)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("pcl.pose_branch.")}


# Configs


@every_class
def test_a_model_leaves_the_callers_config_as_it_is(model_class):
    config = tiny.config(num_labels=7, custom_pipelines={"face-verification": {"impl": "pipelines_pcl.Some"}})
    before = config.to_dict()
    model_class(config)
    assert config.to_dict() == before
    assert PCLForHeadPoseEstimation(config).config.num_labels == 3


def test_auto_classes_build_from_a_config_alone():
    config = tiny.config(num_labels=7)
    model = AutoModelForImageClassification.from_config(config)
    assert type(model) is PCLForImageClassification
    assert model.classifier.out_features == 7
    assert type(AutoModel.from_config(config)) is PCLModel
    assert type(AutoModelForPreTraining.from_config(config)) is PCLForPreTraining
    config.architectures = ["PCLForHeadPoseEstimation"]
    assert type(AutoModelForImageClassification.from_config(config)) is PCLForHeadPoseEstimation


# Initialisation


def assert_uniform(values: torch.Tensor, bound: float, name: str):
    """torch's default for linear layers and convolutions: uniform in +-1 / sqrt(fan_in)."""
    assert values.abs().max() <= bound, name
    expected = bound / math.sqrt(3)
    # The deviation of n uniform values strays by sqrt(0.2 / n) of itself; six times that is never seen.
    assert abs(values.std() / expected - 1) < 6 * math.sqrt(0.2 / values.numel()) + 1 / values.numel(), name
    assert abs(values.mean()) < 6 * expected / math.sqrt(values.numel()), name


def assert_initialised(model: nn.Module, prefix: str = ""):
    """The published initialisation of every module of `model` whose name starts with `prefix`."""
    for name, module in model.named_modules():
        if not name.startswith(prefix):
            continue
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert torch.equal(module.weight, torch.ones_like(module.weight)), name
            assert torch.equal(module.running_var, torch.ones_like(module.running_var)), name
            assert not module.bias.any(), name
            assert not module.running_mean.any(), name
            assert module.num_batches_tracked == 0, name
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and not name.startswith("pcl."):
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert_uniform(module.weight, bound, name)
            assert_uniform(module.bias, bound, name)
        elif isinstance(module, nn.Conv2d):
            weight = module.weight
            expected = math.sqrt(2 / (weight.shape[0] * weight[0, 0].numel()))
            # The deviation of n normal values strays by sqrt(0.5 / n) of itself.
            assert abs(weight.std() / expected - 1) < 6 * math.sqrt(0.5 / weight.numel()), name
            assert abs(weight.mean()) < 6 * expected / math.sqrt(weight.numel()), name
            assert weight.abs().max() > 2 * expected, f"{name} is not normal"
            assert not module.bias.any(), name


def test_weights_start_as_published():
    assert_initialised(PCLForPreTraining(PCLConfig(**QUARTER)))


@pytest.mark.parametrize(
    ("model_class", "parts"),
    [
        (PCLForPreTraining, ["face_projection", "pose_projection", "decoder"]),
        (PCLForImageClassification, ["classifier"]),
        (PCLForHeadPoseEstimation, ["regressor"]),
    ],
)
def test_parts_that_an_encoder_folder_lacks_start_as_published(model_class, parts, tmp_path):
    # from_pretrained builds on the meta device, where nothing that __init__ computes is left.
    encoder = PCLModel(PCLConfig(**QUARTER, num_labels=40))
    encoder.save_pretrained(tmp_path)
    torch.manual_seed(1)
    model, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert_same_weights(encoder, model.pcl)
    assert {name.partition(".")[0] for name in report["missing_keys"]} == set(parts)
    assert not report["unexpected_keys"]
    for part in parts:
        assert_initialised(model, prefix=part)
    torch.manual_seed(2)
    again = model_class.from_pretrained(tmp_path)
    head = f"{parts[0]}.fc1" if model_class is PCLForPreTraining else parts[0]
    assert not torch.equal(again.get_submodule(head).weight, model.get_submodule(head).weight)


# Saving, loading, dtypes, devices


@pytest.mark.parametrize(
    ("model_class", "auto_class"),
    [
        (PCLModel, AutoModel),
        (PCLForPreTraining, AutoModelForPreTraining),
        (PCLForImageClassification, AutoModelForImageClassification),
        (PCLForHeadPoseEstimation, PCLForHeadPoseEstimation),
    ],
)
@torch.no_grad()
def test_a_saved_model_comes_back_equal_and_without_a_warning(
    model_class, auto_class, tiny_config, tmp_path, transformers_log
):
    inputs = inputs_for(model_class, tiny_config)
    model = model_class(tiny_config).train()
    model(**inputs)  # moves the running statistics off their start
    model.eval().save_pretrained(tmp_path)
    loaded = auto_class.from_pretrained(tmp_path)
    assert type(loaded) is model_class
    assert not loaded.training
    assert_same_weights(model, loaded)
    assert torch.equal(result_of(loaded(**inputs)), result_of(model(**inputs)))
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    assert not transformers_log.records


@pytest.mark.parametrize("model_class", [PCLForPreTraining, PCLForImageClassification, PCLForHeadPoseEstimation])
@torch.no_grad()
def test_auto_model_takes_the_encoder_out_of_every_folder_without_a_warning(
    model_class, tiny_config, tmp_path, transformers_log
):
    model = model_class(tiny_config)
    model.save_pretrained(tmp_path)
    encoder, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(encoder) is PCLModel
    assert_same_weights(model.pcl, encoder)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not transformers_log.records


def test_a_head_on_a_pretraining_folder_takes_its_encoder(tiny_config, tmp_path):
    pretrained = PCLForPreTraining(tiny_config)
    pretrained.save_pretrained(tmp_path)
    model = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=7, head_feature="pose")
    assert_same_weights(pretrained.pcl, model.pcl)
    assert model.classifier.out_features == 7
    assert model.config.head_feature == "pose"


@every_class
@torch.no_grad()
def test_models_load_and_run_in_bfloat16(model_class, tiny_config, tmp_path):
    model = model_class(tiny_config).eval()
    model.save_pretrained(tmp_path)
    half = model_class.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    inputs = inputs_for(model_class, tiny_config)
    expected, found = result_of(model(**inputs)), result_of(half(**inputs))  # float32 inputs
    # bfloat16 keeps 8 bits: a few per cent of the largest entry after about twenty layers.
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()
    half.save_pretrained(tmp_path)
    assert model_class.from_pretrained(tmp_path, dtype="auto").dtype == torch.bfloat16
    assert model_class.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize("device_map", ["cpu", "auto"])
@every_class
@torch.no_grad()
def test_models_load_with_a_device_map(model_class, device_map, tiny_config, tmp_path):
    model = model_class(tiny_config).eval()
    model.save_pretrained(tmp_path)
    mapped = model_class.from_pretrained(tmp_path, device_map=device_map)
    assert all(parameter.device.type != "meta" for parameter in mapped.parameters())
    if device_map == "cpu" or not torch.cuda.is_available():
        assert {parameter.device.type for parameter in mapped.parameters()} == {"cpu"}
    inputs = inputs_for(model_class, tiny_config)
    found = result_of(mapped(**{name: value.to(mapped.device) for name, value in inputs.items()}))
    # The same operations on a CPU; a GPU sums in another order.
    torch.testing.assert_close(found.cpu(), result_of(model(**inputs)), rtol=1e-3, atol=1e-4)


# torch.compile


def compiled(model: nn.Module):
    """The model as one graph: fullgraph makes any graph break an error. The eager backend leaves its numbers alone."""
    torch.compiler.reset()
    return torch.compile(model, fullgraph=True, backend="eager")


@pytest.mark.parametrize("model_class", [PCLModel, PCLForImageClassification, PCLForHeadPoseEstimation])
@torch.no_grad()
def test_models_compile_without_a_graph_break(model_class, tiny_config):
    model, inputs = model_class(tiny_config).eval(), inputs_for(model_class, tiny_config)
    expected, found = model(**inputs), compiled(model)(**inputs)
    assert type(found) is type(expected)
    assert list(found) == list(expected)
    torch.testing.assert_close(result_of(found), result_of(expected))


def test_pretraining_compiles_without_a_graph_break_and_keeps_its_gradients(tiny_config):
    # In float64, since the two sum up in different orders.
    inputs = tiny.all_inputs(tiny_config, dtype=torch.float64)
    model = PCLForPreTraining(tiny_config).double().train()
    twin = PCLForPreTraining(tiny_config).double().train()
    twin.load_state_dict(model.state_dict())
    expected, found = model(**inputs), compiled(twin)(**inputs)
    assert type(found) is type(expected)
    assert list(found) == list(expected)
    torch.testing.assert_close(found.loss, expected.loss)
    expected.loss.backward()
    found.loss.backward()
    for (name, parameter), other in zip(model.named_parameters(), twin.parameters()):
        torch.testing.assert_close(other.grad, parameter.grad, msg=lambda text, name=name: f"{name}: {text}")
    for (name, buffer), other in zip(model.named_buffers(), twin.buffers()):
        torch.testing.assert_close(other, buffer, msg=lambda text, name=name: f"{name}: {text}")


def test_classification_with_labels_compiles_without_a_graph_break():
    config = tiny.config(problem_type="single_label_classification", num_labels=3)
    model, images, labels = PCLForImageClassification(config), tiny.images(config, 3), torch.tensor([0, 1, 2])
    expected = model(images, labels=labels).loss
    torch.testing.assert_close(compiled(model)(images, labels=labels).loss, expected)


# Images of a batch a few at a time


@pytest.mark.parametrize("objective", tiny.INPUTS)
def test_a_batch_in_chunks_gives_the_loss_and_the_gradients_of_a_whole_one(tiny_config, monkeypatch, objective):
    inputs = tiny.INPUTS[objective](tiny_config, dtype=torch.float64)
    gradients = {}
    for chunk in (3, 100):
        monkeypatch.setattr(modeling_pcl, "CPU_CHUNK", chunk)
        torch.manual_seed(1)
        model = PCLForPreTraining(tiny_config).double().train()
        passes = []
        model.pcl.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        loss = model(**inputs).loss
        loss.backward()
        gradients[chunk] = {"loss": loss} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert len(passes) > 1 or chunk == 100
    torch.testing.assert_close(gradients[3], gradients[100])


def test_a_large_batch_in_the_memory_of_a_small_one_is_encoded_twice_and_has_the_same_gradient(tiny_config):
    inputs = tiny.face_contrast_inputs(tiny_config, count=6, dtype=torch.float64)
    gradients, passes = {}, {}
    for at_once in (None, 4):
        torch.manual_seed(1)
        model = PCLForPreTraining(tiny_config).double().train()
        model.images_at_once = at_once
        passes[at_once] = []
        model.pcl.register_forward_pre_hook(lambda _, images, seen=passes[at_once]: seen.append(len(images[0])))
        model(**inputs).loss.backward()
        gradients[at_once] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert passes == {None: [12], 4: [4, 4, 4] * 2}
    torch.testing.assert_close(gradients[4], gradients[None])


def test_gradients_of_chunks_are_summed_up_in_full_precision(tiny_config, monkeypatch):
    monkeypatch.setattr(modeling_pcl, "CPU_CHUNK", 1)
    image = tiny.images(tiny_config, 1)
    gradients = {}
    for count in (1, 300):
        torch.manual_seed(1)
        model = PCLForPreTraining(tiny_config).train()
        with torch.autocast("cpu", torch.bfloat16):
            model._encode(image.expand(count, -1, -1, -1))["face"].float().sum().backward()
        gradients[count] = model.pcl.face_branch.conv2.weight.grad
    # In bfloat16 the sum of equal summands stands still at the 256th.
    torch.testing.assert_close(gradients[300], 300 * gradients[1], rtol=1e-3, atol=0)


# Labels


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem_type", "loss"),
    [
        (4, torch.tensor([0, 3, 1]), "single_label_classification", F.cross_entropy),
        (
            4,
            torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
            "multi_label_classification",
            F.binary_cross_entropy_with_logits,
        ),
        (1, torch.tensor([[0.5], [-1.0], [2.0]]), "regression", F.mse_loss),
    ],
)
@pytest.mark.parametrize("is_told", [True, False], ids=["told", "inferred"])
@torch.no_grad()
def test_labels_give_the_loss_of_their_problem_type(num_labels, labels, problem_type, loss, is_told):
    config = tiny.config(num_labels=num_labels, **({"problem_type": problem_type} if is_told else {}))
    model = PCLForImageClassification(config).eval()
    images = tiny.images(config, 3)
    outputs = model(images, labels=labels)
    assert outputs.logits.shape == (3, num_labels)
    torch.testing.assert_close(outputs.loss, loss(outputs.logits, labels))
    assert model.config.problem_type == problem_type
    assert model(images).loss is None


@torch.no_grad()
def test_head_pose_loss_is_the_mean_absolute_error_in_degrees(tiny_config):
    model = PCLForHeadPoseEstimation(tiny_config).eval()
    model.regressor.weight.zero_()
    model.regressor.bias.copy_(torch.tensor([10.0, -5.0, 1.0]))
    outputs = model(tiny.images(tiny_config, 2), labels=torch.tensor([[16.0, -5.0, 1.0], [10.0, -5.0, -11.0]]))
    assert outputs.logits.tolist() == [[10.0, -5.0, 1.0]] * 2
    assert outputs.loss.item() == pytest.approx((6 + 12) / 6)


# Pipelines


@pytest.mark.parametrize("model_class", [PCLModel, PCLForPreTraining])
@torch.no_grad()
def test_feature_extraction_pipeline_reads_a_saved_folder(model_class, tiny_config, tmp_path):
    model = model_class(tiny_config).eval()
    model.save_pretrained(tmp_path)
    processor = PCLImageProcessor.for_image_size(32)
    processor.save_pretrained(tmp_path)
    photo = Image.effect_noise((50, 60), 80)
    expected = model.base_model(**processor(photo, return_tensors="pt"))
    extract = pipeline("image-feature-extraction", model=str(tmp_path), trust_remote_code=True, device="cpu")
    torch.testing.assert_close(torch.tensor(extract(photo)), expected.last_hidden_state)
    torch.testing.assert_close(torch.tensor(extract(photo, pool=True)), expected.pooler_output)


@torch.no_grad()
def test_classification_pipeline_reads_a_saved_folder_and_names_the_labels(tmp_path):
    names = {0: "happy", 1: "sad", 2: "surprised"}
    config = tiny.config(id2label=names, label2id={name: index for index, name in names.items()})
    model = PCLForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    processor = PCLImageProcessor.for_image_size(32)
    processor.save_pretrained(tmp_path)
    photo = Image.effect_noise((50, 60), 80)
    expected = model(**processor(photo, return_tensors="pt")).logits.softmax(1)[0]
    answers = pipeline("image-classification", model=str(tmp_path), trust_remote_code=True, device="cpu")(
        photo, top_k=3
    )
    assert {answer["label"]: pytest.approx(answer["score"], abs=1e-5) for answer in answers} == {
        name: expected[index].item() for index, name in names.items()
    }
    assert answers[0]["label"] == names[int(expected.argmax())]


# Errors


@pytest.mark.parametrize("sides", [(31, 64), (64, 31)])
def test_encoder_refuses_less_than_32_px(sides, tiny_config):
    with pytest.raises(ValueError, match=f"at least 32 px high and wide, got {sides[0]} x {sides[1]} px"):
        PCLModel(tiny_config)(torch.zeros(1, 3, *sides))


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 1, 32, 32), (2, 3, 32), (1, 2, 3, 32, 32)])
def test_encoder_refuses_images_of_another_shape_by_name(shape, tiny_config):
    with pytest.raises(ValueError, match=r"`pixel_values` must be \(batch, 3, height, width\), got"):
        PCLModel(tiny_config)(torch.rand(shape))


@every_class
def test_integer_images_are_refused_by_name(model_class, tiny_config):
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"`pixel_values` must be floating point in \[0, 1\], got torch.uint8"):
        model_class(tiny_config)(images)


@pytest.mark.parametrize("model_class", [PCLForPreTraining, *HEADS])
def test_images_of_another_size_than_the_linear_layers_are_refused_by_name(model_class, tiny_config):
    with pytest.raises(ValueError, match=r"`pixel_values` must be \(batch, 3, 32, 32\).*`image_size`"):
        model_class(tiny_config)(torch.rand(2, 3, 48, 48))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("noise", (4, 3, 32, 32)),
        ("face_views", (8, 3, 32, 48)),
        ("face_views", (8, 1, 32, 32)),
        ("face_views", (7, 3, 32, 32)),
        ("face_mix", (8, 5)),
        ("face_permutation", (5,)),
        ("pose_views", (8, 3, 16, 32)),
        ("pose_views", (6, 3, 32, 32)),
        ("pose_negative_views", (4, 4, 3, 32, 16)),
        ("pose_negative_views", (16, 3, 32, 32)),
        ("pose_mix", (4, 5)),
        ("pose_permutation", (5,)),
    ],
)
def test_pretraining_refuses_inputs_of_another_shape_by_name(name, shape, tiny_config):
    inputs = tiny.all_inputs(tiny_config) | {name: torch.rand(shape)}
    # The losses call the shares and the permutation of either contrast by their own names.
    named = name.split("_")[-1] if name.endswith(("mix", "permutation")) else name
    with pytest.raises(ValueError, match=f"`{named}` "):
        PCLForPreTraining(tiny_config)(**inputs)


@pytest.mark.parametrize("name", ["face_views", "pose_views", "pose_negative_views"])
def test_pretraining_refuses_integer_views_by_name(name, tiny_config):
    inputs = tiny.all_inputs(tiny_config)
    with pytest.raises(ValueError, match=f"`{name}` must be floating point"):
        PCLForPreTraining(tiny_config)(**(inputs | {name: inputs[name].byte()}))


def test_pretraining_refuses_inputs_of_no_or_half_an_objective(tiny_config):
    model = PCLForPreTraining(tiny_config)
    with pytest.raises(ValueError, match="`pixel_values`, `face_views` or `pose_views`"):
        model()
    with pytest.raises(ValueError, match="`pose_negative_views`"):
        model(pose_views=tiny.images(tiny_config, 4))


def test_negatives_that_cannot_be_dealt_in_equal_shares_are_refused():
    config = tiny.config(pose_negatives="batch")
    with pytest.raises(ValueError, match='`pose_negatives="batch"` needs a multiple of 3'):
        PCLForPreTraining(config)(**tiny.pose_contrast_inputs(config, count=3, negatives=4))


@pytest.mark.parametrize("shape", [(2, 2), (3,), (3, 3)])
def test_head_pose_labels_of_another_shape_are_refused_by_name(shape, tiny_config):
    with pytest.raises(ValueError, match=r"`labels` must be \(2, 3\): yaw, pitch, roll"):
        PCLForHeadPoseEstimation(tiny_config)(tiny.images(tiny_config, 2), labels=torch.zeros(shape))
