"""From tile scores to slide scores: MI-Zero's top-K pooling, for every K at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathclip.slides.spool import FeatureSpool

__all__ = ["agreement", "pool_top_k", "probabilities", "score_tiles"]


ROWS_AT_ONCE = 8192  # in float32; fixed, so that a slide's scores are the same to the last bit


def score_tiles(features: np.ndarray | FeatureSpool, classifier: np.ndarray) -> np.ndarray:
    """Cosine of every tile with every class.

    Args:
        features: (N, D), unit length up to the rounding of float16; read piece by piece.
        classifier: (D, C) float32, unit columns.

    Returns:
        (N, C) float32.
    """
    columns = classifier.astype(np.float32)
    scores = np.empty((len(features), columns.shape[1]), np.float32)
    for start in range(0, len(features), ROWS_AT_ONCE):
        exact = features[start : start + ROWS_AT_ONCE].astype(np.float32)
        lengths = np.linalg.norm(exact, axis=1, keepdims=True)
        scores[start : start + ROWS_AT_ONCE] = (exact / np.maximum(lengths, 1e-12)) @ columns
    return scores


def probabilities(scores: np.ndarray, scale: float) -> np.ndarray:
    """``softmax(scale * scores)`` over the classes.

    Args:
        scores: (N, C) cosines.
        scale: The model's ``logit_scale.exp()``.

    Returns:
        (N, C) float32, rows sum to 1.
    """
    logits = scale * scores.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True, initial=-np.inf)
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def pool_top_k(scores: np.ndarray, ks: tuple[int, ...]) -> np.ndarray:
    """Mean of each class's K best tiles, for every K.

    Classes choose their tiles independently. K is cut to the number of tiles. MI-Zero sums and CONCH takes
    the mean; the best class is the same, but only the mean compares slides of different size.

    Args:
        scores: (N, C) with N >= 1.
        ks: The K, each >= 1.

    Returns:
        (len(ks), C) float32.

    Source: Lu et al. 2023, MI-Zero (arXiv:2306.07831), ``topj_pooling``.
    """
    best = best_scores(scores, max(ks))
    means = best.cumsum(axis=0) / np.arange(1, len(best) + 1)[:, None]
    return means[[min(k, len(best)) - 1 for k in ks]].astype(np.float32)


def best_scores(scores: np.ndarray, most: int) -> np.ndarray:
    """(min(most, N), C) float64, each column's highest values, highest first."""
    most = min(most, len(scores))
    part = -np.partition(-scores, most - 1, axis=0)[:most] if most < len(scores) else scores
    return -np.sort(-part.astype(np.float64), axis=0)


def agreement(pooled: np.ndarray, label: int) -> float:
    """Share of the K whose best class is ``label``; 1 says that the choice of K does not matter.

    Args:
        pooled: (len(ks), C), as `pool_top_k` returns.
        label: Column of the slide's label.
    """
    return float((pooled.argmax(axis=1) == label).mean())
