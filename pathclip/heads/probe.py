"""Linear probe: logistic regression on frozen picture features, tuned on the training set alone."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathclip.core.errors import UserError
from pathclip.core.files import atomic_write

__all__ = ["LinearProbe", "few_shot_draws", "fit_probe"]

FOLDS = 5
GRID = tuple(10.0**exponent for exponent in range(-2, 6))
"""Inverse strengths of the penalty that are tried; unit features need large ones."""
ITERATIONS, ITERATIONS_TO_CHOOSE = 1000, 200
ONE_THREAD = 4_000_000  # numbers, below which BLAS threads wait for each other longer than they work


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A linear classifier of features.

    Attributes:
        classes: C labels, in the order of the rows.
        weight: (C, D) float64.
        bias: (C,) float64.
        c: The inverse strength of the penalty it was fitted with.
    """

    classes: tuple[str, ...]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    c: float

    def probabilities(self, features: ArrayLike) -> NDArray[np.float64]:
        """(N, D) features to (N, C) probabilities; a row of NaN stays one."""
        scores = np.asarray(features, np.float64) @ self.weight.T + self.bias
        scores -= scores.max(axis=1, keepdims=True)
        odds = np.exp(scores)
        result: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
        return result

    def predict(self, features: ArrayLike) -> list[str]:
        """The likeliest class of each row."""
        return [self.classes[column] for column in self.probabilities(features).argmax(axis=1)]

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, which `load` reads."""
        from safetensors.numpy import save

        about = {"schema": "pathclip.probe/1", "classes": json.dumps(self.classes), "c": repr(self.c)}
        with atomic_write(path) as handle:
            weight = np.ascontiguousarray(self.weight)  # in another order safetensors shuffles the values
            handle.write(save({"weight": weight, "bias": self.bias}, about))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> LinearProbe:
        """Read what `save` wrote.

        Raises:
            UserError: If the file is no probe.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "numpy") as file:
                about = file.metadata() or {}
                classes = tuple(json.loads(about["classes"]))
                return cls(classes, file.get_tensor("weight"), file.get_tensor("bias"), float(about["c"]))
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise UserError(f"{path} is no probe of pathclip: {error}") from None


def fit_probe(
    features: ArrayLike,
    labels: Sequence[str],
    *,
    c: float | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> LinearProbe:
    """Fit a logistic regression, classes weighted evenly.

    Without ``c`` it is the best of `GRID` by balanced accuracy over five stratified folds of these samples.
    Where a class has fewer samples than folds, it is D * C / 100.

    Args:
        features: (N, D), finite; unit length as `encode_images` gives them.
        labels: Of each row.
        c: Inverse strength of the L2 penalty.
        seed: Of the folds.
        device: ``cpu`` fits with scikit-learn; any other device of torch with the same loss there.

    Raises:
        UserError: If there are fewer than two classes, or a feature is not finite.

    Source: the rule for few samples is that of CONCH's evaluation, Lu et al. 2024 (Nature Medicine).
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    rows, truth = np.asarray(features, np.float64), np.asarray(labels, dtype=str)
    if len(set(labels)) < 2:
        raise UserError(f"a probe needs two classes or more; found {sorted(set(labels))}")
    if not np.isfinite(rows).all():
        raise UserError("a probe needs finite features; leave out pictures that could not be read")
    mean = rows.mean(axis=0)
    scale = float((rows - mean).std()) or 1.0
    scaled = (rows - mean) / scale  # the same optimum, in a tenth of the steps
    with threadpool_limits(1 if rows.size < ONE_THREAD else None), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after so many steps it is close enough
        if c is None:
            c = _chosen_c(scaled, truth, scale, seed, device)
        fitted = _regression(c * scale**2, device=device).fit(scaled, truth)
    weight = fitted.coef_ / scale
    bias = fitted.intercept_ - weight @ mean
    if len(weight) == 1:  # of two classes scikit-learn keeps the difference
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    return LinearProbe(tuple(map(str, fitted.classes_)), weight, bias, float(c))


def _chosen_c(
    scaled: NDArray[np.float64], truth: NDArray[Any], scale: float, seed: int, device: str
) -> float:
    from sklearn.model_selection import StratifiedKFold

    counts = Counter(truth.tolist())
    if min(counts.values()) < FOLDS:
        return scaled.shape[1] * len(counts) / 100
    scores = np.zeros(len(GRID))
    for train, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(scaled, truth):
        for place, c in enumerate(GRID):
            model = _regression(c * scale**2, ITERATIONS_TO_CHOOSE, 1e-4, device)
            model.fit(scaled[train], truth[train])
            hits = model.predict(scaled[held_out]) == truth[held_out]
            scores[place] += np.mean([hits[truth[held_out] == label].mean() for label in counts])
    return GRID[int(scores.argmax())]  # the strongest penalty among equals


def _regression(c: float, iterations: int = ITERATIONS, tolerance: float = 1e-6, device: str = "cpu") -> Any:
    if device != "cpu":
        from pathclip.heads.torch_regression import TorchRegression

        return TorchRegression(c, iterations, tolerance, device)
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, class_weight="balanced", max_iter=iterations, tol=tolerance)


def few_shot_draws(labels: Sequence[str], shots: int, draws: int, seed: int = 0) -> list[NDArray[np.int64]]:
    """Rows of ``shots`` samples per class, drawn without replacement, ``draws`` times.

    Raises:
        UserError: If a class has fewer.
    """
    truth = np.asarray(labels, dtype=str)
    counts = Counter(truth.tolist())
    smallest, count = min(counts.items(), key=lambda item: (item[1], item[0]))
    if count < shots:
        raise UserError(f"class {smallest!r} has {count} training pictures; {shots} shots were asked for")
    chosen = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, shots, draw])
        rows = [rng.choice(np.flatnonzero(truth == label), shots, replace=False) for label in sorted(counts)]
        chosen.append(np.sort(np.concatenate(rows)))
    return chosen
