"""Is a probability of 0.8 right eight times in ten? Reliability by bins, and its mean error.

Legend: N samples, B bins, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathclip.core.errors import UserError
from pathclip.heads._bootstrap import NUM_RESAMPLES, Interval, draw_weights, group_codes, percentiles
from pathclip.heads._ranking import ratio

__all__ = ["Reliability", "reliability"]

BINS = 10


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often predictions of a confidence are right.

    Attributes:
        rows: One per bin of equal width: low, high, count, confidence and accuracy (means; None if empty) and
            the accuracy's 95 % interval.
        ece: Expected calibration error: mean |accuracy - confidence| over bins, weighted by count.
        interval: Of ``ece``, 95 % bootstrap, its bias taken off.
    """

    rows: tuple[dict[str, Any], ...]
    ece: float
    interval: Interval


def reliability(
    confidence: ArrayLike,
    hits: ArrayLike,
    *,
    bins: int = BINS,
    groups: Any = None,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Reliability:
    """Compare confidence with accuracy.

    Args:
        confidence: (N,) probability of the predicted class, 0 to 1.
        hits: (N,) whether the prediction is right.
        bins: B, of equal width.
        groups: (N,) group of each sample; whole groups are resampled.
        seed: Of the bootstrap.
        num_resamples: R.

    Raises:
        UserError: If there is no sample, sizes differ, or a confidence is not in [0, 1].

    Source: Guo et al. 2017 (arXiv:1706.04599).
    """
    sure, right = np.asarray(confidence, np.float64), np.asarray(hits, np.float64)
    if not len(sure) or sure.shape != right.shape:
        raise UserError(f"confidence {sure.shape} and hits {right.shape}; expected one each per sample")
    if not ((sure >= 0) & (sure <= 1 + 1e-6)).all():
        raise UserError("confidence holds values outside 0 to 1; expected probabilities")
    places = np.minimum((sure * bins).astype(np.int64), bins - 1)
    codes = np.arange(len(sure)) if groups is None else group_codes(groups)
    sums = np.zeros((3, int(codes.max()) + 1, bins))  # count, confidence, hits of each group in each bin
    for row, values in zip(sums, (np.ones_like(sure), sure, right), strict=True):
        np.add.at(row, (codes, places), values)
    total = np.stack([np.bincount(places, values, bins) for values in (np.ones_like(sure), sure, right)])
    errors, accuracies = [], []
    for weights in draw_weights(sums.shape[1], seed, num_resamples):
        drawn = np.einsum("rg,kgb->krb", weights, sums)
        errors.append(_ece(*drawn))
        accuracies.append(ratio(drawn[2], drawn[0]))
    spread = np.concatenate(accuracies)
    rows = tuple(_row(b, bins, total[:, b], percentiles(spread[:, b])) for b in range(bins))
    ece = float(_ece(*total))
    return Reliability(rows, ece, _centred(np.concatenate(errors), ece))


def _centred(draws: NDArray[np.float64], value: float) -> Interval:
    """The draws' spread around the value: resampling adds noise to every gap, which can only enlarge them."""
    low, high = percentiles(draws - draws.mean() + value)
    return max(0.0, low or 0.0), high


def _ece(counts: NDArray[Any], sure: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
    error: NDArray[np.float64] = np.abs(right - sure).sum(axis=-1) / counts.sum(axis=-1)
    return error


def _row(place: int, bins: int, sums: NDArray[np.float64], interval: Interval) -> dict[str, Any]:
    count = int(sums[0])
    return {
        "low": place / bins,
        "high": (place + 1) / bins,
        "count": count,
        "confidence": sums[1] / count if count else None,
        "accuracy": sums[2] / count if count else None,
        "interval": interval if count else (None, None),
    }
