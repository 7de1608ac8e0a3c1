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
    """Features of unlike means and scales, with a class in the first dimensions."""
    labels = torch.arange(images) % classes
    features = noise * torch.randn(images, 12)
    features[torch.arange(images), labels] += 2
    return 0.1 * torch.arange(1, 13) * features + 5, labels


@pytest.mark.parametrize("classes", [2, 4])
def test_folded_logits_have_the_probabilities_of_scikit_learns_pipeline(classes):
    features, labels = planted(200, classes)
    probe = fit_logistic_regression(features, labels)
    twin = make_pipeline(StandardScaler(), LogisticRegression(C=DEFAULT_INVERSE_PENALTY))
    twin.fit(features.double().numpy(), labels)
    assert probe.weight.shape == (classes, 12)
    assert probe.weight.dtype == probe.bias.dtype == torch.float32
    logits = features @ probe.weight.T + probe.bias
    torch.testing.assert_close(probe.logits(features), logits, atol=1e-4, rtol=0)  # Another order of summing.
    expected = torch.from_numpy(twin.predict_proba(features.double().numpy())).float()
    # Two solvers, one in float32, each stop within their tolerance of the optimum.
    torch.testing.assert_close(logits.softmax(dim=1), expected, atol=2e-3, rtol=0)


def test_the_penalty_is_the_best_on_validation_images():
    train, validation = planted(40, 3, noise=3), planted(60, 3, noise=3)
    grid = (1e-4, 1e-2, 1.0, 100.0)
    probe = fit_logistic_regression(*train, validation, inverse_penalties=grid[::-1])
    scores = {}
    for penalty in grid:
        twin = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000))
        scores[penalty] = twin.fit(train[0].numpy(), train[1]).score(validation[0].numpy(), validation[1])
    assert len(set(scores.values())) > 1
    assert probe.score == pytest.approx(max(scores.values()))
    assert probe.inverse_penalty == max(scores, key=scores.get)
    # The weights are those of this penalty, not of the last one tried.
    predicted = torch.from_numpy(probe.classes)[probe.logits(validation[0]).argmax(dim=1)]
    assert float((predicted == validation[1]).float().mean()) == pytest.approx(probe.score)


def test_of_equally_good_penalties_the_strongest_is_kept():
    features, labels = planted(60, 2, noise=0.01)
    probe = fit_logistic_regression(features, labels, (features, labels), inverse_penalties=(10.0, 0.1, 1.0))
    assert (probe.score, probe.inverse_penalty) == (1.0, 0.1)


def test_without_validation_the_default_penalty_is_used_and_there_is_no_score():
    probe = fit_logistic_regression(*planted(60, 3))
    assert (probe.inverse_penalty, probe.score, probe.converged) == (DEFAULT_INVERSE_PENALTY, None, True)


def test_rows_are_in_the_order_of_the_sorted_class_names():
    features, labels = planted(60, 3, noise=0.01)
    names = np.array(["sad", "angry", "happy"])[labels]
    probe = fit_logistic_regression(features, names)
    assert probe.classes.tolist() == ["angry", "happy", "sad"]
    assert probe.classes[probe.logits(features).argmax(dim=1)].tolist() == names.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_of_any_dtype_give_what_their_float32_copy_gives_and_stay_as_they_are(dtype):
    features, labels = planted(60, 3)
    features = features.to(dtype)
    before = features.clone()
    probe, twin = (fit_logistic_regression(given, labels, (given, labels)) for given in (features, before.float()))
    torch.testing.assert_close(probe.weight, twin.weight)
    assert torch.equal(features, before)


def test_a_constant_feature_has_finite_weights():
    features, labels = planted(60, 3)
    features[:, 0] = 3
    assert fit_logistic_regression(features, labels).weight.isfinite().all()


def test_a_fit_that_does_not_converge_is_recorded_and_logged_once(monkeypatch, caplog, recwarn):
    monkeypatch.setattr(logistic_regression, "MAX_ITERATIONS", 1)
    train = planted(60, 3)
    with caplog.at_level(logging.WARNING):
        probe = fit_logistic_regression(*train, train, inverse_penalties=(1.0, 10.0))
    assert not probe.converged
    (record,) = caplog.records
    assert "did not converge in 1 iterations at C = 1, 10" in record.getMessage()
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("labels", "validation", "message"),
    [
        ([3, 3, 3, 3], None, r"at least 2 classes, got \[3\]"),
        ([0, 1], None, "`train` must be 4 classes"),
        ([0, 1, 0, 1], (torch.rand(4, 2), [0]), "`validation` must be 4 classes"),
    ],
)
def test_two_classes_and_a_label_for_each_image_are_required(labels, validation, message):
    with pytest.raises(ValueError, match=message):
        fit_logistic_regression(torch.rand(4, 2), labels, validation)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value):
    labels, features = [0, 1, 0, 1], torch.rand(4, 2)
    broken = features.clone()
    broken[0, 1] = value
    with pytest.raises(ValueError, match="`train` must be finite"):
        fit_logistic_regression(broken, labels)
    with pytest.raises(ValueError, match="`validation` must be finite"):
        fit_logistic_regression(features, labels, (broken, labels))
