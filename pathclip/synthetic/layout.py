"""Where the tissues of a slide lie: polygons in level-0 pixels, later ones over earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["Region", "SlideTruth", "draw_regions", "region_mask"]

Polygon = tuple[tuple[float, float], ...]
COMPANIONS = ("smooth_muscle", "adipose_tissue", "lymphocytes", "mucin", "necrosis", "stroma")


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
        """Plain values, schema ``pathclip.slide_truth/1``."""
        return {
            "schema": "pathclip.slide_truth/1",
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
    """A section by chance: a piece of stroma, the main tissue in two areas, other tissues around it.

    Args:
        rng: Source of randomness.
        size_px: (width, height).
        label: The class of the main areas.
    """
    width, height = size_px
    short = min(size_px)
    piece = _blob(rng, (0.5 * width, 0.5 * height), 0.40 * width, 0.41 * height, 0.035)
    regions = [Region("stroma", piece)]
    turn = rng.uniform(0, 2 * np.pi)
    ring = [turn + k * 2 * np.pi / 7 + rng.uniform(-0.12, 0.12) for k in range(7)]
    spots = [
        (0.5 * width + 0.255 * width * np.cos(a), 0.5 * height + 0.255 * height * np.sin(a)) for a in ring
    ]
    around = [c for c in COMPANIONS if c not in (label, "stroma")]
    rng.shuffle(around)
    for spot, companion in zip(spots[2:], around, strict=False):
        size = rng.uniform(0.105, 0.135) * short
        regions.append(Region(companion, _blob(rng, spot, size * 1.25, size, 0.07)))
    regions += [Region(label, _blob(rng, spot, 0.175 * short, 0.15 * short, 0.07)) for spot in spots[:2]]
    middle = (0.5 * width + rng.uniform(-0.02, 0.02) * width, 0.5 * height)
    regions.append(Region(label, _blob(rng, middle, 0.16 * short, 0.13 * short, 0.07)))
    return tuple(regions)


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
