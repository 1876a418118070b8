"""Figures of a confusion matrix, or of a stack of them: ``(..., C, C)`` counts to ``(...)`` values.

Rows are the truth; NaN where a figure is not defined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.heads._ranking import mean_defined, ratio

__all__ = ["STATISTICS", "f1", "hits", "quadratic_kappa", "recall"]

Floats = NDArray[np.float64]


def hits(cm: NDArray[Any]) -> NDArray[Any]:
    return np.diagonal(cm, axis1=-2, axis2=-1)


def recall(cm: NDArray[Any]) -> Floats:
    return ratio(hits(cm), cm.sum(axis=-1))


def f1(cm: NDArray[Any]) -> Floats:
    return ratio(2 * hits(cm), cm.sum(axis=-1) + cm.sum(axis=-2))


def accuracy(cm: NDArray[Any]) -> Floats:
    return ratio(hits(cm).sum(axis=-1), cm.sum(axis=(-2, -1)))


def balanced_accuracy(cm: NDArray[Any]) -> Floats:
    return mean_defined(recall(cm))


def weighted_f1(cm: NDArray[Any]) -> Floats:
    support = cm.sum(axis=-1)
    return ratio((np.nan_to_num(f1(cm)) * support).sum(axis=-1), support.sum(axis=-1))


def macro_f1(cm: NDArray[Any]) -> Floats:
    return mean_defined(f1(cm))


def mcc(cm: NDArray[Any]) -> Floats:
    true, pred, n = (x.astype(np.float64) for x in (cm.sum(axis=-1), cm.sum(axis=-2), cm.sum(axis=(-2, -1))))
    covariance = hits(cm).sum(axis=-1) * n - (true * pred).sum(axis=-1)
    variances = (n**2 - (true**2).sum(axis=-1)) * (n**2 - (pred**2).sum(axis=-1))
    return ratio(covariance, np.sqrt(variances))


def kappa(cm: NDArray[Any]) -> Floats:
    n = cm.sum(axis=(-2, -1)).astype(np.float64)
    by_chance = ratio((cm.sum(axis=-1).astype(np.float64) * cm.sum(axis=-2)).sum(axis=-1), n**2)
    return ratio(accuracy(cm) - by_chance, 1 - by_chance)


def quadratic_kappa(cm: NDArray[Any]) -> Floats:
    size = cm.shape[-1]
    weights = np.subtract.outer(np.arange(size), np.arange(size)).astype(np.float64) ** 2
    n = cm.sum(axis=(-2, -1)).astype(np.float64)
    by_chance = cm.sum(axis=-1)[..., :, None].astype(np.float64) * cm.sum(axis=-2)[..., None, :]
    return 1 - ratio(n * (weights * cm).sum(axis=(-2, -1)), (weights * by_chance).sum(axis=(-2, -1)))


STATISTICS: dict[str, Callable[[NDArray[Any]], Floats]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "weighted_f1": weighted_f1,
    "macro_f1": macro_f1,
    "mcc": mcc,
    "kappa": kappa,
    "acc1": accuracy,
    "mean_per_class_recall": balanced_accuracy,
}
