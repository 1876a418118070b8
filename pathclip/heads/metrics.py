"""Classification metrics with intervals: functions of the confusion matrix, so the bootstrap is one draw.

Legend: N samples, C classes, R resamples, G groups. Rows of a confusion matrix are the truth, columns the
prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathclip.core.errors import UserError
from pathclip.heads import _statistics as st
from pathclip.heads._bootstrap import (
    NUM_RESAMPLES,
    Interval,
    bootstrap_interval,
    group_codes,
    mean_interval,
    percentiles,
    resample_cells,
)
from pathclip.heads._ranking import area_interval, in_top, macro_auprc, macro_auroc, ratio

__all__ = [
    "accuracy",
    "auprc",
    "auroc",
    "balanced_accuracy",
    "bootstrap_interval",
    "classification_metrics",
    "cohen_kappa",
    "confusion_matrix",
    "constant_class_baseline",
    "macro_f1",
    "matthews_correlation",
    "mean_interval",
    "per_class_metrics",
    "quadratic_kappa",
    "weighted_f1",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def confusion_matrix(y_true: Any, y_pred: Any, labels: Sequence[Any] | None = None) -> Ints:
    """Count every (truth, prediction).

    Args:
        y_true: (N,) labels, or integer columns into ``labels``.
        y_pred: (N,) as ``y_true``.
        labels: The classes in the order of the rows; by default every value that occurs, sorted.

    Returns:
        (C, C) int64; rows are the truth.

    Raises:
        UserError: If the lengths differ or a value is not among ``labels``.
    """
    true, pred = np.asarray(y_true), np.asarray(y_pred)
    if labels is None:
        labels = np.unique(np.concatenate([true, pred])).tolist()
    rows, columns = _columns(true, labels, "y_true"), _columns(pred, labels, "y_pred")
    if rows.shape != columns.shape:
        raise UserError(f"y_true holds {len(rows)} labels and y_pred {len(columns)}; expected one per sample")
    size = len(labels)
    return np.bincount(rows * size + columns, minlength=size * size).reshape(size, size)


def accuracy(y_true: Any, y_pred: Any) -> float:
    """Share of predictions that are right."""
    return float(st.accuracy(confusion_matrix(y_true, y_pred)))


def balanced_accuracy(y_true: Any, y_pred: Any) -> float:
    """Mean recall over the classes that occur in the truth; chance is 1 / C whatever the class sizes."""
    return float(st.balanced_accuracy(confusion_matrix(y_true, y_pred)))


def weighted_f1(y_true: Any, y_pred: Any) -> float:
    """F1 per class, averaged by class size; PLIP's zero-shot figure, ruled by the large classes."""
    return float(st.weighted_f1(confusion_matrix(y_true, y_pred)))


def macro_f1(y_true: Any, y_pred: Any) -> float:
    """F1 per class, averaged evenly over the classes that occur in truth or prediction."""
    return float(st.macro_f1(confusion_matrix(y_true, y_pred)))


def matthews_correlation(y_true: Any, y_pred: Any) -> float:
    """Correlation of truth and prediction in [-1, 1]; NaN where either is constant.

    Source: Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006.
    """
    return float(st.mcc(confusion_matrix(y_true, y_pred)))


def cohen_kappa(y_true: Any, y_pred: Any) -> float:
    """Agreement beyond chance, unweighted; NaN where both are the same constant."""
    return float(st.kappa(confusion_matrix(y_true, y_pred)))


def auroc(y_true: Any, scores: ArrayLike, labels: Sequence[Any]) -> float:
    """Area under the ROC curve, one class against the rest, averaged over classes; ties count half.

    Args:
        y_true: (N,) labels, or integer columns.
        scores: (N, C) probabilities or cosines, larger is likelier. Of two classes the difference is ranked.
        labels: The C classes.

    Returns:
        In [0, 1]; NaN where fewer than two classes occur.
    """
    true = _columns(np.asarray(y_true), labels, "y_true")
    return float(macro_auroc(true, _scores(scores, true, labels), np.ones((1, len(true))))[0])


def auprc(y_true: Any, scores: ArrayLike, labels: Sequence[Any]) -> float:
    """Average precision, one class against the rest, averaged over the classes that occur.

    Unlike AUROC it sees how rare a class is: chance is the share of the class.

    Args:
        y_true: (N,) labels, or integer columns.
        scores: (N, C) probabilities or cosines, larger is likelier. Of two classes the difference is ranked.
        labels: The C classes.

    Returns:
        In [0, 1].
    """
    true = _columns(np.asarray(y_true), labels, "y_true")
    return float(macro_auprc(true, _scores(scores, true, labels), np.ones((1, len(true))))[0])


def quadratic_kappa(y_true: Any, y_pred: Any, labels: Sequence[Any]) -> float:
    """Agreement beyond chance where the classes are a scale: a miss counts by its squared distance.

    Args:
        y_true: (N,) labels.
        y_pred: (N,) labels.
        labels: The classes from least to most.

    Returns:
        In [-1, 1]; NaN where both are the same constant.

    Source: Cohen 1968, doi:10.1037/h0026256.
    """
    return float(st.quadratic_kappa(confusion_matrix(y_true, y_pred, labels)))


def classification_metrics(
    y_true: Any,
    y_pred: Any,
    labels: Sequence[Any],
    scores: ArrayLike | None = None,
    seed: int = 0,
    *,
    groups: Any = None,
    num_resamples: int = NUM_RESAMPLES,
    ordered: Sequence[Any] = (),
) -> tuple[dict[str, float | None], dict[str, Interval]]:
    """Every metric and its 95 % bootstrap interval.

    Args:
        y_true: (N,) labels, or integer columns into ``labels``.
        y_pred: (N,) as ``y_true``.
        labels: The C classes, in the order of the columns of ``scores``.
        scores: (N, C) probabilities or cosines; adds ``auroc``, ``auprc`` and, from five classes
            on, ``acc5``.
        seed: Of the bootstrap.
        groups: (N,) patient, slide or case of each sample; whole groups are then resampled.
        num_resamples: Bootstrap draws.
        ordered: The classes from least to most, where they are a scale; adds ``quadratic_kappa``.

    Returns:
        Metrics and intervals under the same names; ``acc1``, ``acc5`` and ``mean_per_class_recall`` are
        clip_benchmark's names. None where a metric is undefined.

    Raises:
        UserError: If there is nothing to score, lengths differ, a label is unknown, or a score is not finite.
    """
    true = _columns(np.asarray(y_true), labels, "y_true")
    if not len(true):
        raise UserError("there is no sample to score: y_true is empty")
    total = confusion_matrix(y_true, y_pred, labels)
    draws = _resample(y_true, y_pred, labels, groups, seed, num_resamples)
    metrics = {name: _number(statistic(total)) for name, statistic in st.STATISTICS.items()}
    intervals = {name: percentiles(statistic(draws)) for name, statistic in st.STATISTICS.items()}
    if ordered:
        if sorted(map(str, ordered)) != sorted(map(str, labels)):
            raise UserError(
                f"ordered names {list(ordered)}; expected the classes {list(labels)} in their order"
            )
        place = [list(labels).index(label) for label in ordered]
        metrics["quadratic_kappa"] = _number(st.quadratic_kappa(total[place][:, place]))
        intervals["quadratic_kappa"] = percentiles(st.quadratic_kappa(draws[:, place][:, :, place]))
    metrics |= {"acc5": None}
    if scores is not None:
        table = _scores(scores, true, labels)
        for name, area in (("auroc", macro_auroc), ("auprc", macro_auprc)):
            metrics[name] = _number(area(true, table, np.ones((1, len(true))))[0])
            intervals[name] = area_interval(area, true, table, groups, seed, num_resamples)
        if len(labels) >= 5:
            hits = in_top(table, true, 5)
            metrics["acc5"] = float(hits.mean())
            intervals["acc5"] = mean_interval(hits, groups, seed=seed, num_resamples=num_resamples)
    return metrics, intervals


def per_class_metrics(
    y_true: Any,
    y_pred: Any,
    labels: Sequence[str],
    *,
    groups: Any = None,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> list[dict[str, Any]]:
    """Support, precision, recall with its interval, and F1 of every class; None where undefined.

    Args:
        y_true: (N,) labels, or integer columns into ``labels``.
        y_pred: (N,) as ``y_true``.
        labels: The C classes.
        groups: (N,) patient, slide or case of each sample; whole groups are then resampled.
        seed: Of the bootstrap.
        num_resamples: Bootstrap draws.
    """
    total = confusion_matrix(y_true, y_pred, labels)
    recalls = st.recall(_resample(y_true, y_pred, labels, groups, seed, num_resamples))
    support, predicted, hits = total.sum(axis=1), total.sum(axis=0), np.diagonal(total)
    precision, recall, f1 = ratio(hits, predicted), st.recall(total), st.f1(total)
    return [
        {
            "label": label,
            "support": int(support[c]),
            "predicted": int(predicted[c]),
            "precision": _number(precision[c]),
            "recall": _number(recall[c]),
            "recall_interval": percentiles(recalls[:, c]),
            "f1": _number(f1[c]),
        }
        for c, label in enumerate(labels)
    ]


def constant_class_baseline(y_true: Any, labels: Sequence[Any], label: Any = None) -> dict[str, Any]:
    """What always answering one class scores; a model below it has learnt nothing that this metric sees.

    Args:
        y_true: (N,) labels, or integer columns into ``labels``.
        labels: The C classes.
        label: The class to answer; the most frequent one by default.
    """
    true = _columns(np.asarray(y_true), labels, "y_true")
    answer = int(np.bincount(true, minlength=len(labels)).argmax()) if label is None else labels.index(label)
    total = confusion_matrix(true, np.full_like(true, answer), labels)
    shares = np.bincount(true, minlength=len(labels)) / max(1, len(true))
    return {
        "label": labels[answer],
        **{name: _number(statistic(total)) for name, statistic in st.STATISTICS.items()},
        "quadratic_kappa": 0.0,
        "auroc": 0.5,
        "auprc": float(shares[shares > 0].mean()),
    }


def _resample(
    y_true: Any, y_pred: Any, labels: Sequence[Any], groups: Any, seed: int, num_resamples: int
) -> NDArray[Any]:
    """(R, C, C) confusion matrices of resamples."""
    true, pred = (
        _columns(np.asarray(y_true), labels, "y_true"),
        _columns(np.asarray(y_pred), labels, "y_pred"),
    )
    if groups is not None and len(groups) != len(true):
        raise UserError(f"groups names {len(groups)} samples; expected {len(true)}")
    size = len(labels)
    codes = None if groups is None else group_codes(groups)
    draws = resample_cells(true * size + pred, size * size, codes, seed, num_resamples)
    return draws.reshape(num_resamples, size, size)


def _columns(values: NDArray[Any], labels: Sequence[Any], name: str) -> Ints:
    """Labels as columns; integers are taken as columns already, unless the labels are integers themselves."""
    if len(labels) == 0:
        raise UserError("labels is empty; expected the classes in the order of the columns")
    numbers = np.issubdtype(values.dtype, np.integer)
    if numbers and not isinstance(labels[0], int | np.integer):
        if values.size and (values.min() < 0 or values.max() >= len(labels)):
            raise UserError(f"{name} holds column {values.max()}; there are {len(labels)} labels")
        return values.astype(np.int64)
    place = {label: i for i, label in enumerate(labels)}
    unknown = next((value for value in values.tolist() if value not in place), None)
    if unknown is not None:
        raise UserError(
            f"{name} holds {unknown!r}, which is not among the labels: {', '.join(map(str, labels))}"
        )
    return np.array([place[value] for value in values.tolist()], dtype=np.int64)


def _scores(scores: ArrayLike, true: Ints, labels: Sequence[Any]) -> Floats:
    table = np.asarray(scores, dtype=np.float64)
    if table.shape != (len(true), len(labels)):
        raise UserError(
            f"scores has shape {table.shape}; expected (samples, labels) = ({len(true)}, {len(labels)})"
        )
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(bad):
        raise UserError(f"scores: {len(bad)} of {len(table)} rows are not finite, the first is row {bad[0]}")
    return table


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
