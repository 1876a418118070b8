"""Where the tissue is: a classical mask at a fixed physical scale, the same on every machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from pathclip.slides.overview import Overview, overview
from pathclip.slides.slide import Slide

__all__ = ["TISSUE_MPP", "Tissue", "find_tissue", "tissue_mask"]

TISSUE_MPP = 8.0
"""Scale (µm/px) at which tissue is looked for: cells vanish, fragments of a tenth of a millimetre do not."""

MAX_PIXELS = 16_000_000
"""Slides of more than 10 cm² (32 x 32 mm) are looked at on a coarser scale: 18 bytes a pixel are needed."""

# Chroma is max(R, G, B) - min(R, G, B) against the glass. Stained tissue is above Otsu's threshold, kept
# within bounds because on a slide of pure background or of pure tissue it would split noise or tissue in two.
# Pale tissue (fat, mucin) is above the faint threshold and touches stained tissue.
MIN_CHROMA, MAX_CHROMA, FAINT_CHROMA = 14, 28, 6
MIN_SEED_SHARE = 0.01
GLASS_VALUE, GLASS_CHROMA = 200, 10  # glass is bright and grey; where there is none, it is taken for white
MAX_BLACK = 45  # brightest channel of a black edge
CLOSE_UM = 24.0
MIN_FRAGMENT_MM2 = 0.02
MIN_PEN_MM2 = 0.005
STRIP_ROWS = 256
MAX_HOLE_MM2 = 0.05  # a fat cell's lumen is about 0.008 mm2, a vessel's up to a few hundredths


@dataclass(frozen=True, slots=True)
class Tissue:
    """Where tiles may be cut.

    Attributes:
        mask: (H, W) bool.
        origin: (x, y) of the mask's upper left corner in level-0 pixels.
        downsample: Level-0 pixels per mask pixel, in x and y.
        source: ``classical``, ``none`` (the whole slide) or the name of a mask file.
        area_mm2: Area of the mask.
    """

    mask: np.ndarray
    origin: tuple[int, int]
    downsample: tuple[float, float]
    source: str
    area_mm2: float

    @property
    def share(self) -> float:
        """Share of the scanned area that is tissue."""
        return float(self.mask.mean()) if self.mask.size else 0.0


def find_tissue(slide: Slide, slide_mpp: float, *, whole: bool = False) -> Tissue:
    """Mask the tissue of a slide.

    What cannot be read at this scale counts as tissue, so that its tiles are tried and counted.

    Args:
        slide: An open slide.
        slide_mpp: µm per level-0 pixel.
        whole: Take everything for tissue.
    """
    width, height = (side * slide_mpp / TISSUE_MPP for side in slide.bounds[2:])
    coarser = max(1.0, math.sqrt(width * height / MAX_PIXELS))
    view = overview(slide, slide_mpp, TISSUE_MPP * coarser)
    mpp = slide_mpp * max(view.downsample)
    mask = np.ones(view.rgb.shape[:2], bool) if whole else tissue_mask(view.rgb, mpp) | view.unreadable
    return as_tissue(mask, view, slide_mpp, "none" if whole else "classical")


def as_tissue(mask: np.ndarray, view: Overview, slide_mpp: float, source: str) -> Tissue:
    """A mask that covers the same area as an overview, as `Tissue`."""
    pixel_mm2 = view.downsample[0] * view.downsample[1] * slide_mpp**2 / 1e6
    return Tissue(mask, view.origin, view.downsample, source, float(mask.sum() * pixel_mm2))


def tissue_mask(rgb: np.ndarray, mpp: float) -> np.ndarray:
    """Find stained tissue in a small picture of a slide.

    Stained, or pale and next to it; neither black nor of a pen's hue; small gaps closed, holes filled and
    specks dropped by their area in mm². The same picture gives the same mask everywhere.

    Args:
        rgb: (H, W, 3) uint8.
        mpp: Its scale, µm/px.

    Returns:
        (H, W) bool.
    """
    from scipy import ndimage

    pixel_mm2 = mpp**2 / 1e6
    chroma, ink, rim, black = _colours(rgb, _glass(rgb))
    foreign = _pen(ink, rim, pixel_mm2) | black
    smooth = np.asarray(Image.fromarray(chroma).filter(ImageFilter.MedianFilter(3)))
    stained = smooth > np.clip(_otsu(smooth[~foreign]), MIN_CHROMA, MAX_CHROMA)
    mask = (smooth > FAINT_CHROMA) & ~foreign
    mask = _closed(mask, max(1, round(CLOSE_UM / mpp))) & ~foreign
    holes, _ = ndimage.label(~mask)
    mask |= _no_larger(holes, MAX_HOLE_MM2 / pixel_mm2) & ~foreign
    del holes
    fragments, count = ndimage.label(mask, structure=np.ones((3, 3)))
    area = _counts(fragments, count)
    seeds = _counts(np.where(stained & ~foreign, fragments, 0), count)
    keep = (area * pixel_mm2 > MIN_FRAGMENT_MM2) & (seeds > MIN_SEED_SHARE * area)
    keep[0] = False
    return keep[fragments]


def _colours(rgb: np.ndarray, glass: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Chroma (uint8), pen's ink, a pen's blurred rim, and black (bool), each (H, W).

    In strips: what is needed on the way takes ten times the room of what stays.
    """
    chroma = np.empty(rgb.shape[:2], np.uint8)
    ink, rim, black = (np.empty(rgb.shape[:2], bool) for _ in range(3))
    for start in range(0, len(rgb), STRIP_ROWS):
        rows = slice(start, start + STRIP_ROWS)
        absorbed = glass - rgb[rows].astype(np.int16)
        chroma[rows] = np.minimum(absorbed.max(axis=2) - absorbed.min(axis=2), 255)
        ink[rows], rim[rows] = _inked(rgb[rows])
        black[rows] = rgb[rows].max(axis=2) < MAX_BLACK
    return chroma, ink, rim, black


def _glass(rgb: np.ndarray) -> np.ndarray:
    """(3,) int16, the colour of bare glass: the commonest bright grey."""
    value = rgb.max(axis=2)
    bare = rgb[(value > GLASS_VALUE) & (value - rgb.min(axis=2) < GLASS_CHROMA)]
    if len(bare) < 0.005 * value.size:
        return np.full(3, 255, np.int16)
    commonest = int(np.bincount(bare[:, 1], minlength=256).argmax())
    near = bare[np.abs(bare[:, 1].astype(np.int16) - commonest) <= 2]
    return np.rint(near.mean(axis=0)).astype(np.int16)


def _inked(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hues of felt pen: green or cyan, strong blue in which red is weakest, saturated red; and of its rim."""
    red, green, blue = (rgb[..., i].astype(np.int16) for i in range(3))
    value = rgb.max(axis=2).astype(np.int16)
    chroma = value - rgb.min(axis=2)
    cold = (red < green) & (red < blue)  # hue from green to blue; haematoxylin keeps red above green
    greenish = cold & (2 * green > red + blue) & (chroma > 25)  # green is nearer the top than the bottom
    greenish |= (green - red > 20) & (green >= blue) & (chroma > 25)
    bluish = cold & (green - red > 8) & (chroma > 60) & (chroma > 0.4 * value)
    reddish = (red > 120) & (chroma > 0.8 * value) & (np.abs(green - blue) < 50)
    return greenish | bluish | reddish, cold & (chroma > 15)


def _pen(ink: np.ndarray, rim: np.ndarray, pixel_mm2: float) -> np.ndarray:
    """Strokes of ink, and the blurred rim beside them."""
    from scipy import ndimage

    labels, _ = ndimage.label(ink, structure=np.ones((3, 3)))
    strokes = ink & ~_no_larger(labels, MIN_PEN_MM2 / pixel_mm2)  # single odd pixels are no pen
    del labels
    return ndimage.binary_dilation(
        ndimage.binary_dilation(strokes, iterations=3, mask=strokes | rim), iterations=2
    )


def _otsu(values: np.ndarray) -> float:
    """The threshold that best parts the values in two (Otsu 1979), over 256 bins."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = counts.cumsum()
    above = below[-1] - below
    sums = (counts * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    between[~np.isfinite(between)] = 0
    return float(between.argmax())


def _closed(mask: np.ndarray, radius: int) -> np.ndarray:
    """Close gaps up to two radii wide; padded, so that tissue at the picture's edge stays."""
    from scipy import ndimage

    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = x * x + y * y <= radius * radius
    padded = np.pad(mask, radius, mode="edge")
    return ndimage.binary_closing(padded, disk)[radius:-radius, radius:-radius] | mask


def _no_larger(labels: np.ndarray, area_px: float) -> np.ndarray:
    """The labelled regions of at most ``area_px`` pixels (label 0 is none)."""
    small = _counts(labels, int(labels.max(initial=0))) <= area_px
    small[0] = False
    return small[labels]


def _counts(labels: np.ndarray, highest: int) -> np.ndarray:
    """(highest + 1,) pixels of each label; in strips, for bincount makes eight bytes of each."""
    strips = (labels[start : start + STRIP_ROWS] for start in range(0, len(labels), STRIP_ROWS))
    none = np.zeros(highest + 1, np.int64)
    return sum((np.bincount(strip.ravel(), minlength=highest + 1) for strip in strips), none)
