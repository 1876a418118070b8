from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pathclip.core.errors import UserError
from pathclip.heads import LinearProbe, few_shot_draws, fit_probe


def clouds(count: int, classes: int = 3, size: int = 6, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Unit features around a direction per class, uneven class sizes."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, count, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    rows = np.eye(classes, size)[truth] + 0.4 * rng.standard_normal((count, size)) + 0.5
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), [f"class {t}" for t in truth]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("c", [0.1, 10, 1000])
def test_a_probe_is_the_logistic_regression_of_the_plain_features(classes: int, c: float) -> None:
    rows, labels = clouds(200, classes)
    ours = fit_probe(rows, labels, c=c)
    theirs = LogisticRegression(C=c, class_weight="balanced", max_iter=100_000, tol=1e-9).fit(rows, labels)
    assert ours.classes == tuple(theirs.classes_)
    assert np.allclose(ours.probabilities(rows), theirs.predict_proba(rows), atol=2e-3)
    assert ours.predict(rows) == theirs.predict(rows).tolist()


def test_its_gradient_is_zero() -> None:
    rows, labels = clouds(150)
    probe = fit_probe(rows, labels, c=3.0)
    truth = np.array([[label == name for name in probe.classes] for label in labels], float)
    weights = len(rows) / (3 * truth.sum(0))  # classes count alike
    error = (probe.probabilities(rows) - truth) * (truth @ weights)[:, None]
    gradient = probe.weight + 3.0 * error.T @ rows
    assert abs(gradient).max() < 0.05 * abs(3.0 * (truth * weights).T @ rows).max()
    assert abs(error.sum(0)).max() < 0.5  # the bias is not penalised


def test_the_penalty_is_chosen_without_the_test_set_and_repeats() -> None:
    rows, labels = clouds(300)
    first, second = fit_probe(rows, labels, seed=1), fit_probe(rows, labels, seed=1)
    assert first.c == second.c
    assert (first.weight == second.weight).all()
    noise = np.random.default_rng(0).standard_normal((300, 200))
    noisy = fit_probe(noise / np.linalg.norm(noise, axis=1, keepdims=True), labels)
    assert noisy.c <= 10  # nothing to learn: a strong penalty


def test_few_samples_of_a_class_take_the_rule() -> None:
    rows, labels = clouds(40)
    labels = ["rare" if i < 3 else label for i, label in enumerate(labels)]
    assert fit_probe(rows, labels).c == pytest.approx(rows.shape[1] * len(set(labels)) / 100)


def test_draws_hold_so_many_of_each_class_and_repeat() -> None:
    _, labels = clouds(60)
    draws = few_shot_draws(labels, 4, 5, seed=2)
    assert len(draws) == 5
    for rows in draws:
        assert len(set(rows)) == len(rows) == 12
        assert all(sum(labels[i] == name for i in rows) == 4 for name in set(labels))
    assert all((a == b).all() for a, b in zip(draws, few_shot_draws(labels, 4, 5, seed=2), strict=True))
    assert not all((a == draws[0]).all() for a in draws)
    with pytest.raises(UserError, match=r"class 'class 0' has \d+ training pictures; 50 shots"):
        few_shot_draws(labels, 50, 1)


def test_a_probe_comes_back_from_its_file(tmp_path) -> None:
    rows, labels = clouds(50, 2)
    probe = fit_probe(rows, labels, c=1.5)
    again = LinearProbe.load(probe.save(tmp_path / "probe.safetensors"))
    assert again.classes == probe.classes
    assert again.c == 1.5
    assert (again.probabilities(rows) == probe.probabilities(rows)).all()
    (tmp_path / "other").write_bytes(b"no probe")
    with pytest.raises(UserError, match="is no probe of pathclip"):
        LinearProbe.load(tmp_path / "other")


def test_mistakes_are_named() -> None:
    rows, labels = clouds(20)
    with pytest.raises(UserError, match="two classes or more"):
        fit_probe(rows, ["one"] * 20)
    rows[3, 2] = np.nan
    with pytest.raises(UserError, match="finite features"):
        fit_probe(rows, labels)
