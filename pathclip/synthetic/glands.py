"""Glands: crypts with goblet cells, tumour glands with crowded nuclei, cribriform nests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pathclip.synthetic.canvas import Canvas, Window
from pathclip.synthetic.noise import TABLE_PX, Field, scatter, table
from pathclip.synthetic.nuclei import stamp_nuclei

__all__ = ["Outline", "cribriform_nest", "crypt", "draw_outline", "tumour_gland"]


@dataclass(frozen=True, slots=True)
class Outline:
    """The closed outline of a gland: an ellipse with a few waves on it.

    Attributes:
        y: Centre in micrometres.
        x: Centre in micrometres.
        radius: Mean radius in micrometres.
        stretch: Long over short axis, at least 1.
        angle: Direction of the long axis.
        waves: (k, amplitude, phase) of each wave around the outline.
    """

    y: float
    x: float
    radius: float
    stretch: float
    angle: float
    waves: tuple[tuple[int, float, float], ...]

    @property
    def reach(self) -> float:
        """Radius in micrometres of a circle that surely holds the gland."""
        return self.radius * self.stretch**0.5 * (1 + sum(abs(a) for _, a, _ in self.waves)) + 3

    def radius_at(self, theta: Field) -> Field:
        """Outline radius in the stretched frame, in micrometres."""
        return self.radius * (1 + sum(a * np.cos(k * theta + p) for k, a, p in self.waves))

    def polar(self, window: Window) -> tuple[Field, Field]:
        """(h, w) depth below the outline (micrometres, negative outside) and stretched angle."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        root = np.float32(self.stretch**0.5)
        u = (window.dx * cos + window.dy * sin) / root
        v = (window.dy * cos - window.dx * sin) * root
        theta = np.arctan2(v, u)
        return self.radius_at(theta) - np.hypot(u, v), theta

    def at(self, theta: Field, depth: Field) -> tuple[Field, Field]:
        """Points (N, 2) at given angles and depths, and the inward direction (N,) there."""
        r = self.radius_at(theta) - depth
        u, v = r * np.cos(theta) * self.stretch**0.5, r * np.sin(theta) / self.stretch**0.5
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        y, x = u * sin + v * cos, u * cos - v * sin
        return np.stack([self.y + y, self.x + x], axis=1), np.arctan2(y, x)


def draw_outline(
    rng: np.random.Generator, point: Field, radius: float, stretch: float, waviness: float
) -> Outline:
    """A gland by chance around a point."""
    waves = tuple((k, float(rng.normal(0, waviness / k)), float(rng.uniform(0, 6.3))) for k in (2, 3, 4, 5))
    return Outline(float(point[0]), float(point[1]), radius, stretch, float(rng.uniform(0, np.pi)), waves)


def crypt(canvas: Canvas, outline: Outline) -> None:
    """A colonic crypt: small lumen, goblet cells like petals, small basal nuclei, thin basement membrane."""
    window = canvas.window(outline.y, outline.x, outline.reach)
    if window is None:
        return
    rng = canvas.rng
    depth, theta = outline.polar(window)
    height = outline.radius * rng.uniform(0.68, 0.82)
    inside = _step(depth, canvas.mpp)
    canvas.blend(window, _step(depth + 2.2, canvas.mpp) * 0.8, 0.12, 0.75)  # basement membrane
    canvas.blend(window, inside, 0.22 + 0.12 * _grain(canvas, window), 0.62 + 0.06 * _grain(canvas, window))
    cells = max(int(2 * np.pi * outline.radius / rng.uniform(11.0, 15.0)), 7)
    f, start, stop = _goblets(rng, theta, cells, height)
    along = (depth - start) / (stop - start)  # 0 at the base of the vacuole, 1 at its mouth
    girth = np.sqrt(np.clip(4 * along * (1 - along), 0, 1)) * (0.43 + 0.08 * along)
    vacuole = np.clip((girth - np.abs(f)) * np.float32(9.0), 0, 1) * inside
    canvas.blend(window, vacuole * 0.94, 0.12 + 0.04 * _grain(canvas, window), 0.05)
    lumen = _step(depth - height * rng.uniform(0.98, 1.1), canvas.mpp)
    canvas.blend(window, lumen * 0.8, 0.08, rng.uniform(0.03, 0.2))
    angles = (np.arange(cells) + 0.5 + rng.uniform(-0.25, 0.25, cells)) * 2 * np.pi / cells - np.pi
    points, inward = outline.at(angles, rng.uniform(3.0, 6.0, cells))
    stamp_nuclei(canvas, "crypt", points, inward + np.pi / 2 * (rng.random(cells) < 0.6))


def tumour_gland(canvas: Canvas, outline: Outline, thickness: float) -> None:
    """A malignant gland: stratified crowded nuclei, dark cytoplasm, a ragged lumen with dirty necrosis.

    Args:
        canvas: The sheet.
        outline: Where and how large.
        thickness: Height of the epithelium in micrometres.
    """
    window = canvas.window(outline.y, outline.x, outline.reach)
    if window is None:
        return
    rng = canvas.rng
    depth, theta = outline.polar(window)
    inside = _step(depth, canvas.mpp)
    canvas.blend(window, inside, 0.34 + 0.06 * _grain(canvas, window), 0.60 + 0.07 * _grain(canvas, window))
    ragged = thickness + 1.6 * np.cos(7 * theta + rng.uniform(0, 6)) + 1.0 * np.cos(13 * theta)
    hollow = _step(depth - ragged, canvas.mpp)
    canvas.blend(window, hollow, 0.03, 0.04)
    if rng.random() < 0.6:
        dirt = np.clip(_grain(canvas, window, 5) * 0.9 + rng.uniform(-0.9, 0.3), 0, 1)
        canvas.blend(window, _step(depth - ragged - 4, canvas.mpp) * dirt, 0.25, 0.65)
    _palisade(canvas, outline, thickness)
    room = outline.radius - thickness - 4
    debris = int(max(room, 0) * rng.uniform(0, 0.5))
    deep = rng.uniform(0, 1, debris) * max(room, 0) + thickness + 4
    points, _ = outline.at(rng.uniform(-np.pi, np.pi, debris), deep)
    stamp_nuclei(canvas, "debris", points)


def _palisade(canvas: Canvas, outline: Outline, thickness: float) -> None:
    """Rows of long nuclei at right angles to the basement membrane; more where the epithelium is high."""
    rng = canvas.rng
    rows = max(int((thickness - 3) / 7.5), 1)
    for row in reversed(range(rows)):
        middle = 6.0 + 7.0 * row
        cells = int(2 * np.pi * max(outline.radius - middle, 4) / rng.uniform(5.4, 6.6))
        angles = (np.arange(cells) + rng.uniform(-0.38, 0.38, cells)) * 2 * np.pi / max(cells, 1) - np.pi
        points, inward = outline.at(angles, middle + rng.uniform(-2.8, 2.8, cells))
        present = rng.random(cells) < (0.95 if row == 0 else 0.75)
        stamp_nuclei(canvas, "tumour", points[present], inward[present])


def cribriform_nest(canvas: Canvas, outline: Outline) -> None:
    """A solid nest of tumour cells with round punched-out lumens."""
    window = canvas.window(outline.y, outline.x, outline.reach)
    if window is None:
        return
    rng = canvas.rng
    depth, _ = outline.polar(window)
    inside = _step(depth, canvas.mpp)
    canvas.blend(window, inside, 0.36 + 0.07 * _grain(canvas, window), 0.62 + 0.08 * _grain(canvas, window))
    holes = _spread(rng, outline, rng.uniform(26.0, 38.0), margin=10.0)
    radii = rng.uniform(4.5, 11.0, len(holes))
    points = _spread(rng, outline, 6.9, margin=3.5)
    for (y, x), r in zip(holes.tolist(), radii.tolist(), strict=True):
        spot = canvas.window(y, x, r + 3)
        if spot is not None:
            wave = 1 + 0.12 * np.cos(3 * np.arctan2(spot.dy, spot.dx) + rng.uniform(0, 6))
            canvas.blend(
                spot, _step(r * wave - np.hypot(spot.dy, spot.dx), canvas.mpp), 0.05, rng.uniform(0.03, 0.2)
            )
        points = points[np.hypot(points[:, 0] - y, points[:, 1] - x) > r + 3.2]
    stamp_nuclei(canvas, "solid_tumour", points)


def _spread(rng: np.random.Generator, outline: Outline, spacing: float, margin: float) -> Field:
    """(N, 2) jittered points at least ``margin`` inside an outline."""
    reach = outline.reach
    points = scatter(rng, (2 * reach, 2 * reach), spacing, 0.0) - reach
    cos, sin, root = np.cos(outline.angle), np.sin(outline.angle), outline.stretch**0.5
    u = (points[:, 1] * cos + points[:, 0] * sin) / root
    v = (points[:, 0] * cos - points[:, 1] * sin) * root
    inside = outline.radius_at(np.arctan2(v, u)) - np.hypot(u, v) > margin
    return points[inside] + np.array([outline.y, outline.x], np.float32)


def _goblets(rng: np.random.Generator, theta: Field, cells: int, height: float) -> tuple[Field, Field, Field]:
    """Per pixel: position across its cell (-0.5 to 0.5), depths where its vacuole starts and stops."""
    widths = rng.uniform(0.7, 1.3, cells)
    borders = np.cumsum(widths) / widths.sum() * 2 * np.pi - np.pi
    index = np.minimum(np.searchsorted(borders, theta), cells - 1)
    middle = borders - widths / widths.sum() * np.pi
    f = (theta - middle[index].astype(np.float32)) * (cells / (2 * np.pi) / widths).astype(np.float32)[index]
    start = rng.uniform(0.14, 0.30, cells) * height
    stop = rng.uniform(0.75, 1.05, cells) * height
    empty = rng.random(cells) > 0.85  # an absorptive cell: no vacuole
    start[empty], stop[empty] = 1e4, 1e4 + 1
    return f, start.astype(np.float32)[index], stop.astype(np.float32)[index]


def _step(depth: Field, mpp: float) -> Field:
    """1 where ``depth`` (micrometres) is positive, 0 where negative, soft over one pixel."""
    return np.clip(depth * np.float32(1 / mpp) + np.float32(0.5), 0, 1)


def _grain(canvas: Canvas, window: Window, bump_um: float = 2.0) -> Field:
    """Cytoplasmic texture for a window, unit deviation."""
    bump = max(int(bump_um / canvas.mpp), 1)
    top, left = canvas.rng.integers(0, TABLE_PX, 2)
    rows = np.arange(window.dy.shape[0]) + top & TABLE_PX - 1
    columns = np.arange(window.dx.shape[1]) + left & TABLE_PX - 1
    return table(bump, bump)[np.ix_(rows, columns)]
