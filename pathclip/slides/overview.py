"""A whole slide, or a part of it, as one small picture: read in blocks, so memory stays flat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pathclip.slides.mosaic import BrokenTile
from pathclip.slides.slide import Slide, UnreadableRegion

__all__ = ["Overview", "best_level", "block", "overview", "thumbnail"]

BLOCK_PX = 2048
SMALLEST_BLOCK_PX = 128


@dataclass(frozen=True, slots=True)
class Overview:
    """A picture of the scanned area of a slide.

    Attributes:
        rgb: (H, W, 3) uint8.
        unreadable: (H, W) bool, what could not be decoded (white in ``rgb``).
        origin: (x, y) of its upper left corner in level-0 pixels.
        downsample: Level-0 pixels per pixel of this picture, in x and y (the sides are rounded up to pixels).
    """

    rgb: np.ndarray
    unreadable: np.ndarray
    origin: tuple[int, int]
    downsample: tuple[float, float]


def best_level(slide: Slide, downsample: float, slack: float = 1.0) -> int:
    """Index of the coarsest level that is still at least as fine as ``downsample`` (times ``slack``)."""
    fine_enough = [i for i, level in enumerate(slide.levels) if level.downsample <= downsample * slack]
    return max(fine_enough, key=lambda i: slide.levels[i].downsample, default=0)


def thumbnail(slide: Slide, max_px: int) -> Overview:
    """The scanned area with its longer side at most ``max_px``, never larger than the slide."""
    return _render(slide, max(1.0, max(slide.bounds[2:]) / max_px))


def overview(slide: Slide, slide_mpp: float, mpp: float) -> Overview:
    """The scanned area at a physical scale of ``mpp`` µm/px (or the slide's own, where that is coarser)."""
    return _render(slide, max(1.0, mpp / slide_mpp))


def _render(slide: Slide, downsample: float) -> Overview:
    x0, y0, full_width, full_height = slide.bounds
    width = max(1, math.ceil(full_width / downsample - 1e-6))
    height = max(1, math.ceil(full_height / downsample - 1e-6))
    level = _source(slide, downsample)
    rgb = np.full((height, width, 3), 255, np.uint8)
    unreadable = np.zeros((height, width), bool)
    step = full_width / width, full_height / height
    side = max(1, int(BLOCK_PX * slide.levels[level].downsample / max(step)))
    blocks = [(x, y, side) for y in range(0, height, side) for x in range(0, width, side)]
    while blocks:
        x, y, side = blocks.pop()
        right, lower = min(x + side, width), min(y + side, height)
        try:
            box = x, y, right, lower
            rgb[y:lower, x:right] = block(slide, level, box, step, (x0, y0), skip_blank=True)
        except UnreadableRegion:
            if side * max(step) / slide.levels[level].downsample <= SMALLEST_BLOCK_PX or side == 1:
                unreadable[y:lower, x:right] = True
                continue
            half = (side + 1) // 2  # a damaged tile must not blind a whole block
            quarters = [(x + i, y + j, half) for j in (0, half) for i in (0, half)]
            blocks += [q for q in quarters if q[0] < right and q[1] < lower]
    return Overview(rgb, unreadable, (x0, y0), step)


def _source(slide: Slide, downsample: float) -> int:
    """The level to shrink: finer than asked for, as JPEG runs colour over blocks of 16 pixels of a level.

    In a level of the wanted scale that blurs the edge of tissue by a whole tile. Twice as fine is what can be
    afforded where levels are decoded in full, eight times where they need not be.
    """
    fine = best_level(slide, downsample / 8, slack=1.001)
    if slide.mosaic is not None and slide.mosaic.shrink(fine, 4) == 4:
        return fine
    return best_level(slide, downsample / 2, slack=1.001)


def block(
    slide: Slide,
    level: int,
    box: tuple[int, int, int, int],
    step: tuple[float, float],
    origin: tuple[int, int],
    *,
    skip_blank: bool = False,
) -> np.ndarray:
    """One block of a slide shrunk from a level by the exact area under each of its pixels.

    Args:
        slide: The slide.
        level: Index of the level to read.
        box: Left, upper, right, lower in pixels of the result's grid.
        step: Level-0 pixels per pixel of that grid, in x and y.
        origin: (x, y) of the grid's corner in level-0 pixels.
        skip_blank: Do not decode what is bare glass by the number of its bytes.

    Raises:
        UnreadableRegion: If it cannot be decoded.
    """
    down = slide.levels[level].downsample
    left, upper, right, lower = (edge * step[i % 2] / down for i, edge in enumerate(box))
    size = box[2] - box[0], box[3] - box[1]
    if slide.mosaic is not None and (shrink := slide.mosaic.shrink(level, min(step) / down / 2)):
        # still twice as fine as asked for, so that the mean under a pixel is a mean
        x, y = origin[0] / down, origin[1] / down
        exact = (x + left) / shrink, (y + upper) / shrink, (x + right) / shrink, (y + lower) / shrink
        whole = (*(math.floor(edge) for edge in exact[:2]), *(math.ceil(edge - 1e-6) for edge in exact[2:]))
        try:
            pixels = slide.mosaic.read(level, shrink, whole, skip_blank=skip_blank)
            return _area(pixels, size, exact, whole[:2])
        except BrokenTile:
            pass  # the slower reader has the last word
    x, y = math.floor(left), math.floor(upper)
    width, height = math.ceil(right - 1e-6) - x, math.ceil(lower - 1e-6) - y
    pixels = slide.read(origin[0] + round(x * down), origin[1] + round(y * down), level, width, height)
    return _area(pixels, size, (left, upper, right, lower), (x, y))


def _area(
    pixels: np.ndarray,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    corner: tuple[int, int],
) -> np.ndarray:
    """The mean under each pixel of ``size``; ``box`` counts from where ``pixels`` has its ``corner``."""
    (x, y), (height, width) = corner, pixels.shape[:2]
    exact = box[0] - x, box[1] - y, min(box[2] - x, width), min(box[3] - y, height)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX, box=exact))
