import logging

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modeling_pcl.probes import logistic_regression
from modeling_pcl.probes.logistic_regression import DEFAULT_INVERSE_PENALTY, fit_logistic_regression


def planted(images: int, classes: int, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of different means and scales that encode a class in the first dimensions."""
    labels = torch.arange(images) % classes
    features = noise * torch.randn(images, 12)
    features[torch.arange(images), labels] += 2
    return 0.1 * torch.arange(1, 13) * features + 5, labels


def test_the_penalty_is_the_best_on_validation_images(monkeypatch):
    grid = (1e-4, 1e-2, 1.0, 100.0)
    monkeypatch.setattr(logistic_regression, "INVERSE_PENALTIES", grid)
    train, validation = planted(40, 3, noise=3), planted(60, 3, noise=3)
    probe = fit_logistic_regression(*train, validation)
    scores = {}
    for penalty in grid:
        twin = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000))
        scores[penalty] = twin.fit(train[0].numpy(), train[1]).score(validation[0].numpy(), validation[1])
    assert len(set(scores.values())) > 1
    assert probe.score == pytest.approx(max(scores.values()))
    assert max(scores, key=scores.get) == probe.model.C
    # The model belongs to this penalty, not to the last one that was tried.
    assert (probe.predict(validation[0]) == validation[1].numpy()).mean() == pytest.approx(probe.score)


def test_of_equally_good_penalties_the_strongest_is_kept(monkeypatch):
    monkeypatch.setattr(logistic_regression, "INVERSE_PENALTIES", (0.1, 1.0, 10.0))
    features, labels = planted(60, 2, noise=0.01)
    probe = fit_logistic_regression(features, labels, (features, labels))
    assert (probe.score, probe.model.C) == (1.0, 0.1)


def test_without_validation_the_default_penalty_is_used_and_there_is_no_score():
    probe = fit_logistic_regression(*planted(60, 3))
    assert (probe.model.C, probe.score, probe.converged) == (DEFAULT_INVERSE_PENALTY, None, True)


def test_classes_may_be_names_and_features_of_half_precision_which_stay_as_they_are():
    features, labels = planted(60, 3, noise=0.01)
    names, before = np.array(["sad", "angry", "happy"])[labels], features.bfloat16()
    features = before.clone()
    assert fit_logistic_regression(features, names).predict(features).tolist() == names.tolist()
    assert torch.equal(features, before)


def test_a_fit_that_does_not_converge_is_recorded_and_logged_once(monkeypatch, caplog, recwarn):
    monkeypatch.setattr(logistic_regression, "INVERSE_PENALTIES", (1.0, 10.0))
    monkeypatch.setattr(logistic_regression, "MAX_ITERATIONS", 1)
    train = planted(60, 3)
    with caplog.at_level(logging.WARNING):
        probe = fit_logistic_regression(*train, train)
    assert not probe.converged
    (record,) = caplog.records
    assert "did not converge in 1 iterations at C = 1, 10" in record.getMessage()
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("value", "labels", "message"), [(0.0, [3, 3, 3, 3], "only one class"), (np.nan, [0, 1, 0, 1], "contains NaN")]
)
def test_one_class_and_features_that_are_not_finite_are_refused(value, labels, message):
    features = torch.rand(4, 2)
    features[0, 1] = value
    with pytest.raises(ValueError, match=message):
        fit_logistic_regression(features, labels)
