"""Nuclei: small pictures prepared once per kind, scale and direction, then stamped by the hundred."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from pathclip.synthetic.canvas import Canvas
from pathclip.synthetic.noise import TABLE_PX, Field, table

__all__ = ["KINDS", "NucleusKind", "stamp_nuclei"]

DIRECTIONS = 12
VARIANTS = 7


@dataclass(frozen=True, slots=True)
class NucleusKind:
    """What the nuclei of one cell type look like.

    Attributes:
        length_um: Longest axis, (least, most).
        width_um: Shortest axis, (least, most).
        h: Haematoxylin of the chromatin, (least, most).
        texture: Share by which the chromatin varies inside a nucleus.
        rim: Extra haematoxylin at the nuclear membrane.
        wobble: Irregularity of the outline.
        nucleolus: Chance of a nucleolus.
        bend: Curvature of the long axis: 0 straight, 0.5 wavy as in a fibroblast.
    """

    length_um: tuple[float, float]
    width_um: tuple[float, float]
    h: tuple[float, float]
    texture: float = 0.25
    rim: float = 0.3
    wobble: float = 0.06
    nucleolus: float = 0.0
    bend: float = 0.0


KINDS: dict[str, NucleusKind] = {
    "lymphocyte": NucleusKind((6.2, 7.8), (5.8, 7.2), (1.25, 1.75), 0.16, 0.2, 0.05),
    "plasma": NucleusKind((6.5, 8.0), (5.5, 6.8), (1.05, 1.5), 0.22, 0.3, 0.05),
    "histiocyte": NucleusKind((9.0, 12.0), (6.5, 9.0), (0.45, 0.7), 0.25, 0.35, 0.12, 0.4),
    "tumour": NucleusKind((9.5, 15.0), (5.0, 7.8), (0.8, 1.45), 0.2, 0.3, 0.10, 0.3),
    "solid_tumour": NucleusKind((8.5, 14.0), (7.0, 10.5), (0.6, 1.25), 0.22, 0.4, 0.12, 0.55),
    "crypt": NucleusKind((6.0, 8.5), (4.0, 5.2), (1.0, 1.4), 0.18, 0.2, 0.05),
    "fibroblast": NucleusKind((12.0, 22.0), (1.8, 3.4), (0.85, 1.4), 0.15, 0.1, 0.05, 0.0, 0.5),
    "muscle": NucleusKind((14.0, 24.0), (2.8, 4.2), (0.75, 1.15), 0.12, 0.15, 0.03, 0.0, 0.12),
    "flat": NucleusKind((9.0, 15.0), (1.6, 2.8), (0.9, 1.4), 0.15, 0.1, 0.04, 0.0, 0.25),
    "debris": NucleusKind((1.2, 3.6), (1.0, 3.0), (0.8, 1.8), 0.1, 0.0, 0.18),
    "pyknotic": NucleusKind((3.5, 5.5), (3.0, 5.0), (1.5, 2.1), 0.05, 0.0, 0.12),
}
EOSIN_IN_NUCLEI = 0.22


def stamp_nuclei(canvas: Canvas, kind: str, points_um: Field, angles: Field | None = None) -> None:
    """Paint one nucleus at every point.

    Args:
        canvas: The sheet.
        kind: A key of `KINDS`.
        points_um: (N, 2) centres as (y, x) in micrometres.
        angles: (N,) direction of the long axis, counted from x towards y; by chance when None.
    """
    count = len(points_um)
    if angles is None:
        angles = canvas.rng.uniform(0, np.pi, count).astype(np.float32)
    else:
        angles = angles + canvas.rng.normal(0, 0.12, count)
    bins = np.round(np.asarray(angles) / np.pi * DIRECTIONS).astype(int) % DIRECTIONS
    variants = canvas.rng.integers(0, VARIANTS, count)
    scale = round(canvas.mpp, 3)
    for (y, x), direction, variant in zip(points_um.tolist(), bins.tolist(), variants.tolist(), strict=True):
        canvas.stamp(y, x, *_stamp(kind, scale, direction, variant))


@functools.cache
def _stamp(kind: str, mpp: float, direction: int, variant: int) -> tuple[Field, Field, Field]:
    """One nucleus at one scale: what it keeps of the ground, its haematoxylin, its eosin."""
    look = KINDS[kind]
    rng = np.random.default_rng([list(KINDS).index(kind), direction, variant])
    length, width = rng.uniform(*look.length_um) / 2, rng.uniform(*look.width_um) / 2
    width = min(width, length)
    side = int(np.ceil(2.3 * length / mpp)) + 3
    oversample = max(1, min(4, round(3.0 * mpp)))
    along, across = _axes(rng, side, mpp, oversample, direction * np.pi / DIRECTIONS)
    across = across + look.bend * width * np.sin(along / length * 2.6 + rng.uniform(0, 6))
    polar = np.arctan2(across / width, along / length)
    outline = 1 + sum(look.wobble * rng.normal() * np.cos(k * polar + rng.uniform(0, 6)) for k in (2, 3, 4))
    rho = np.hypot(along / length, across / width) / outline
    edge = np.clip((1 - rho) * width / (0.55 * max(mpp, 0.5)) + 0.5, 0, 1)
    chromatin = rng.uniform(*look.h) * (1 + look.texture * _texture(rng, edge.shape, mpp / oversample))
    chromatin += look.rim * np.clip(1 - np.abs(rho - 0.9) / 0.22, 0, 1)
    if rng.random() < look.nucleolus:
        off = rng.uniform(-0.35, 0.35, 2)
        spot = np.hypot(along / width - off[0], across / width - off[1])
        chromatin += 0.7 * np.clip((0.26 - spot) / 0.12, 0, 1)
    alpha = _shrink(edge, oversample)
    h = _shrink(edge * np.clip(chromatin, 0.1, 2.6), oversample)
    return tuple(part.astype(np.float32) for part in (1 - alpha, h, alpha * EOSIN_IN_NUCLEI))  # type: ignore[return-value]


def _axes(
    rng: np.random.Generator, side: int, mpp: float, oversample: int, angle: float
) -> tuple[Field, Field]:
    """Micrometres along and across the nucleus, on a finer grid, shifted by part of a pixel."""
    ticks = ((np.arange(side * oversample) + 0.5) / oversample - side / 2) * mpp
    shift = rng.uniform(-0.4, 0.4, 2) * mpp
    y, x = ticks[:, None] + shift[0], ticks[None, :] + shift[1]
    cos, sin = np.cos(angle), np.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def _texture(rng: np.random.Generator, shape: tuple[int, int], step_um: float) -> Field:
    """Clumped chromatin: noise with bumps of about 2.2 micrometres."""
    grain = max(round(2.2 / step_um), 1)
    top, left = rng.integers(0, TABLE_PX, 2)
    rows, columns = (np.arange(n) + start & TABLE_PX - 1 for n, start in zip(shape, (top, left), strict=True))
    return table(grain, grain)[np.ix_(rows, columns)]


def _shrink(fine: Field, factor: int) -> Field:
    rows, columns = (side // factor for side in fine.shape)
    return fine.reshape(rows, factor, columns, factor).mean(axis=(1, 3))
