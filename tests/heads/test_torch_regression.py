"""The probe on a device: scikit-learn's optimum, tried on the CPU, and its choice of penalty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pathclip.heads import fit_probe, probe
from pathclip.heads.torch_regression import TorchRegression


def data(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Uneven classes that overlap."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(classes), [20 + 15 * c for c in range(classes)])
    rows = rng.normal(size=(classes, 6))[truth] + 1.2 * rng.normal(size=(len(truth), 6))
    return rows, truth.astype(str)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_the_optimum_is_scikit_learns(classes: int, c: float) -> None:
    rows, truth = data(classes)
    theirs = LogisticRegression(C=c, class_weight="balanced", max_iter=5000, tol=1e-9).fit(rows, truth)
    ours = TorchRegression(c, 5000, 1e-9, "cpu").fit(rows, truth)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-4, rtol=1e-3)
    centred = [b - b.mean() if classes > 2 else b for b in (ours.intercept_, theirs.intercept_)]
    np.testing.assert_allclose(*centred, atol=2e-3)
    assert ours.predict(rows).tolist() == theirs.predict(rows).tolist()
    assert ours.classes_.tolist() == theirs.classes_.tolist()


@pytest.mark.parametrize("classes", [2, 4])
def test_a_probe_fitted_by_torch_chooses_and_says_the_same(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, truth = data(classes, seed=1)
    plain = fit_probe(rows, truth.tolist())
    used = []

    class OnTheCpu(TorchRegression):
        def __init__(self, c: float, iterations: int, tolerance: float, device: str) -> None:
            used.append(device)
            super().__init__(c, iterations, tolerance, "cpu")

    monkeypatch.setattr("pathclip.heads.torch_regression.TorchRegression", OnTheCpu)
    found = fit_probe(rows, truth.tolist(), device="cuda")
    assert set(used) == {"cuda"}
    assert len(used) == probe.FOLDS * len(probe.GRID) + 1
    assert (found.c, found.classes) == (plain.c, plain.classes)
    np.testing.assert_allclose(found.probabilities(rows), plain.probabilities(rows), atol=2e-3)


def test_it_works_where_gradients_are_off() -> None:
    rows, truth = data(3)
    with torch.no_grad():
        assert (TorchRegression(1.0, 50, 1e-4, "cpu").fit(rows, truth).predict(rows) == truth).mean() > 0.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_probe_on_a_gpu_is_the_probe_on_a_cpu() -> None:
    rows, truth = data(4)
    found, plain = (fit_probe(rows, truth.tolist(), c=1.0, device=d) for d in ("cuda", "cpu"))
    np.testing.assert_allclose(found.probabilities(rows), plain.probabilities(rows), atol=1e-3)
