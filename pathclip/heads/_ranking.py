"""Areas under curves of ranked scores, for many weightings of the samples at once.

Legend: N samples, C classes, R resamples, U different scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.heads._bootstrap import Interval, draw_weights, group_codes, percentiles

__all__ = [
    "area_interval",
    "in_top",
    "macro_auprc",
    "macro_auroc",
    "mean_defined",
    "one_class_auprc",
    "one_class_auroc",
    "ratio",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Area = Callable[[Ints, Floats, Floats], Floats]


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Part by whole; NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def mean_defined(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))


def macro_auroc(true: Ints, scores: Floats, weights: Floats) -> Floats:
    """(R,) one-against-rest AUROC, averaged over the classes that occur, of samples weighted (R, N)."""
    if scores.shape[1] == 2:
        return one_class_auroc(true == 1, scores[:, 1] - scores[:, 0], weights)
    areas = [one_class_auroc(true == c, scores[:, c], weights) for c in range(scores.shape[1])]
    return mean_defined(np.stack(areas, axis=-1))


def macro_auprc(true: Ints, scores: Floats, weights: Floats) -> Floats:
    """(R,) one-against-rest average precision, averaged over the classes that occur."""
    if scores.shape[1] == 2:  # cosines of two classes rank by their difference
        scores = np.stack([scores[:, 0] - scores[:, 1], scores[:, 1] - scores[:, 0]], axis=1)
    areas = [one_class_auprc(true == c, scores[:, c], weights) for c in range(scores.shape[1])]
    return mean_defined(np.stack(areas, axis=-1))


def area_interval(
    area: Area, true: Ints, scores: Floats, groups: Any, seed: int, num_resamples: int
) -> Interval:
    """Percentile bootstrap of an area; whole groups are drawn where given."""
    codes = np.arange(len(true)) if groups is None else group_codes(groups)
    draws = [area(true, scores, w[:, codes]) for w in draw_weights(int(codes.max()) + 1, seed, num_resamples)]
    return percentiles(np.concatenate(draws))


def in_top(scores: Floats, true: Ints, k: int) -> Floats:
    """(N,) 1.0 where the true class is among the k best; of equal scores the earlier column ranks first."""
    own = np.take_along_axis(scores, true[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < true[:, None]
    return (((scores > own) | ((scores == own) & earlier)).sum(axis=1) < k).astype(np.float64)


def one_class_auroc(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Weighted Mann-Whitney: share of (positive, negative) pairs in the right order, ties counting half."""
    above, equal = _by_score(positive, score, weights)
    below = equal.cumsum(axis=1) - equal
    return ratio((above * (below + equal / 2)).sum(axis=1), above.sum(axis=1) * equal.sum(axis=1))


def one_class_auprc(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Average precision: precision at every different score from the top, weighted by the gain in recall."""
    hits, misses = (side[:, ::-1] for side in _by_score(positive, score, weights))
    found, missed = hits.cumsum(axis=1), misses.cumsum(axis=1)
    precision = np.nan_to_num(ratio(found, found + missed))
    return ratio((hits * precision).sum(axis=1), found[:, -1])


def _by_score(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weight of positives and of negatives at each different score, lowest first: (R, U) each."""
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    weights, positive = weights[:, order], positive[order]
    return (
        np.add.reduceat(weights * positive, starts, axis=1),
        np.add.reduceat(weights * ~positive, starts, axis=1),
    )
