"""Polygons as pixels, exactly: a pixel is inside where its centre is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["fill_polygons", "first_pixel"]


def first_pixel(edge: np.ndarray) -> np.ndarray:
    """The first pixel whose centre is not before an edge: ``ceil(edge - 0.5)`` as int64.

    Args:
        edge: Positions along one axis, in pixels.
    """
    return np.ceil(np.asarray(edge, np.float64) - 0.5).astype(np.int64)


def fill_polygons(polygons: Iterable[Sequence[np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """Pixels that lie in any of the polygons.

    Args:
        polygons: Each as rings of (P, 2) x, y in pixels, closed or not; by the even-odd rule, so all
            rings but the outline are holes.
        shape: (H, W).

    Returns:
        (H, W) bool.
    """
    mask = np.zeros(shape, bool)
    for rings in polygons:
        _fill(mask, rings)
    return mask


def _fill(mask: np.ndarray, rings: Sequence[np.ndarray]) -> None:
    points = np.concatenate(rings)
    limit = np.array(mask.shape[::-1])
    left, upper = np.clip(first_pixel(points.min(axis=0)), 0, limit)
    right, lower = np.clip(first_pixel(points.max(axis=0)), 0, limit)
    if left >= right or upper >= lower:
        return
    begin = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    # an edge is crossed by the rows whose centres lie between its ends; past the crossing, inside is outside
    rows = np.clip(np.sort(first_pixel(np.stack([begin[:, 1], end[:, 1]], axis=1))), upper, lower)
    count = rows[:, 1] - rows[:, 0]
    edge = np.repeat(np.arange(len(begin)), count)
    row = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count) + rows[edge, 0]
    (x1, y1), (x2, y2) = begin[edge].T, end[edge].T
    crossing = x1 + (row + 0.5 - y1) * (x2 - x1) / (y2 - y1)
    column = np.clip(first_pixel(crossing), left, right)
    width = int(right - left) + 1
    flips = np.bincount((row - upper) * width + column - left, minlength=int(lower - upper) * width)
    inside = flips.reshape(-1, width).cumsum(axis=1)[:, :-1] % 2 == 1
    mask[upper:lower, left:right] |= inside
