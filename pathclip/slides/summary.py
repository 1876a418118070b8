"""What pooling needs of a slide's tiles, and the three ways to pool: top-K, mean, fractions.

Legend: N tiles, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pathclip.slides.pool import best_scores, pool_top_k

__all__ = ["Pooled", "TileSummary", "pool", "summarise", "without"]


@dataclass(frozen=True, slots=True, eq=False)
class TileSummary:
    """What pooling needs of a slide's tiles; summaries of several slides add up to that of all tiles.

    Attributes:
        best: (min(K, N), C) float32, each class's highest cosines, highest first, for the largest K.
        sums: (C,) float64, sum of each class's cosines.
        counts: (C,) int64, tiles whose most probable class it is.
    """

    best: np.ndarray
    sums: np.ndarray
    counts: np.ndarray

    @property
    def tiles(self) -> int:
        """N."""
        return int(self.counts.sum())

    @staticmethod
    def of_all(parts: Sequence[TileSummary]) -> TileSummary:
        """The summary of all tiles of several slides."""
        best = np.concatenate([part.best for part in parts])
        return TileSummary(
            best=-np.sort(-best, axis=0),
            sums=np.sum([part.sums for part in parts], axis=0),
            counts=np.sum([part.counts for part in parts], axis=0),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """The scores of a slide or patient under every way of pooling.

    Attributes:
        ks: The K.
        top_k: (len(ks), C) float32, mean of each class's K best cosines.
        means: (C,) float32, mean over all tiles.
        fractions: (C,) float64, share of the tiles whose most probable class it is.
    """

    ks: tuple[int, ...]
    top_k: np.ndarray
    means: np.ndarray
    fractions: np.ndarray

    def winners(self, background: Sequence[int] = ()) -> dict[str, int]:
        """The best class under each way: ``"1"``, ``"5"``, ... for every K, ``"mean"`` and ``"fraction"``.

        Of classes with as many tiles, the one of the higher mean is the best.

        Args:
            background: Columns that cannot win.
        """
        rows = {str(k): row for k, row in zip(self.ks, self.top_k, strict=True)} | {"mean": self.means}
        rows = {key: without(row, background) for key, row in rows.items()}
        fractions = without(self.fractions, background)
        first = np.lexsort((-rows["mean"], -fractions))[0]
        return {key: int(row.argmax()) for key, row in rows.items()} | {"fraction": int(first)}


def without(scores: np.ndarray, background: Sequence[int]) -> np.ndarray:
    """(..., C) scores with some columns at minus infinity, so that they never are the highest."""
    out = np.array(scores, np.float64)
    out[..., list(background)] = -np.inf
    return out


def summarise(scores: np.ndarray, classes: np.ndarray, most: int) -> TileSummary:
    """Reduce a slide's tiles to what pooling needs.

    Args:
        scores: (N, C) cosines.
        classes: (N,) column of each tile's most probable class.
        most: The largest K.
    """
    return TileSummary(
        best=best_scores(scores, most).astype(np.float32),
        sums=scores.sum(axis=0, dtype=np.float64),
        counts=np.bincount(classes, minlength=scores.shape[1]),
    )


def pool(summary: TileSummary, ks: tuple[int, ...]) -> Pooled:
    """Pool in every way.

    Args:
        summary: Of at least one tile, with ``best`` for the largest K.
        ks: The K, each >= 1.

    Source: KEEP (arXiv:2412.13126) for the fractions, which it takes after an argmax over tile probabilities.
    """
    return Pooled(
        ks=ks,
        top_k=pool_top_k(summary.best, ks),
        means=(summary.sums / summary.tiles).astype(np.float32),
        fractions=summary.counts / summary.tiles,
    )
