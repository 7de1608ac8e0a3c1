from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn
from torch.nn import functional as F

from modeling_pcl.probes.linear import (
    PUBLISHED,
    Examples,
    LinearProbe,
    LinearRecipe,
    find_best_f1_threshold,
    train_linear,
    tune_thresholds,
)
from modeling_pcl.probes.objectives import OBJECTIVES, Objective, Selection, format_candidate

EXPRESSION = replace(PUBLISHED["expression"], epochs=3, batch_size=16)
DIM, CLASSES = 12, 3


def examples(count: int, seed: int, noise: float = 0.5, scale: float = 1.0) -> Examples:
    """Classes that a linear layer can separate, up to the noise."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(CLASSES, (count,), generator=generator)
    centres = 2 * torch.eye(CLASSES, DIM)
    features = centres[targets] + noise * torch.randn(count, DIM, generator=generator)
    return Examples(5 + scale * features, targets)


def train(recipe: LinearRecipe, train_set: Examples, held_out: Examples, objective=OBJECTIVES["expression"], seed=0):
    return train_linear(train_set, held_out, CLASSES, objective, recipe, seed)


def by_torch(recipe: LinearRecipe, train_set: Examples, seed: int) -> nn.Module:
    """Train one candidate with torch's modules, until its last epoch."""
    generator = torch.Generator().manual_seed(seed)
    linear, norm = nn.Linear(DIM, CLASSES), nn.BatchNorm1d(DIM)
    with torch.no_grad():
        for parameter, shape in ((linear.weight, (CLASSES, DIM)), (linear.bias, CLASSES)):
            parameter.copy_((2 * torch.rand(shape, generator=generator) - 1) / DIM**0.5)
    model = nn.Sequential(norm, linear) if recipe.batch_norm else linear
    make = {"adam": torch.optim.Adam, "adamw": partial(torch.optim.AdamW, weight_decay=recipe.weight_decay)}
    optimizer = make[recipe.optimizer](model.parameters(), lr=recipe.learning_rates[0])
    steps = recipe.epochs * -(-len(train_set) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches = 0
    for _ in range(recipe.epochs):
        for places in torch.randperm(len(train_set), generator=generator).split(recipe.batch_size):
            batches += 1
            norm.momentum = max(0.1, 1 / batches)
            optimizer.zero_grad()
            F.cross_entropy(model(train_set.features[places]), train_set.targets[places]).backward()
            optimizer.step()
            if recipe.cosine:
                schedule.step()
    return model.eval()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("optimizer", "cosine", "weight_decay"), [("adam", True, 0.01), ("adamw", False, 0.01), ("adamw", True, 3.0)]
)
def test_a_candidate_is_what_torchs_own_modules_give(batch_norm, optimizer, cosine, weight_decay):
    recipe = LinearRecipe(optimizer, (1e-2,), 16, batch_norm, cosine, epochs=4, weight_decay=weight_decay)
    train_set = examples(60, 1, scale=3)
    held_out = examples(20, 2)
    count = iter(range(100))
    objective = Objective(F.cross_entropy, lambda logits, targets: float(next(count)), "rises: the last epoch is kept")
    probe = train(recipe, train_set, held_out, objective, seed=4)
    expected = by_torch(recipe, train_set, seed=4)(held_out.features)
    torch.testing.assert_close(probe.compute_logits(held_out.features), expected, rtol=1e-4, atol=1e-4)
    assert (probe.selection.epoch, probe.selection.candidate) == (4, {"learning_rate": 1e-2})


def test_candidates_side_by_side_are_the_candidates_alone():
    train_set, held_out = examples(60, 1), examples(30, 2)
    both = train(replace(EXPRESSION, learning_rates=(1e-2, 1e-3), batch_norm=True), train_set, held_out)
    for rate in (1e-2, 1e-3):
        alone = train(replace(EXPRESSION, learning_rates=(rate,), batch_norm=True), train_set, held_out)
        assert both.selection.history[f"learning rate {rate:g}"] == alone.selection.history[f"learning rate {rate:g}"]


def test_the_best_epoch_of_the_best_candidate_is_kept_and_its_score_is_that_of_its_logits():
    train_set, held_out = examples(60, 1, noise=2), examples(40, 2, noise=2)
    probe = train(replace(EXPRESSION, epochs=30, learning_rates=(1e-1, 1e-3)), train_set, held_out)
    chosen = probe.selection
    scores = chosen.history[format_candidate(chosen.candidate)]
    assert chosen.score == max(score for history in chosen.history.values() for score in history)
    assert scores[chosen.epoch - 1] == chosen.score
    assert chosen.score not in scores[: chosen.epoch - 1]
    accuracy = (probe.compute_logits(held_out.features).argmax(dim=1) == held_out.targets).float().mean()
    assert float(accuracy) == pytest.approx(chosen.score)
    assert min(scores) < chosen.score


def test_only_the_rows_that_count_are_seen():
    clean, other = examples(60, 1), examples(60, 7)
    mixed = Examples(
        torch.cat([other.features, clean.features]), torch.cat([other.targets, clean.targets]), torch.arange(60, 120)
    )
    held_out = examples(30, 2)
    alone = train(EXPRESSION, clean, held_out).selection
    assert train(EXPRESSION, mixed, held_out).selection == alone
    assert train(EXPRESSION, other, held_out).selection != alone


def test_seeds_differ_and_repeat_and_torchs_random_state_stays():
    state = torch.get_rng_state()
    probes = [train(EXPRESSION, examples(60, 1), examples(30, 2), seed=seed) for seed in (0, 1, 0)]
    assert torch.equal(probes[0].weight, probes[2].weight)
    assert not torch.equal(probes[0].weight, probes[1].weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_head_pose_is_learned_in_degrees():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(200, DIM, generator=generator)
    angles = 20 * features[:, :3] + 5
    table = [Examples(features, angles, rows) for rows in (torch.arange(150), torch.arange(150, 200))]
    recipe = replace(PUBLISHED["head_pose"], learning_rates=(0.3,), epochs=60, batch_size=16)
    assert train_linear(*table, 3, OBJECTIVES["head_pose"], recipe).selection.score > -2


def test_numbers_of_any_unit_are_learned_alike():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(200, DIM, generator=generator)
    parts = torch.arange(150), torch.arange(150, 200)
    scores = []
    for unit in (1.0, 1e6):
        numbers = unit * (3 * features[:, :1] + 40)
        recipe = replace(PUBLISHED["regression"], learning_rates=(0.03,), epochs=60, batch_size=16)
        probe = train_linear(
            *(Examples(features, numbers, rows) for rows in parts), 1, OBJECTIVES["regression"], recipe
        )
        scores.append(probe.selection.score / unit)
    assert scores[0] > -0.5
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)


def test_of_one_scale_features_that_hardly_vary_weigh_little():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(200, DIM, generator=generator)
    features[:, 3] *= 1e-3
    numbers = features[:, :1] + 1e3 * features[:, 3:4]
    parts = [Examples(features, numbers, rows) for rows in (torch.arange(150), torch.arange(150, 200))]
    separate = replace(PUBLISHED["regression"], learning_rates=(0.03,), epochs=40, batch_size=150)
    common = replace(separate, one_scale=True)
    weights = [
        train_linear(*parts, 1, OBJECTIVES["regression"], recipe).weight[0].abs() for recipe in (separate, common)
    ]
    assert weights[0][3] > 100 * weights[0][0]
    assert weights[1][3] < 10 * weights[1][0]
    # Scaling all features by ten must change nothing.
    scaled = [Examples(10 * part.features, part.targets, part.rows) for part in parts]
    probes = [train_linear(*sets, 1, OBJECTIVES["regression"], common) for sets in (parts, scaled)]
    torch.testing.assert_close(probes[1].weight * 10, probes[0].weight, rtol=1e-2, atol=1e-3)


def test_a_candidate_that_diverges_leaves_the_others(recwarn):
    recipe = replace(EXPRESSION, learning_rates=(float("inf"), 1e-2), epochs=2)
    assert train(recipe, examples(60, 1), examples(30, 2)).selection.candidate == {"learning_rate": 1e-2}
    with pytest.raises(ValueError, match="diverged; lower its learning rates"):
        train(replace(recipe, learning_rates=(float("inf"),)), examples(60, 1), examples(30, 2))


def test_too_few_examples_are_refused():
    with pytest.raises(ValueError, match="2 training examples and 1 held out, got 1 and 30"):
        train(EXPRESSION, examples(1, 1), examples(30, 2))
    with pytest.raises(ValueError, match="got 60 and 0"):
        train(EXPRESSION, examples(60, 1), examples(0, 2))


def test_a_last_batch_of_one_does_not_stop_batch_norm():
    probe = train(replace(EXPRESSION, batch_norm=True), examples(17, 1), examples(30, 2))
    assert probe.weight.isfinite().all()


# Thresholds of several units


def test_the_threshold_has_the_best_f1_of_all_there_are():
    generator = np.random.default_rng(0)
    for _ in range(20):
        active = generator.random(30) < 0.3
        active[0] = True
        logits = active + generator.normal(size=30)
        best = max(f1_score(active, logits >= level) for level in logits)
        assert f1_score(active, logits >= find_best_f1_threshold(active, logits)) == best


def test_folded_into_the_bias_it_is_a_probability_of_one_half_and_a_unit_never_active_keeps_its_bias():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 4, generator=generator)
    targets = (features[:, :3] + torch.randn(200, 3, generator=generator) > 1.5).float()
    targets[::7, 0], targets[:, 2] = torch.nan, 0
    probe = LinearProbe(torch.eye(3, 4), torch.tensor([-9.0, 9.0, 0.25]), Selection())
    tuned = tune_thresholds(probe, Examples(features, targets))
    assert torch.equal(tuned.weight, probe.weight)
    before, after = (OBJECTIVES["action_units"].score(one.compute_logits(features), targets) for one in (probe, tuned))
    assert after > before
    assert tuned.bias[2] == 0.25
