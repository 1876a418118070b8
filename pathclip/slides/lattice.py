"""Tiles as cells of a grid whose lines are whole level-0 pixels: neighbours share their border exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pathclip.slides.tiling import TilePlan

__all__ = ["Lattice", "lattices"]


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """Tiles that lie on one grid.

    Attributes:
        rows: (n,) which tiles of the plan.
        cells: (n, 2) int64 column and row of each on the grid.
        corner: x, y of cell (0, 0) in level-0 pixels.
        stride: Side of a cell, exact; line i lies at ``corner + round(i * stride)``.
    """

    rows: np.ndarray
    cells: np.ndarray
    corner: tuple[int, int]
    stride: float

    def lines(self, index: np.ndarray) -> np.ndarray:
        """(..., 2) int64 level-0 pixels of crossings of grid lines.

        Args:
            index: (..., 2) numbers of the lines in x and y.
        """
        return np.rint(np.asarray(index) * self.stride).astype(np.int64) + np.array(self.corner)


def lattices(plan: TilePlan, corner: tuple[int, int]) -> list[Lattice]:
    """The grids that tiles lie on: one for tiles of `plan_tiles`; CLAM begins a new one with every contour.

    Args:
        plan: The tiles.
        corner: x, y where the scanned area begins, in level-0 pixels: where `plan_tiles` puts its grid.
    """
    near = plan.xy.astype(np.int64) - np.array(corner)
    cells = np.rint(near / plan.step).astype(np.int64)
    if (np.abs(np.rint(cells * plan.step) - near) <= 1).all():
        first = corner[0] + plan.margin, corner[1] + plan.margin
        return [Lattice(np.arange(len(cells)), cells, first, plan.step)] if len(cells) else []
    side = max(1, round(plan.step))
    offsets, group = np.unique(near % side, axis=0, return_inverse=True)
    found = []
    for number, offset in enumerate(offsets.tolist()):
        rows = np.flatnonzero(group.ravel() == number)
        place = (corner[0] + offset[0] + plan.margin, corner[1] + offset[1] + plan.margin)
        found.append(Lattice(rows, near[rows] // side, place, side))
    return found
