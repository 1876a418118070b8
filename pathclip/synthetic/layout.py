"""Where the tissues of a slide lie: polygons in level-0 pixels, later ones over earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["Region", "SlideTruth", "draw_regions", "region_mask"]

Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Region:
    """One painted area.

    Attributes:
        label: Tissue class.
        polygon: Vertices (x, y) in level-0 pixels, not closed.
    """

    label: str
    polygon: Polygon


@dataclass(frozen=True, slots=True)
class SlideTruth:
    """What a synthetic slide shows.

    Attributes:
        path: The file.
        label: The slide's diagnosis: the class of its main regions.
        mpp: Micrometres per pixel at level 0.
        size_px: (width, height) at level 0.
        levels: Downsampling of each level.
        regions: Painted areas in painting order: where two overlap, the later one is seen.
    """

    path: Path
    label: str
    mpp: float
    size_px: tuple[int, int]
    levels: tuple[int, ...]
    regions: tuple[Region, ...]

    def label_at(self, x: float, y: float) -> str | None:
        """The tissue seen at a level-0 pixel, or None on the empty slide."""
        for region in reversed(self.regions):
            if _contains(region.polygon, x, y):
                return region.label
        return None

    def to_json(self) -> dict[str, object]:
        """Plain values, schema ``pathclip.slide-truth/1``."""
        return {
            "schema": "pathclip.slide-truth/1",
            "slide": self.path.name,
            "label": self.label,
            "mpp": self.mpp,
            "size_px": list(self.size_px),
            "levels": list(self.levels),
            "regions": [
                {"label": r.label, "polygon": [[round(x, 1), round(y, 1)] for x, y in r.polygon]}
                for r in self.regions
            ],
        }


def draw_regions(rng: np.random.Generator, size_px: tuple[int, int], label: str) -> tuple[Region, ...]:
    """A full-thickness piece of bowel wall by chance.

    From the lumen down: the main tissue, submucosal stroma with aggregates of lymphocytes, the muscle layer,
    fat. Any tissue but normal mucosa also grows through the layers, with necrosis and mucin where it does.

    Args:
        rng: Source of randomness.
        size_px: (width, height).
        label: The class of the main areas.
    """
    width, height = size_px
    lines = _layers(rng, size_px, depths=(0.0, 0.26, 0.49, 0.74, 1.0))
    regions = [
        Region("stroma", _between(lines[0], lines[4])),
        Region("adipose_tissue", _between(lines[3], lines[4])),
        Region("smooth_muscle", _between(lines[2], lines[3])),
        Region(label, _between(lines[0], lines[1])),
    ]
    if label != "normal_colon_mucosa":
        regions += _invasion(rng, size_px, label, lines)
    for share in (0.07, 0.5, 0.93):
        x, y = _on(lines[1], share, 0.1 * height)
        regions.append(Region("lymphocytes", _blob(rng, (x, y), 0.055 * width, 0.075 * height, 0.06)))
    return tuple(regions)


def _invasion(
    rng: np.random.Generator, size_px: tuple[int, int], label: str, lines: list[np.ndarray]
) -> list[Region]:
    """Two lobes that grow through the layers, the larger one with a necrotic middle, and a pool of mucin."""
    width, height = size_px
    first = rng.choice([0.3, 0.7])
    regions = []
    for share, size in ((first, 0.2), (1 - first, 0.14)):
        x, y = _on(lines[1], share + rng.uniform(-0.05, 0.05), 0.07 * height)
        regions.append(Region(label, _blob(rng, (x, y), 0.85 * size * width, size * height, 0.07)))
        if share == first:
            spot = (x + 0.02 * width, y + 0.02 * height)
            regions.append(Region("necrosis", _blob(rng, spot, 0.075 * width, 0.1 * height, 0.1)))
    x, y = _on(lines[2], 1 - first, 0.12 * height)
    regions.append(Region("mucin", _blob(rng, (x, y), 0.085 * width, 0.1 * height, 0.08)))
    return regions


def _layers(
    rng: np.random.Generator, size_px: tuple[int, int], depths: tuple[float, ...]
) -> list[np.ndarray]:
    """(P, 2) wavy lines from left to right at relative depths of the wall, itself slightly arched."""
    width, height = size_px
    t = np.linspace(0, 1, 64)
    x = (0.11 + 0.83 * t) * width
    arch = rng.uniform(-0.06, 0.06) * height * np.sin(np.pi * t)
    lines = []
    for depth in depths:
        waves = sum(
            rng.normal(0, 0.012) / np.sqrt(k) * np.sin(2 * np.pi * k * t + rng.uniform(0, 6.3))
            for k in range(1, 7)
        )
        ends = 0.02 * height * (1 - np.minimum(1, 12 * np.minimum(t, 1 - t))) * (0.5 - depth) * 2
        lines.append(np.stack([x, (0.12 + 0.76 * depth + waves) * height + arch + ends], axis=1))
    return lines


def _between(upper: np.ndarray, lower: np.ndarray) -> Polygon:
    """The area between two lines; its ends bulge a little, as cut edges do."""
    height = lower[-1, 1] - upper[-1, 1]
    turn = np.linspace(-1, 1, 12)[1:-1]
    bulge = np.cos(turn * np.pi / 2) * min(0.02 * (upper[-1, 0] - upper[0, 0]), 0.2 * height)
    right = np.stack(
        [upper[-1, 0] + bulge, upper[-1, 1] + (turn + 1) / 2 * (lower[-1, 1] - upper[-1, 1])], axis=1
    )
    left = np.stack([upper[0, 0] - bulge, lower[0, 1] + (turn + 1) / 2 * (upper[0, 1] - lower[0, 1])], axis=1)
    points = np.concatenate([upper, right, lower[::-1], left]).round(1)
    return tuple((float(x), float(y)) for x, y in points)


def _on(line: np.ndarray, share: float, below: float) -> tuple[float, float]:
    """A point below a line, at a share of its length."""
    x, y = line[round(share * (len(line) - 1))]
    return float(x), float(y + below)


def region_mask(region: Region, left: int, top: int, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 share of each pixel of a window that a region covers."""
    image = Image.new("L", (shape[1], shape[0]))
    ImageDraw.Draw(image).polygon([(x - left, y - top) for x, y in region.polygon], fill=255)
    return np.asarray(image, np.float32) / 255


def _blob(
    rng: np.random.Generator,
    centre: tuple[float, float],
    rx: float,
    ry: float,
    waviness: float,
    points: int = 96,
) -> Polygon:
    theta = np.linspace(0, 2 * np.pi, points, endpoint=False)
    r = 1 + sum(
        waviness * rng.normal() / np.sqrt(k) * np.cos(k * theta + rng.uniform(0, 6.3)) for k in range(2, 8)
    )
    x, y = centre[0] + rx * r * np.cos(theta), centre[1] + ry * r * np.sin(theta)
    return tuple(zip(x.round(1).tolist(), y.round(1).tolist(), strict=True))


def _contains(polygon: Polygon, x: float, y: float) -> bool:
    """Even-odd rule."""
    xs, ys = np.array(polygon).T
    xn, yn = np.roll(xs, -1), np.roll(ys, -1)
    crosses = (ys > y) != (yn > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = xs + (y - ys) * (xn - xs) / (yn - ys)
    return bool(np.count_nonzero(crosses & (x < at)) % 2)
