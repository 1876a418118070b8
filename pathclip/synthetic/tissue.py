"""One painter per tissue class: what a pathologist would draw, in micrometres."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pathclip.synthetic.canvas import Canvas
from pathclip.synthetic.glands import cribriform_nest, crypt, draw_outline, tumour_gland
from pathclip.synthetic.noise import TABLE_PX, Field, scatter, table
from pathclip.synthetic.nuclei import stamp_nuclei

__all__ = ["PAINTERS"]


def lymphocytes(canvas: Canvas) -> None:
    """Sheets of small round dark nuclei with hardly any cytoplasm, some pale histiocytes, a vessel."""
    rng = canvas.rng
    canvas.cover(
        np.ones(canvas.shape, np.float32), 0.10 + 0.05 * canvas.noise(6), 0.28 + 0.10 * canvas.noise(9)
    )
    gaps = np.clip(canvas.noise(9) - 1.0, 0, 1)
    canvas.cover(gaps, 0.02, 0.03)
    points = scatter(rng, canvas.size_um, rng.uniform(7.4, 9.6), 6)
    pale = rng.random(len(points)) < 0.06
    stamp_nuclei(canvas, "histiocyte", points[pale])
    stamp_nuclei(canvas, "lymphocyte", points[~pale])
    for point in scatter(rng, canvas.size_um, 190.0, 10):
        if rng.random() < 0.5:
            _vessel(canvas, point, rng.uniform(6, 10))


def stroma(canvas: Canvas) -> None:
    """Wavy collagen with clefts, thin fibroblast nuclei, a few lymphocytes, now and then a vessel."""
    rng = canvas.rng
    v, angle = _fibres(canvas, swing_um=rng.uniform(9, 20), bend_um=rng.uniform(45, 90))
    bundles = _fibre_texture(canvas, v, rng.uniform(3.0, 5.0), 40)
    fine = _fibre_texture(canvas, v, 1.4, 20)
    density = rng.uniform(0.45, 0.75)
    eosin = density * (1 + 0.22 * bundles + 0.12 * fine)
    canvas.cover(np.ones(canvas.shape, np.float32), 0.08 + 0.02 * fine, np.clip(eosin, 0.05, None))
    clefts = np.clip((-bundles - rng.uniform(0.5, 1.3)) * 1.6, 0, 0.92)
    canvas.cover(clefts, 0.02, 0.05)
    for point in scatter(rng, canvas.size_um, 120.0, 10):
        if rng.random() < 0.5:
            _vessel(canvas, point, rng.uniform(7, 14))
    points = scatter(rng, canvas.size_um, rng.uniform(17, 26), 10)
    stamp_nuclei(canvas, "fibroblast", points, angle(points))
    immune = scatter(rng, canvas.size_um, rng.uniform(30, 70), 4)
    stamp_nuclei(canvas, "lymphocyte", immune)


def smooth_muscle(canvas: Canvas) -> None:
    """Parallel eosinophilic bundles with cigar-shaped nuclei that all point one way."""
    rng = canvas.rng
    v, angle = _fibres(canvas, swing_um=rng.uniform(1.5, 4.5), bend_um=rng.uniform(60, 120))
    cells = _fibre_texture(canvas, v, rng.uniform(2.6, 3.6), 60)
    fine = _fibre_texture(canvas, v, 1.5, 45)
    ground = 0.78 * (1 + 0.12 * cells + 0.05 * fine + 0.05 * canvas.noise(30))
    canvas.cover(np.ones(canvas.shape, np.float32), 0.14 + 0.02 * cells, ground)
    cracks = np.clip(
        (_fibre_texture(canvas, v, rng.uniform(7, 12), 90) - rng.uniform(1.3, 2.0)) * 2.2, 0, 0.9
    )
    canvas.cover(cracks, 0.02, 0.06)
    points = scatter(rng, canvas.size_um, rng.uniform(15, 20), 12)
    stamp_nuclei(canvas, "muscle", points, angle(points))


def adipose_tissue(canvas: Canvas) -> None:
    """Large empty cells with thin walls and nuclei pressed flat against them."""
    rng = canvas.rng
    spacing = rng.uniform(42, 68)
    gap, wall = _cells(canvas, spacing)
    half = np.clip(rng.uniform(0.7, 1.5) * (1 + 0.35 * canvas.noise(20)), 0.35, None)
    septum = np.clip((half - gap) / max(canvas.mpp, 0.6) + 0.5, 0, 1)
    canvas.cover(np.ones(canvas.shape, np.float32), 0.01, 0.025)
    canvas.cover(septum, 0.12, 0.62 + 0.12 * canvas.noise(6))
    points, angles = wall
    chosen = rng.random(len(points)) < 0.22
    stamp_nuclei(canvas, "flat", points[chosen], angles[chosen])
    for point in scatter(rng, canvas.size_um, 190.0, 10):
        if rng.random() < 0.5:
            _vessel(canvas, point, rng.uniform(6, 10))


def necrosis(canvas: Canvas) -> None:
    """Smudged pink debris with ghosts of cells and nuclear dust; no living nucleus."""
    rng = canvas.rng
    clumps = canvas.noise(rng.uniform(9, 16)) + 0.6 * canvas.noise(4.5)
    grain = canvas.noise(1.8)
    eosin = 0.58 + 0.16 * clumps + 0.10 * grain
    canvas.cover(
        np.ones(canvas.shape, np.float32),
        0.16 + 0.07 * canvas.noise(12) + 0.04 * grain,
        np.clip(eosin, 0.06, None),
    )
    cracks = np.clip((-clumps - 1.5) * 1.5, 0, 0.9)
    canvas.cover(cracks, 0.02, 0.04)
    ghosts = scatter(rng, canvas.size_um, rng.uniform(11, 15), 5)
    for y, x in ghosts[rng.random(len(ghosts)) < 0.55].tolist():
        _ghost(canvas, y, x, rng.uniform(4.0, 6.0))
    dust = scatter(rng, canvas.size_um, rng.uniform(4.5, 7.0), 3)
    here = _sample(canvas, canvas.noise(25), dust) + rng.normal(0, 0.5, len(dust))
    stamp_nuclei(canvas, "debris", dust[here > 0.35])
    stamp_nuclei(canvas, "pyknotic", _thin_out(rng, dust[here < -1.3], 0.25))


def mucin(canvas: Canvas) -> None:
    """Pale blue-grey pools with drawn-out threads and a few floating cells."""
    rng = canvas.rng
    v, angle = _fibres(canvas, swing_um=rng.uniform(25, 55), bend_um=rng.uniform(50, 90))
    threads = _fibre_texture(canvas, v, rng.uniform(2.2, 4.5), 50)
    veil = canvas.noise(28)
    canvas.cover(
        np.ones(canvas.shape, np.float32),
        np.clip(0.15 + 0.06 * veil + 0.065 * threads + 0.02 * canvas.noise(2.5), 0.01, None),
        np.clip(0.05 + 0.03 * veil + 0.02 * threads, 0.01, None),
    )
    canvas.cover(np.clip((threads - 1.4) * 0.5, 0, 0.5), 0.22, rng.uniform(0.08, 0.35))
    for middle in _thin_out(rng, scatter(rng, canvas.size_um, rng.uniform(60, 90), 10), 0.6):
        cluster = middle + rng.normal(
            0, 7, (int(rng.integers(1, 7)), 2)
        )  # tumour cells afloat, alone or in clumps
        for y, x in cluster.tolist():
            _cytoplasm(canvas, y, x, rng.uniform(5, 8))
        stamp_nuclei(canvas, rng.choice(["solid_tumour", "lymphocyte"]), cluster)
    strip = scatter(rng, canvas.size_um, rng.uniform(45, 80), 6)
    stamp_nuclei(canvas, "flat", strip, angle(strip))


def normal_colon_mucosa(canvas: Canvas) -> None:
    """Round, evenly set crypts rich in goblet cells; lamina propria with plasma cells between them."""
    rng = canvas.rng
    _lamina_propria(canvas)
    radius = rng.uniform(30, 44)
    for point in scatter(rng, canvas.size_um, radius * rng.uniform(2.05, 2.35), radius * 1.5, jitter=0.11):
        size = float(radius * rng.uniform(0.84, 1.02))
        crypt(canvas, draw_outline(rng, point, size, float(rng.uniform(1.0, 1.25)), 0.05))


def adenocarcinoma(canvas: Canvas) -> None:
    """Irregular back-to-back glands and cribriform nests with crowded dark nuclei in a fibrous stroma."""
    rng = canvas.rng
    _desmoplasia(canvas)
    spacing = rng.uniform(66, 96)
    solid = rng.choice([0.1, 0.45])
    thickness = rng.uniform(15, 24)
    for point in scatter(rng, canvas.size_um, spacing, spacing, jitter=0.26):
        radius = spacing * rng.uniform(0.44, 0.55)
        outline = draw_outline(rng, point, float(radius), float(rng.uniform(1.0, 1.9)), 0.2)
        if rng.random() < solid:
            cribriform_nest(canvas, outline)
        else:
            tumour_gland(canvas, outline, float(thickness * rng.uniform(0.85, 1.2)))


PAINTERS: dict[str, Callable[[Canvas], None]] = {
    painter.__name__: painter
    for painter in (
        adenocarcinoma,
        normal_colon_mucosa,
        stroma,
        lymphocytes,
        adipose_tissue,
        smooth_muscle,
        necrosis,
        mucin,
    )
}


def _lamina_propria(canvas: Canvas) -> None:
    rng = canvas.rng
    weave = canvas.noise(5)
    canvas.cover(
        np.ones(canvas.shape, np.float32), 0.08 + 0.02 * weave, np.clip(0.34 + 0.13 * weave, 0.05, None)
    )
    canvas.cover(np.clip(canvas.noise(10) - 1.2, 0, 0.7), 0.02, 0.06)
    points = scatter(rng, canvas.size_um, rng.uniform(9.5, 12.5), 5)
    draw = rng.random(len(points))
    stamp_nuclei(canvas, "plasma", points[draw < 0.45])
    stamp_nuclei(canvas, "lymphocyte", points[(draw >= 0.45) & (draw < 0.62)])
    stamp_nuclei(canvas, "flat", points[draw > 0.85])


def _desmoplasia(canvas: Canvas) -> None:
    rng = canvas.rng
    v, angle = _fibres(canvas, swing_um=14, bend_um=60)
    bundles = _fibre_texture(canvas, v, 3.5, 30)
    canvas.cover(np.ones(canvas.shape, np.float32), 0.08, np.clip(0.5 + 0.14 * bundles, 0.05, None))
    canvas.cover(np.clip((-bundles - 1.0) * 1.4, 0, 0.85), 0.02, 0.05)
    points = scatter(rng, canvas.size_um, 15, 8)
    stamp_nuclei(canvas, "fibroblast", points, angle(points))
    stamp_nuclei(canvas, "lymphocyte", scatter(rng, canvas.size_um, 26, 4))


def _fibres(canvas: Canvas, swing_um: float, bend_um: float) -> tuple[Field, Callable[[Field], Field]]:
    """A sheet of curved fibres: (2, H, W) coordinates (across, along) and the local direction at points."""
    y, x = canvas.positions()
    turn = canvas.rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    across = y * cos - x * sin + np.float32(swing_um) * canvas.noise(bend_um)
    along = x * cos + y * sin

    def direction(points: Field) -> Field:
        step = 2 * canvas.mpp
        at = [
            _sample(canvas, across, points + offset)
            for offset in ([step, 0], [-step, 0], [0, step], [0, -step])
        ]
        return np.arctan2(-(at[2] - at[3]), at[0] - at[1])  # along the fibre: at right angles to the slope

    return np.stack([across, along]), direction


def _fibre_texture(canvas: Canvas, v: Field, width_um: float, length_um: float) -> Field:
    """(H, W) streaks along the fibres, unit deviation: a lookup at warped coordinates."""
    entries = 6  # table entries per streak width
    start = canvas.rng.integers(0, TABLE_PX, 2)
    rows = (v[0] * np.float32(entries / width_um)).astype(np.int32) + start[0]
    columns = (v[1] * np.float32(24 / length_um)).astype(np.int32) + start[1]
    rows &= TABLE_PX - 1
    columns &= TABLE_PX - 1
    return table(24, entries * 2)[rows, columns]


def _cells(canvas: Canvas, spacing: float) -> tuple[Field, tuple[Field, Field]]:
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


def _vessel(canvas: Canvas, point: Field, radius: float) -> None:
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


def _ghost(canvas: Canvas, y: float, x: float, radius: float) -> None:
    """The faint outline of a dead cell."""
    window = canvas.window(y, x, radius + 2)
    if window is not None:
        ring = np.abs(np.hypot(window.dy, window.dx) - radius)
        canvas.blend(window, np.clip(1.1 - ring / 1.3, 0, 0.35), 0.12, 0.95)


def _cytoplasm(canvas: Canvas, y: float, x: float, radius: float) -> None:
    """The ragged, vacuolated body of a cell afloat in mucin."""
    window = canvas.window(y, x, 1.5 * radius)
    if window is not None:
        r = np.hypot(window.dy, window.dx * np.float32(canvas.rng.uniform(0.7, 1.3)))
        wave = 1 + 0.2 * np.cos(3 * np.arctan2(window.dy, window.dx) + np.float32(canvas.rng.uniform(0, 6)))
        canvas.blend(window, np.clip((radius * wave - r) / 3.5, 0, 0.6), 0.18, canvas.rng.uniform(0.15, 0.4))


def _thin_out(rng: np.random.Generator, points: Field, share: float) -> Field:
    return points[rng.random(len(points)) < share]


def _sample(canvas: Canvas, plane: Field, points_um: Field) -> Field:
    """Values of a plane at points, nearest pixel, clamped to the sheet."""
    index = (np.asarray(points_um) / canvas.mpp).astype(int)
    rows = np.clip(index[:, 0], 0, canvas.shape[0] - 1)
    return plane[rows, np.clip(index[:, 1], 0, canvas.shape[1] - 1)]
