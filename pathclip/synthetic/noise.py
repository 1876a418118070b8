"""Smooth random fields: the irregularity of everything that is painted."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["TABLE_PX", "Field", "scatter", "smooth_field", "table"]

Field = NDArray[np.float32]
TABLE_PX = 512


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> Field:
    """Noise of about zero mean and unit deviation whose bumps are ``scale_px`` wide.

    Args:
        rng: Source of randomness.
        shape: (H, W) in pixels.
        scale_px: Width of a bump in pixels; at least one.

    Returns:
        (H, W) float32.
    """
    scale = max(scale_px, 1.0)
    rows, columns = (int(side / scale) + 4 for side in shape)
    grid = rng.standard_normal((rows, columns), dtype=np.float32)
    left, top = rng.random(2) + 1.0
    box = (left, top, left + shape[1] / scale, top + shape[0] / scale)
    image = Image.fromarray(grid).resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image) * np.float32(1.35)  # interpolation between the knots lowers the deviation


@functools.cache
def table(width_px: int, height_px: int) -> Field:
    """A fixed periodic noise table, for lookups at warped coordinates.

    Args:
        width_px: Bump width along the second axis, in entries.
        height_px: Bump width along the first axis, in entries.

    Returns:
        (512, 512) float32, zero mean, unit deviation, periodic in both axes; read-only.
    """
    rng = np.random.default_rng([width_px, height_px])
    white = np.fft.rfft2(rng.standard_normal((TABLE_PX, TABLE_PX)))
    fy = np.fft.fftfreq(TABLE_PX)[:, None] * height_px
    fx = np.fft.rfftfreq(TABLE_PX)[None, :] * width_px
    field = np.fft.irfft2(white * np.exp(-4.0 * (fx**2 + fy**2)), s=(TABLE_PX, TABLE_PX))
    field = ((field - field.mean()) / field.std()).astype(np.float32)
    field.flags.writeable = False
    return field


def scatter(
    rng: np.random.Generator, size: tuple[float, float], spacing: float, margin: float, jitter: float = 0.33
) -> Field:
    """Points on a jittered, turned hexagonal grid: even, but never regular.

    Args:
        rng: Source of randomness.
        size: (height, width) of the area to cover.
        spacing: Mean distance of neighbours, in the same unit.
        margin: How far beyond the area points may lie.
        jitter: Largest shift of a point along each axis, in spacings.

    Returns:
        (N, 2) float32 of (y, x).
    """
    height, width = size
    reach = 0.5 * float(np.hypot(height, width)) + margin + spacing
    count = int(np.ceil(reach / (spacing * 0.93)))
    rows, columns = np.mgrid[-count : count + 1, -count : count + 1].astype(np.float32)
    points = np.stack([rows * 0.93, (columns + 0.5 * (rows % 2)) * 1.07], axis=-1).reshape(-1, 2)
    points += rng.uniform(-jitter, jitter, points.shape)
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points * spacing @ turn.T + np.array([height, width]) / 2
    inside = np.all((points > -margin) & (points < np.array([height, width]) + margin), axis=1)
    return points[inside].astype(np.float32)
