"""One painter per tissue class: what a pathologist would draw, in micrometres."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pathclip.synthetic.canvas import Canvas
from pathclip.synthetic.glands import cribriform_nest, crypt, draw_outline, tumour_gland
from pathclip.synthetic.noise import scatter
from pathclip.synthetic.nuclei import stamp_nuclei
from pathclip.synthetic.parts import (
    cytoplasm,
    fat_cells,
    fibre_texture,
    fibres,
    ghost,
    sample,
    thin_out,
    vessel,
)

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
            vessel(canvas, point, rng.uniform(6, 10))


def stroma(canvas: Canvas) -> None:
    """Wavy collagen with clefts, thin fibroblast nuclei, a few lymphocytes, now and then a vessel."""
    rng = canvas.rng
    v, angle = fibres(canvas, swing_um=rng.uniform(9, 20), bend_um=rng.uniform(45, 90))
    bundles = fibre_texture(canvas, v, rng.uniform(3.0, 5.0), 40)
    fine = fibre_texture(canvas, v, 1.4, 20)
    density = rng.uniform(0.45, 0.75)
    eosin = density * (1 + 0.22 * bundles + 0.12 * fine)
    canvas.cover(np.ones(canvas.shape, np.float32), 0.08 + 0.02 * fine, np.clip(eosin, 0.05, None))
    clefts = np.clip((-bundles - rng.uniform(0.5, 1.3)) * 1.6, 0, 0.92)
    canvas.cover(clefts, 0.02, 0.05)
    for point in scatter(rng, canvas.size_um, 120.0, 10):
        if rng.random() < 0.5:
            vessel(canvas, point, rng.uniform(7, 14))
    points = scatter(rng, canvas.size_um, rng.uniform(17, 26), 10)
    stamp_nuclei(canvas, "fibroblast", points, angle(points))
    immune = scatter(rng, canvas.size_um, rng.uniform(30, 70), 4)
    stamp_nuclei(canvas, "lymphocyte", immune)


def smooth_muscle(canvas: Canvas) -> None:
    """Parallel eosinophilic bundles with cigar-shaped nuclei that all point one way."""
    rng = canvas.rng
    v, angle = fibres(canvas, swing_um=rng.uniform(1.5, 4.5), bend_um=rng.uniform(60, 120))
    cells = fibre_texture(canvas, v, rng.uniform(2.6, 3.6), 60)
    fine = fibre_texture(canvas, v, 1.5, 45)
    ground = 0.78 * (1 + 0.12 * cells + 0.05 * fine + 0.05 * canvas.noise(30))
    canvas.cover(np.ones(canvas.shape, np.float32), 0.14 + 0.02 * cells, ground)
    cracks = np.clip((fibre_texture(canvas, v, rng.uniform(7, 12), 90) - rng.uniform(1.3, 2.0)) * 2.2, 0, 0.9)
    canvas.cover(cracks, 0.02, 0.06)
    points = scatter(rng, canvas.size_um, rng.uniform(15, 20), 12)
    stamp_nuclei(canvas, "muscle", points, angle(points))


def adipose_tissue(canvas: Canvas) -> None:
    """Large empty cells with thin walls and nuclei pressed flat against them."""
    rng = canvas.rng
    spacing = rng.uniform(42, 68)
    gap, wall = fat_cells(canvas, spacing)
    half = np.clip(rng.uniform(0.7, 1.5) * (1 + 0.35 * canvas.noise(20)), 0.35, None)
    septum = np.clip((half - gap) / max(canvas.mpp, 0.6) + 0.5, 0, 1)
    canvas.cover(np.ones(canvas.shape, np.float32), 0.01, 0.025)
    canvas.cover(septum, 0.12, 0.62 + 0.12 * canvas.noise(6))
    points, angles = wall
    chosen = rng.random(len(points)) < 0.22
    stamp_nuclei(canvas, "flat", points[chosen], angles[chosen])
    for point in scatter(rng, canvas.size_um, 190.0, 10):
        if rng.random() < 0.5:
            vessel(canvas, point, rng.uniform(6, 10))


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
        ghost(canvas, y, x, rng.uniform(4.0, 6.0))
    dust = scatter(rng, canvas.size_um, rng.uniform(4.5, 7.0), 3)
    here = sample(canvas, canvas.noise(25), dust) + rng.normal(0, 0.5, len(dust))
    stamp_nuclei(canvas, "debris", dust[here > 0.35])
    stamp_nuclei(canvas, "pyknotic", thin_out(rng, dust[here < -1.3], 0.25))


def mucin(canvas: Canvas) -> None:
    """Pale blue-grey pools with drawn-out threads and a few floating cells."""
    rng = canvas.rng
    v, angle = fibres(canvas, swing_um=rng.uniform(25, 55), bend_um=rng.uniform(50, 90))
    threads = fibre_texture(canvas, v, rng.uniform(2.2, 4.5), 50)
    veil = canvas.noise(28)
    canvas.cover(
        np.ones(canvas.shape, np.float32),
        np.clip(0.15 + 0.06 * veil + 0.065 * threads + 0.02 * canvas.noise(2.5), 0.01, None),
        np.clip(0.05 + 0.03 * veil + 0.02 * threads, 0.01, None),
    )
    canvas.cover(np.clip((threads - 1.4) * 0.5, 0, 0.5), 0.22, rng.uniform(0.08, 0.35))
    for middle in thin_out(rng, scatter(rng, canvas.size_um, rng.uniform(60, 90), 10), 0.6):
        cluster = middle + rng.normal(
            0, 7, (int(rng.integers(1, 7)), 2)
        )  # tumour cells afloat, alone or in clumps
        for y, x in cluster.tolist():
            cytoplasm(canvas, y, x, rng.uniform(5, 8))
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
    v, angle = fibres(canvas, swing_um=14, bend_um=60)
    bundles = fibre_texture(canvas, v, 3.5, 30)
    canvas.cover(np.ones(canvas.shape, np.float32), 0.08, np.clip(0.5 + 0.14 * bundles, 0.05, None))
    canvas.cover(np.clip((-bundles - 1.0) * 1.4, 0, 0.85), 0.02, 0.05)
    points = scatter(rng, canvas.size_um, 15, 8)
    stamp_nuclei(canvas, "fibroblast", points, angle(points))
    stamp_nuclei(canvas, "lymphocyte", scatter(rng, canvas.size_um, 26, 4))
