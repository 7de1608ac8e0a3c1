import numpy as np
import pytest

from modeling_pcl.probes.scores import regression_scores


def test_errors_of_numbers_have_a_sign_and_r2_needs_references_that_differ():
    scores = regression_scores(np.array([1.0, 4.0]), np.array([2.0, 6.0]))
    assert scores == {"mae": 1.5, "bias": -1.5, "r2": pytest.approx(1 - 5 / 8), "images": 2}
    assert regression_scores(np.array([1.0, 4.0]), np.array([2.0, 2.0]))["r2"] is None
