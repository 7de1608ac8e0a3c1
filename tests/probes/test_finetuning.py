import logging
import math
from dataclasses import replace
from itertools import count

import pytest
import tiny
import torch
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook

from modeling_pcl import PCLForHeadPoseEstimation, PCLForImageClassification
from modeling_pcl.features_pcl import READABLE_FEATURES
from modeling_pcl.probes import finetuning
from modeling_pcl.probes.finetuning import WEIGHT_DECAY, Finetuning, make_parameter_groups
from modeling_pcl.probes.objectives import OBJECTIVES, Objective

EXPRESSION, HEAD_POSE = OBJECTIVES["expression"], OBJECTIVES["head_pose"]
# A score that differs between any two models, as an accuracy may not.
LIKELIHOOD = Objective(F.cross_entropy, lambda logits, targets: -float(F.cross_entropy(logits, targets)), "likelihood")


def candidates(learning_rates: tuple, layer_decays: tuple, epochs: int) -> dict:
    return {"learning_rates": learning_rates, "layer_decays": layer_decays, "epochs": epochs}


ONE_CANDIDATE = candidates((1e-3,), (0.7,), epochs=2)
EXACT = {"rtol": 0, "atol": 0}
STAGES = [f"pcl.trunk.stages.{index}" for index in (4, 3, 2, 1, 0)]


def make_classifier(**changes) -> PCLForImageClassification:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PCLForImageClassification(tiny.config(num_labels=2, **changes))


def make_regressor(**changes) -> PCLForHeadPoseEstimation:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PCLForHeadPoseEstimation(tiny.config(**changes))


def lit_from_a_side(images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, `(images, 3, 32, 32)` uint8, brighter in the left half in class 0, in the right half in class 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % 2
    noise = torch.randint(0, 100, (images, 3, 32, 32), generator=generator)
    is_lit = (torch.arange(32) >= 16) == labels.view(-1, 1, 1, 1)  # (images, 1, 1, 32)
    return (noise + 120 * is_lit).to(torch.uint8), labels


TRAIN, HELD_OUT = [lit_from_a_side(8, seed) for seed in (1, 2)], [lit_from_a_side(5, 3), lit_from_a_side(3, 4)]


def run(recipe=ONE_CANDIDATE, make_model=make_classifier, objective=LIKELIHOOD, train=TRAIN, **options):
    """`Finetuning` on images lit from a side, with some arguments changed."""
    options = {"held_out_batches": lambda: HELD_OUT, "seed": 0, "steps_per_epoch": len(train)} | options
    options = {"mirror_targets": lambda labels: 1 - labels} | options
    return Finetuning(lambda epoch: train, objective=objective, **recipe, **options).run(make_model)


def logits_of(model, batches=HELD_OUT) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(images.float() / 255).logits for images, _ in batches])


def accuracy_of(model) -> float:
    return EXPRESSION.score(logits_of(model), torch.cat([labels for _, labels in HELD_OUT]))


def parameters_of(groups: list[dict]) -> list[int]:
    return [id(parameter) for group in groups for parameter in group["params"]]


# Parameter groups


@pytest.mark.parametrize(
    ("feature", "layers"),
    [
        ("trunk", ["classifier", *STAGES]),
        ("face", ["classifier", "pcl.face_branch", *STAGES]),
        ("pose", ["classifier", "pcl.pose_branch", *STAGES]),
        ("face+pose", ["classifier", "pcl.face_branch", *STAGES]),
        ("face+pose", ["classifier", "pcl.pose_branch", *STAGES]),
    ],
)
def test_each_layer_learns_at_a_fixed_share_of_the_rate_of_the_layer_above_it(feature, layers):
    model = make_classifier(head_feature=feature)
    groups = make_parameter_groups(model, 0.08, 0.5)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for layer, rate in zip(layers, (0.08, 0.04, 0.02, 0.01, 0.005, 0.0025, 0.00125)):
        for parameter in model.get_submodule(layer).parameters():
            assert rates[id(parameter)] == pytest.approx(rate)


@pytest.mark.parametrize("make_model", [make_classifier, make_regressor])
@pytest.mark.parametrize("feature", READABLE_FEATURES)
def test_exactly_the_parameters_that_the_loss_reaches_are_in_one_group_each(make_model, feature):
    model = make_model(head_feature=feature)
    model(tiny.images(model.config, 2)).logits.sum().backward()
    reached = [id(parameter) for parameter in model.parameters() if parameter.grad is not None]
    assert sorted(parameters_of(make_parameter_groups(model, 1e-3, 0.7))) == sorted(reached)


def test_only_biases_do_not_decay():
    model = make_classifier()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in make_parameter_groups(model, 1e-3, 0.7):
        kinds = {names[id(parameter)].split(".")[-1] for parameter in group["params"]}
        assert (kinds, group["weight_decay"]) in [({"weight"}, WEIGHT_DECAY), ({"bias"}, 0.0)]


def test_frozen_parameters_are_in_no_group():
    model = make_classifier()
    model.pcl.requires_grad_(False)
    assert parameters_of(make_parameter_groups(model, 1e-3, 0.7)) == [id(p) for p in model.classifier.parameters()]


# What is trained, and how


def test_a_branch_that_the_head_does_not_read_stays_as_it_was():
    before, after = (model.state_dict() for model in (make_classifier(), run(objective=EXPRESSION)[0]))
    unchanged = {name.split(".")[1] for name in before if torch.equal(before[name], after[name])}
    assert unchanged == {"face_branch", "pose_branch"}


def test_images_lit_from_either_side_are_told_apart_by_the_model_as_it_is_saved(tmp_path):
    assert accuracy_of(make_classifier()) < 1.0
    model, chosen = run(candidates((3e-3,), (1.0,), epochs=10), objective=EXPRESSION)
    assert chosen.score == 1.0
    assert not model.training
    model.save_pretrained(tmp_path)
    assert accuracy_of(PCLForImageClassification.from_pretrained(tmp_path)) == 1.0


def test_a_head_that_turns_with_the_light_is_followed():
    images, side = TRAIN[0]
    yaw = 20.0 * side - 10
    batches = [(images, torch.stack([yaw, -yaw, 0 * yaw], dim=1))]
    recipe = candidates((1e-2,), (0.7,), epochs=20)
    options = {"held_out_batches": lambda: batches, "mirror_targets": torch.neg}
    _, chosen = run(recipe, make_regressor, HEAD_POSE, batches, **options)
    assert chosen.score > -3.0  # 6.7 degrees is the error of zeros.


def test_a_batch_of_which_no_image_is_left_changes_nothing():
    images, labels = TRAIN[0]
    train, held_out = [(images, labels), (images[:0], labels[:0])], [*HELD_OUT, (images[:0], labels[:0])]
    recipe = ONE_CANDIDATE | {"epochs": 1}
    _, with_empty = run(recipe, train=train, held_out_batches=lambda: held_out)
    assert with_empty == run(recipe, train=train[:1])[1]


@pytest.mark.parametrize(("is_fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_training_computes_in_bfloat16_where_that_is_fast_and_scores_in_float32(is_fast, dtype, monkeypatch):
    monkeypatch.setattr(finetuning, "has_fast_bfloat16", lambda device_type: is_fast)
    dtypes, scored = set(), []

    def make_model():
        model = make_classifier()
        model.register_forward_hook(lambda model, _, outputs: dtypes.add((model.training, outputs.logits.dtype)))
        return model

    def score(logits, targets):
        scored.append(logits)
        return 0.0

    model = run(ONE_CANDIDATE | {"epochs": 1}, make_model, replace(EXPRESSION, score=score))[0]
    assert dtypes == {(True, dtype), (False, torch.float32)}
    # The order of the channels in memory may change the order of sums.
    torch.testing.assert_close(scored[0], logits_of(model.to(memory_format=torch.contiguous_format)))


def test_rates_rise_linearly_and_fall_to_zero_along_a_cosine_over_all_steps_while_decay_stays(monkeypatch):
    monkeypatch.setattr(finetuning, "WARMUP_SHARE", 0.2)
    rates, decays = [], set()

    def note(optimizer, *_):
        rates.append(optimizer.param_groups[0]["lr"])
        decays.update(group["weight_decay"] for group in optimizer.param_groups)

    handle = register_optimizer_step_pre_hook(note)
    run(candidates((1e-3,), (1.0,), epochs=5))
    handle.remove()
    expected = [0, 0.5, *((1 + math.cos(math.pi * step / 8)) / 2 for step in range(8))]
    assert rates == pytest.approx([1e-3 * share for share in expected])
    assert decays == {WEIGHT_DECAY, 0.0}


# Choice of candidate and epoch


@pytest.mark.parametrize(
    ("scores", "candidate", "epoch"),
    [
        ([0.1, 0.9, 0.3, 0.2, 0.4, 0.5], 0, 2),
        ([0.1, 0.2, 0.3, 0.2, 0.9, 0.5], 1, 2),
        ([-9.0, -8.0, -7.0, -8.0, -9.0, -7.0], 0, 3),  # The first of equal scores.
    ],
)
def test_the_best_epoch_of_the_best_candidate_is_kept_and_not_the_last(scores, candidate, epoch):
    scored_logits, remaining = [], iter(scores)

    def score(logits, targets):
        scored_logits.append(logits)
        return next(remaining)

    model, chosen = run(candidates((1e-2,), (1.0, 0.5), epochs=3), objective=replace(EXPRESSION, score=score))
    index = 3 * candidate + epoch - 1
    assert chosen.candidate == {"learning_rate": 1e-2, "layer_decay": (1.0, 0.5)[candidate]}
    assert (chosen.epoch, chosen.score) == (epoch, scores[index])
    torch.testing.assert_close(logits_of(model), scored_logits[index], **EXACT)
    assert not torch.equal(scored_logits[index], scored_logits[-1])


def test_the_history_has_a_score_for_each_epoch_of_every_candidate():
    _, chosen = run(candidates((1e-2, 1e-3), (1.0, 0.5), epochs=2))
    rates, decays = ("learning rate 0.01", "learning rate 0.001"), ("layer decay 1", "layer decay 0.5")
    assert list(chosen.history) == [f"{rate}, {decay}" for rate in rates for decay in decays]
    assert [len(scores) for scores in chosen.history.values()] == [2, 2, 2, 2]
    assert max(score for scores in chosen.history.values() for score in scores) == chosen.score


def test_every_candidate_starts_from_the_same_weights_and_sees_the_same_mirrors():
    both, alone = (run(candidates((1e-2,), decays, epochs=2))[1].history for decays in ((1.0, 0.5), (0.5,)))
    assert both.items() > alone.items()


def test_one_seed_gives_one_result_and_leaves_the_global_random_state_alone():
    def weights(seed: int) -> torch.Tensor:
        model, _ = run(seed=seed)
        return model.pcl.trunk.stages[0].conv1.weight

    state = torch.get_rng_state()
    one, same, other = weights(0), weights(0), weights(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# Mirrors


def trained_on(mirror_targets) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pixel values and targets of every step, of head poses in `TRAIN`'s images."""
    poses = [(images, torch.randn(len(images), 3)) for images, _ in TRAIN]
    copies = [(images.clone(), targets.clone()) for images, targets in poses]
    pixel_values, targets = [], []

    def keep(model, inputs):
        if model.training:
            pixel_values.append(inputs[0])

    def make_model():
        model = make_regressor()
        model.register_forward_pre_hook(keep)
        return model

    def loss(logits, batch_targets):
        targets.append(batch_targets)
        return F.l1_loss(logits, batch_targets)

    run(
        ONE_CANDIDATE,
        make_model,
        replace(HEAD_POSE, loss=loss),
        poses,
        held_out_batches=lambda: poses,
        mirror_targets=mirror_targets,
    )
    torch.testing.assert_close(poses, copies, **EXACT)  # The caller's tensors are not mirrored.
    steps = list(zip(pixel_values, targets))
    assert len(steps) == 4
    return [(*step, images.float() / 255, expected) for step, (images, expected) in zip(steps, [*poses, *poses])]


def test_a_mirrored_image_has_yaw_and_roll_of_the_other_sign_and_others_stay():
    signs = torch.tensor([-1.0, 1.0, -1.0])
    mirrors = []
    for pixel_values, targets, images, poses in trained_on(lambda targets: targets * signs):
        mirrored = (pixel_values == images.flip(3)).all(dim=(1, 2, 3))
        assert torch.equal(mirrored, (pixel_values != images).any(dim=(1, 2, 3)))
        assert torch.equal(targets, torch.where(mirrored[:, None], poses * signs, poses))
        mirrors.append(mirrored)
    assert 8 <= torch.cat(mirrors).sum() <= 24  # Of 32; one in 500 seeds lies outside.
    assert not torch.equal(torch.cat(mirrors[:2]), torch.cat(mirrors[2:]))  # Each epoch mirrors other images.


# Divergence


def test_a_candidate_that_diverges_ends_with_a_warning_and_the_others_go_on(caplog):
    with caplog.at_level(logging.WARNING):
        _, chosen = run(candidates((1e38, 1e-3), (1.0,), epochs=3))
    assert chosen.candidate["learning_rate"] == 1e-3
    assert [len(scores) for scores in chosen.history.values()] == [0, 3]
    assert "Learning rate 1e+38 with layer decay 1 diverged: the training loss is nan" in caplog.text


def test_the_best_epoch_before_a_divergence_is_kept():
    steps = count(1)

    def loss(logits, targets):
        return F.cross_entropy(logits, targets) / float(next(steps) <= 5)

    scored_logits = []

    def score(logits, targets):
        scored_logits.append(logits)
        return float(len(scored_logits))

    model, chosen = run(ONE_CANDIDATE | {"epochs": 4}, objective=Objective(loss, score, "epochs"))
    assert (chosen.epoch, *chosen.history.values()) == (2, [1.0, 2.0])
    torch.testing.assert_close(logits_of(model), scored_logits[1], **EXACT)


@pytest.mark.parametrize("train", [TRAIN, TRAIN[:1]])
def test_divergence_of_all_candidates_is_an_error_even_if_it_shows_only_on_the_held_out_images(train):
    recipe = candidates((1e38,), (1.0, 1.0), epochs=1)
    with pytest.raises(ValueError, match="Every candidate diverged; lower `--learning_rates`"):
        run(recipe, objective=EXPRESSION, train=train)
