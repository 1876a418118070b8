"""PLIP's linear probe as it was run: five seeds, the penalty chosen on the test pictures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.core.errors import UserError
from pathclip.heads import LinearProbe, macro_f1, weighted_f1

__all__ = ["ALPHAS", "SEEDS", "plip_probe"]

ALPHAS = (1e-4, 1e-3, 1e-2, 1e-1)
SEEDS = (1, 2, 3, 4, 5)


def plip_probe(
    seen: NDArray[np.float64], seen_labels: Sequence[str], rows: NDArray[np.float64], truth: Sequence[str]
) -> tuple[LinearProbe, dict[str, Any]]:
    """Stochastic gradient descent on the log loss, classes weighted evenly, on unit features.

    The penalty is the one with the best mean macro F1 over the seeds ON THE TEST PICTURES, as published. This
    flatters every model; `fit_probe` is the honest one.

    Args:
        seen: (N, D) unit features to learn from.
        seen_labels: Of each.
        rows: (M, D) test features.
        truth: Of each.

    Returns:
        The probe of the first seed, and per penalty the figures of every seed, mean and standard deviation.

    Raises:
        UserError: If there are fewer than two classes.

    Source: Huang et al. 2023, published code, ``linear_classifier.py``; the grid and the choice are the
    notebook's.
    """
    if len(set(seen_labels)) < 2:
        raise UserError(f"a probe needs two classes or more; found {sorted(set(seen_labels))}")
    fitted: dict[float, LinearProbe] = {}
    grid = []
    for alpha in ALPHAS:
        probes = [_fit(seen, seen_labels, alpha, seed) for seed in SEEDS]
        answers = [probe.predict(rows) for probe in probes]
        macro = [macro_f1(truth, answer) for answer in answers]
        fitted[alpha] = probes[0]
        grid.append(
            {
                "alpha": alpha,
                "macro_f1": macro,
                "mean": float(np.mean(macro)),
                "sd": float(np.std(macro, ddof=1)),
                "weighted_f1_mean": float(np.mean([weighted_f1(truth, answer) for answer in answers])),
            }
        )
    best = max(grid, key=lambda row: row["mean"])
    return fitted[best["alpha"]], {"seeds": list(SEEDS), "alpha": best["alpha"], "grid": grid}


def _fit(features: NDArray[np.float64], labels: Sequence[str], alpha: float, seed: int) -> LinearProbe:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(
        loss="log_loss",
        penalty="l2",
        alpha=alpha,
        max_iter=10_000,
        class_weight="balanced",
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, np.asarray(labels, dtype=str))
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # of two classes scikit-learn keeps the difference
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    return LinearProbe(tuple(map(str, model.classes_)), weight, bias, 1 / (alpha * len(features)))
