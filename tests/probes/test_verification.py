import numpy as np
import torch

from modeling_pcl.probes import verification
from modeling_pcl.probes.verification import compute_pair_cosines


def test_cosines_are_those_of_a_loop(monkeypatch):
    monkeypatch.setattr(verification, "ROWS_AT_ONCE", 3)
    features = torch.randn(6, 5)
    first, second = np.array([0, 1, 5, 2, 2, 4, 3]), np.array([1, 0, 2, 3, 2, 1, 5])
    rows = features.double().numpy()
    expected = [rows[i] @ rows[j] / (np.linalg.norm(rows[i]) * np.linalg.norm(rows[j])) for i, j in zip(first, second)]
    np.testing.assert_allclose(compute_pair_cosines(features, first, second), expected, rtol=1e-12)


def test_bfloat16_rows_are_compared_in_double():
    features = torch.randn(4, 300).bfloat16()
    cosines = compute_pair_cosines(features, np.array([0, 1]), np.array([2, 3]))
    np.testing.assert_allclose(cosines, compute_pair_cosines(features.double(), np.array([0, 1]), np.array([2, 3])))
