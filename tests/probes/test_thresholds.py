import numpy as np
import torch
from sklearn.metrics import f1_score

from modeling_pcl.probes.linear import Examples, LinearProbe
from modeling_pcl.probes.objectives import mean_f1
from modeling_pcl.probes.selection import Selection
from modeling_pcl.probes.thresholds import best_f1_threshold, with_best_thresholds


def test_the_threshold_has_the_best_f1_of_all_there_are():
    generator = np.random.default_rng(0)
    for _ in range(20):
        active = generator.random(30) < 0.3
        active[0] = True
        logits = active + generator.normal(size=30)
        best = max(f1_score(active, logits >= level) for level in logits)
        assert f1_score(active, logits >= best_f1_threshold(active, logits)) == best


def test_folded_into_the_bias_it_is_a_probability_of_one_half():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 4, generator=generator)
    targets = (features[:, :2] + torch.randn(200, 2, generator=generator) > 1.5).float()
    targets[::7, 0] = torch.nan
    probe = LinearProbe(torch.eye(2, 4), torch.tensor([-9.0, 9.0]), Selection())
    tuned = with_best_thresholds(probe, Examples(features, targets))
    assert torch.equal(tuned.weight, probe.weight)
    assert mean_f1(tuned.logits(features), targets) > max(0.5, mean_f1(probe.logits(features), targets))


def test_a_unit_that_is_never_active_keeps_its_bias():
    probe = LinearProbe(torch.ones(2, 3), torch.tensor([0.5, 0.25]), Selection())
    targets = torch.tensor([[1.0, 0.0], [0.0, torch.nan]])
    tuned = with_best_thresholds(probe, Examples(torch.randn(2, 3), targets))
    assert tuned.bias[1] == 0.25
    assert tuned.bias[0] != 0.5
