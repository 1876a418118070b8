"""Percentile bootstrap, seeded and vectorised.

Legend: N samples, C classes, R resamples, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CONFIDENCE", "NUM_RESAMPLES", "Interval", "bootstrap_interval", "draw_weights", "mean_interval"]

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95
Floats = NDArray[np.float64]
Interval = tuple[float | None, float | None]


def bootstrap_interval(
    statistic: Callable[[NDArray[Any]], Floats],
    confusion: NDArray[Any],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Percentile bootstrap of a statistic of the confusion matrix.

    Resampling N samples with replacement draws the cells of their confusion matrix from a multinomial, so
    no sample is ever copied.

    Args:
        statistic: Takes (R, C, C) counts, gives (R,) values.
        confusion: (C, C) counts.
        seed: Of the draws.
        num_resamples: R.
        confidence: Coverage aimed at.

    Returns:
        Lower and upper end; None where the statistic is never defined.
    """
    draws = resample_counts(confusion.ravel(), seed, num_resamples)
    return percentiles(statistic(draws.reshape(num_resamples, *confusion.shape)), confidence)


def mean_interval(
    values: ArrayLike, groups: Any = None, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Interval:
    """Percentile bootstrap interval of a mean, for example of hits (0 or 1) per query.

    Args:
        values: (N,) numbers.
        groups: (N,) group of each; whole groups are resampled.
        seed: Of the draws.
        num_resamples: R.
    """
    table = np.asarray(values, dtype=np.float64)
    codes = np.arange(len(table)) if groups is None else group_codes(groups)
    sums, sizes = np.bincount(codes, table), np.bincount(codes)
    means = [(w @ sums) / (w @ sizes) for w in draw_weights(len(sums), seed, num_resamples)]
    return percentiles(np.concatenate(means))


def resample_cells(
    cells: NDArray[np.int64],
    num_cells: int,
    codes: NDArray[np.int64] | None,
    seed: int,
    num_resamples: int,
) -> NDArray[Any]:
    """(R, num_cells) counts of R resamples.

    Args:
        cells: (N,) the cell that each sample falls into.
        num_cells: How many there are.
        codes: (N,) group of each sample, 0 to G - 1; whole groups are drawn. None draws samples.
        seed: Of the draws.
        num_resamples: R.
    """
    if codes is None:
        return resample_counts(np.bincount(cells, minlength=num_cells), seed, num_resamples)
    blocks = draw_weights(int(codes.max()) + 1, seed, num_resamples)
    return np.stack([np.bincount(cells, row[codes], num_cells) for block in blocks for row in block])


def resample_counts(counts: NDArray[Any], seed: int, num_resamples: int) -> NDArray[np.int64]:
    """(R, cells): drawing N samples with replacement draws their counts from a multinomial."""
    total = int(counts.sum())
    return np.random.default_rng(seed).multinomial(total, counts / max(total, 1), size=num_resamples)


def group_codes(groups: Any) -> NDArray[np.int64]:
    """Groups of any kind as 0 to G - 1."""
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def draw_weights(count: int, seed: int, num_resamples: int, chunk: int = 64) -> Iterator[Floats]:
    """How often each of ``count`` things is drawn, in blocks of (<= chunk, count)."""
    rng = np.random.default_rng(seed)
    for start in range(0, num_resamples, chunk):
        rows = min(chunk, num_resamples - start)
        picks = rng.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(picks.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def percentiles(values: Floats, confidence: float = CONFIDENCE) -> Interval:
    """The middle ``confidence`` of the values that are defined."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None, None
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
