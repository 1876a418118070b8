"""Spatial smoothing: a tile's score becomes the mean over its nearest tiles, so that single odd tiles vanish.

Legend: N tiles, C classes.
"""

from __future__ import annotations

import numpy as np

__all__ = ["smooth_scores"]

TIE_PX = 3.0
"""Neighbours whose distances differ less (level-0 pixels) are equally near: corners of tiles are rounded."""


def smooth_scores(scores: np.ndarray, xy: np.ndarray, k: int) -> np.ndarray:
    """Mean over each tile's k nearest tiles, itself among them.

    On a grid, several tiles are equally near. Which of them are taken must neither be left to chance nor
    favour a direction: those tied for the last places share them, which is the mean over all ways to break
    the tie.

    Args:
        scores: (N, C) cosines.
        xy: (N, 2) corners of the tiles in level-0 pixels.
        k: Number of tiles; MI-Zero takes 8. With 0 or 1 nothing changes. Cut to N.

    Returns:
        (N, C) float32.

    Source: Lu et al. 2023, MI-Zero (arXiv:2306.07831), ``spatial_smoothing``; its list of neighbours is not
    shipped.
    """
    k = min(k, len(scores))
    if k <= 1:
        return scores
    index, weight = _neighbours(np.asarray(xy, np.float64), k)
    out = np.zeros(scores.shape, np.float64)
    for column in range(index.shape[1]):  # one neighbour at a time: (N, C) in memory, not (N, k, C)
        out += weight[:, column, None] * scores[index[:, column]]
    return (out / k).astype(np.float32)


def _neighbours(xy: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, M) rows and weights of the nearest tiles, M being k and the ties beyond it; weights add up to k."""
    from scipy.spatial import KDTree

    tree = KDTree(xy)
    asked = min(len(xy), k + 8)
    while True:
        distance, index = tree.query(xy, k=asked)
        last = distance[:, k - 1, None]
        if asked == len(xy) or (distance[:, -1, None] > last + TIE_PX).all():
            break
        asked = min(len(xy), 2 * asked)
    nearer, tied = distance < last - TIE_PX, np.abs(distance - last) <= TIE_PX
    places = (k - nearer.sum(axis=1)) / tied.sum(axis=1)
    weight = nearer + tied * places[:, None]
    used = max(k, int((nearer | tied).sum(axis=1).max()))
    return index[:, :used], weight[:, :used]
