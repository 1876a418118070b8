"""What several tissues are made of: fibres, fat cells, vessels, single cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pathclip.synthetic.canvas import Canvas
from pathclip.synthetic.glands import draw_outline
from pathclip.synthetic.noise import TABLE_PX, Field, scatter, table
from pathclip.synthetic.nuclei import stamp_nuclei

__all__ = ["cytoplasm", "fat_cells", "fibre_texture", "fibres", "ghost", "sample", "thin_out", "vessel"]


def fibres(canvas: Canvas, swing_um: float, bend_um: float) -> tuple[Field, Callable[[Field], Field]]:
    """A sheet of curved fibres: (2, H, W) coordinates (across, along) and the local direction at points."""
    y, x = canvas.positions()
    turn = canvas.rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    across = y * cos - x * sin + np.float32(swing_um) * canvas.noise(bend_um)
    along = x * cos + y * sin

    def direction(points: Field) -> Field:
        step = 2 * canvas.mpp
        at = [
            sample(canvas, across, points + offset)
            for offset in ([step, 0], [-step, 0], [0, step], [0, -step])
        ]
        return np.arctan2(-(at[2] - at[3]), at[0] - at[1])  # along the fibre: at right angles to the slope

    return np.stack([across, along]), direction


def fibre_texture(canvas: Canvas, v: Field, width_um: float, length_um: float) -> Field:
    """(H, W) streaks along the fibres, unit deviation: a lookup at warped coordinates."""
    entries = 6  # table entries per streak width
    start = canvas.rng.integers(0, TABLE_PX, 2)
    rows = (v[0] * np.float32(entries / width_um)).astype(np.int32) + start[0]
    columns = (v[1] * np.float32(24 / length_um)).astype(np.int32) + start[1]
    rows &= TABLE_PX - 1
    columns &= TABLE_PX - 1
    return table(24, entries * 2)[rows, columns]


def fat_cells(canvas: Canvas, spacing: float) -> tuple[Field, tuple[Field, Field]]:
    """Distance to the nearest cell wall in micrometres (H, W), and points with directions along the walls."""
    rng = canvas.rng
    seeds = scatter(rng, canvas.size_um, spacing, 1.6 * spacing)
    gap = np.full(canvas.shape, np.inf, np.float32)
    bend = (
        canvas.noise(0.6 * spacing) * 2.2,
        canvas.noise(0.6 * spacing) * 2.2,
    )  # walls are never quite straight
    block = max(int(2 * spacing / canvas.mpp), 32)
    for top in range(0, canvas.shape[0], block):
        for left in range(0, canvas.shape[1], block):
            _cells_block(
                canvas, seeds, spacing, gap, bend, slice(top, top + block), slice(left, left + block)
            )
    nearest = np.concatenate([_neighbours(seeds, k) for k in range(0, len(seeds), 512)])
    pairs = np.repeat(np.arange(len(seeds)), nearest.shape[1]), nearest.ravel()
    one, other = seeds[pairs[0]], seeds[pairs[1]]
    middle, difference = (one + other) / 2, other - one
    return gap, (middle, np.arctan2(difference[:, 1], -difference[:, 0]))


def _neighbours(seeds: Field, start: int) -> Field:
    """(n, 4) the nearest other seeds of up to 512 seeds."""
    distance = np.hypot(*np.moveaxis(seeds[start : start + 512, None] - seeds[None], -1, 0))
    return np.argsort(distance, axis=1)[:, 1:5]


def _cells_block(
    canvas: Canvas,
    seeds: Field,
    spacing: float,
    gap: Field,
    bend: tuple[Field, Field],
    rows: slice,
    columns: slice,
) -> None:
    y, x = canvas.positions()
    y, x = y[rows] + bend[0][rows, columns], x[:, columns] + bend[1][rows, columns]
    near = (
        (seeds[:, 0] > y[0, 0] - 1.7 * spacing)
        & (seeds[:, 0] < y[-1, 0] + 1.7 * spacing)
        & (seeds[:, 1] > x[0, 0] - 1.7 * spacing)
        & (seeds[:, 1] < x[0, -1] + 1.7 * spacing)
    )
    first = np.full(y.shape, 1e9, np.float32)
    second = first.copy()
    for sy, sx in seeds[near].tolist():
        distance = np.hypot(y - np.float32(sy), x - np.float32(sx))
        np.minimum(second, np.maximum(first, distance), out=second)
        np.minimum(first, distance, out=first)
    gap[rows, columns] = (second - first) / 2


def vessel(canvas: Canvas, point: Field, radius: float) -> None:
    """A capillary or venule cut across: thin wall, flat endothelium, red cells in the lumen."""
    rng = canvas.rng
    outline = draw_outline(rng, point, radius, float(rng.uniform(1.0, 2.6)), 0.12)
    window = canvas.window(outline.y, outline.x, outline.reach)
    if window is None:
        return
    depth, _ = outline.polar(window)
    soft = np.float32(1 / max(canvas.mpp, 0.6))
    canvas.blend(window, np.clip((depth + 0.8) * soft, 0, 0.8), 0.12, 0.7)
    canvas.blend(window, np.clip((depth - 0.6) * soft, 0, 0.9), 0.04, 0.16)
    cells = scatter(rng, (2 * radius, 2 * radius), rng.uniform(4.5, 8), 0) - radius
    for dy, dx in cells.tolist():
        if np.hypot(dy, dx) < radius - 3.5:
            _red_cell(canvas, outline.y + dy, outline.x + dx, soft)
    angles = rng.uniform(0, 2 * np.pi, 2)
    rim, inward = outline.at(angles, np.full(2, -0.2))
    stamp_nuclei(canvas, "flat", rim, inward + np.pi / 2)


def _red_cell(canvas: Canvas, y: float, x: float, soft: np.float32) -> None:
    window = canvas.window(y, x, 4.5)
    if window is not None:
        r = np.hypot(window.dy * np.float32(canvas.rng.uniform(0.9, 1.4)), window.dx)
        canvas.blend(window, np.clip((3.0 - r) * soft, 0, 0.9), 0.06, 1.1)


def ghost(canvas: Canvas, y: float, x: float, radius: float) -> None:
    """The faint outline of a dead cell."""
    window = canvas.window(y, x, radius + 2)
    if window is not None:
        ring = np.abs(np.hypot(window.dy, window.dx) - radius)
        canvas.blend(window, np.clip(1.1 - ring / 1.3, 0, 0.35), 0.12, 0.95)


def cytoplasm(canvas: Canvas, y: float, x: float, radius: float) -> None:
    """The ragged, vacuolated body of a cell afloat in mucin."""
    window = canvas.window(y, x, 1.5 * radius)
    if window is not None:
        r = np.hypot(window.dy, window.dx * np.float32(canvas.rng.uniform(0.7, 1.3)))
        wave = 1 + 0.2 * np.cos(3 * np.arctan2(window.dy, window.dx) + np.float32(canvas.rng.uniform(0, 6)))
        canvas.blend(window, np.clip((radius * wave - r) / 3.5, 0, 0.6), 0.18, canvas.rng.uniform(0.15, 0.4))


def thin_out(rng: np.random.Generator, points: Field, share: float) -> Field:
    """About that share of the points."""
    return points[rng.random(len(points)) < share]


def sample(canvas: Canvas, plane: Field, points_um: Field) -> Field:
    """Values of a plane at points, nearest pixel, clamped to the sheet."""
    index = (np.asarray(points_um) / canvas.mpp).astype(int)
    rows = np.clip(index[:, 0], 0, canvas.shape[0] - 1)
    return plane[rows, np.clip(index[:, 1], 0, canvas.shape[1] - 1)]
