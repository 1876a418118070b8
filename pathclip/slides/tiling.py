"""From a scale and a mask to a list of tiles: pure arithmetic, in float64 level-0 pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pathclip.core.errors import UserError
from pathclip.slides.overview import best_level
from pathclip.slides.slide import Slide
from pathclip.slides.tissue import Tissue

__all__ = ["LEVEL_SLACK", "MAX_UPSAMPLE", "TilePlan", "plan_tiles"]

MAX_UPSAMPLE = 1.2
LEVEL_SLACK = 1.05  # a level this much coarser than asked is taken as it is
OVERHANG = 0.01  # of a tile: sides of rescaled slides are rounded, and must not lose a row of tiles


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Which tiles to read, and how.

    Attributes:
        xy: (N, 2) int32, upper left corners in level-0 pixels, row by row.
        tile_px: Side of a tile at ``mpp``.
        mpp: µm per pixel of a tile.
        level: Level to read from.
        read_px: Side to read at that level.
        scale: ``read_px`` per ``tile_px``, before rounding.
        stride: Side of a tile in level-0 pixels, exact.
        overlap_px: Pixels of ``tile_px`` that neighbouring tiles share.
    """

    xy: np.ndarray
    tile_px: int
    mpp: float
    level: int
    read_px: int
    scale: float
    stride: float
    overlap_px: int = 0

    @property
    def step(self) -> float:
        """From one tile to the next in level-0 pixels, exact: the side of the cell that a tile speaks for."""
        return self.stride * (1 - self.overlap_px / self.tile_px)

    @property
    def margin(self) -> int:
        """From a tile's corner to that of its cell, in level-0 pixels; cells lie in the middle."""
        return round((self.stride - self.step) / 2)

    @property
    def width(self) -> int:
        """Side of a tile in whole level-0 pixels."""
        return max(1, round(self.stride))


def plan_tiles(
    slide: Slide,
    slide_mpp: float,
    tissue: Tissue,
    *,
    mpp: float,
    tile_px: int,
    min_tissue: float = 0.5,
    allow_upsample: bool = False,
    overlap_px: int = 0,
) -> TilePlan:
    """Lay a grid of tiles over the scanned area and keep those with enough tissue.

    Tile (i, j) begins at ``round(i * stride), round(j * stride)`` with ``stride = tile_px * mpp / slide_mpp``
    in float64, so rounding never adds up; with an overlap, that many pixels less. Tiles lie wholly within the
    scanned area.

    Args:
        slide: An open slide.
        slide_mpp: µm per level-0 pixel.
        tissue: Where tiles may lie.
        mpp: µm per pixel of a tile.
        tile_px: Side of a tile.
        min_tissue: Smallest share of tissue in a tile.
        allow_upsample: Permit ``mpp`` more than 1.2x finer than the slide.
        overlap_px: Pixels of ``tile_px`` that neighbouring tiles share; less than ``tile_px``.

    Raises:
        UserError: If the slide is coarser than asked for, or smaller than one tile.
    """
    if slide_mpp > mpp * MAX_UPSAMPLE and not allow_upsample:
        raise UserError(
            f"slide {slide.path}: its finest scale is {slide_mpp:g} µm/px, tiles are asked at {mpp:g}; "
            f"enlarging more than {MAX_UPSAMPLE:g}x invents detail: take --mpp {slide_mpp:g}, or pass "
            "--allow-upsample"
        )
    stride = tile_px * mpp / slide_mpp
    x0, y0, width, height = slide.bounds
    step = stride * (1 - overlap_px / tile_px)
    columns, rows = (math.floor((side - stride) / step + OVERHANG) + 1 for side in (width, height))
    if columns < 1 or rows < 1:
        raise UserError(
            f"slide {slide.path} is {width} x {height} px at {slide_mpp:g} µm/px, smaller than one tile of "
            f"{tile_px} px at {mpp:g} µm/px ({stride:g} px); take a smaller --tile-px or a finer --mpp"
        )
    left = x0 + np.rint(np.arange(columns) * step).astype(np.int64)
    upper = y0 + np.rint(np.arange(rows) * step).astype(np.int64)
    share = _tissue_share(tissue, left, upper, stride)
    row, column = np.nonzero(share >= min_tissue)  # row-major, the order of tiles in the file
    level = best_level(slide, mpp / slide_mpp, slack=LEVEL_SLACK)
    scale = mpp / (slide_mpp * slide.levels[level].downsample)
    return TilePlan(
        xy=np.stack([left[column], upper[row]], axis=1).astype(np.int32),
        tile_px=tile_px,
        mpp=mpp,
        level=level,
        read_px=max(1, round(tile_px * scale)),
        scale=scale,
        stride=stride,
        overlap_px=overlap_px,
    )


def _tissue_share(tissue: Tissue, left: np.ndarray, upper: np.ndarray, side: float) -> np.ndarray:
    """(rows, columns) share of each tile that is tissue, from an integral image of the mask."""
    integral = np.zeros((tissue.mask.shape[0] + 1, tissue.mask.shape[1] + 1), np.int64)
    integral[1:, 1:] = tissue.mask.cumsum(0).cumsum(1)
    x0, x1 = _pixels(left, side, tissue.origin[0], tissue.downsample[0], tissue.mask.shape[1])
    y0, y1 = _pixels(upper, side, tissue.origin[1], tissue.downsample[1], tissue.mask.shape[0])
    y0, y1 = y0[:, None], y1[:, None]
    inside = integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]
    return inside / ((y1 - y0) * (x1 - x0))


def _pixels(
    start: np.ndarray, side: float, origin: int, down: float, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """First and one-past-last mask pixel of each tile along one axis: at least one, and on the mask."""
    count = max(1, round(side / down))
    centre = (start + side / 2 - origin) / down
    first = np.floor(centre - count / 2 + 0.5).astype(np.int64)
    first = np.clip(first, 0, max(0, limit - count))
    return first, np.minimum(first + count, limit)
