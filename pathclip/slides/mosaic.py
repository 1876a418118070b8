"""Slides stored as grids of encoded tiles: decode those needed, each once, at the scale that will do."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

__all__ = ["BrokenTile", "Mosaic", "TileGrid"]

CACHE_BYTES = 64 << 20  # decoded tiles kept: a row of a wide slide, which the next row of tiles needs again
MAX_SHRINK = 8


class BrokenTile(Exception):
    """An encoded tile that is missing or does not decode; other readers of the file may know better."""


@dataclass(frozen=True, slots=True)
class TileGrid:
    """One level of a slide as its file stores it.

    Attributes:
        size: (width, height) of the level in pixels.
        tile: (width, height) of its tiles; the last of a row or column may be smaller.
        shrinks: Factors, powers of two, at which tiles can be decoded.
        decode: (column, row, factor) -> (h, w, 3) uint8, the tile at 1 / factor of its size. Safe from
            several threads. Raises `BrokenTile`.
        blank: (column, row) -> whether the tile is certainly bare glass, by the number of its bytes.
        glass: (3,) uint8, the colour of such tiles.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    shrinks: tuple[int, ...]
    decode: Callable[[int, int, int], np.ndarray]
    blank: Callable[[int, int], bool] = lambda column, row: False
    glass: tuple[int, int, int] = (255, 255, 255)


class Mosaic:
    """Reads any region of a slide from the encoded tiles of its levels.

    Args:
        grids: One per level of the slide, finest first; None where a level cannot be read this way.
        outside: Colour of what lies outside the level.
    """

    def __init__(
        self, grids: Sequence[TileGrid | None], outside: tuple[int, int, int] = (255, 255, 255)
    ) -> None:
        self.grids = tuple(grids)
        self._outside = outside
        self._lock = threading.Lock()
        self._tiles: OrderedDict[tuple[int, int, int, int], Future[np.ndarray]] = OrderedDict()
        self._bytes = 0

    def shrink(self, level: int, at_most: float) -> int:
        """The largest factor, at most ``at_most``, at which a level can be decoded; 0 if it cannot at all."""
        grid = self.grids[level]
        if grid is None:
            return 0
        return max((f for f in grid.shrinks if f <= at_most), default=min(grid.shrinks))

    def read(
        self, level: int, shrink: int, box: tuple[int, int, int, int], *, skip_blank: bool = False
    ) -> np.ndarray:
        """A region of a level decoded at 1 / ``shrink`` of its size.

        Args:
            level: Index of the level.
            shrink: From `shrink`.
            box: Left, upper, right, lower in pixels of the shrunk level; may reach outside.
            skip_blank: Paint tiles that are bare glass in its colour instead of decoding them.

        Returns:
            (lower - upper, right - left, 3) uint8.

        Raises:
            BrokenTile: If one of the tiles is missing or does not decode.
        """
        grid = self.grids[level]
        assert grid is not None
        left, upper, right, lower = box
        width, height = (side // shrink for side in grid.tile)
        columns, rows = (-(-side // tile) for side, tile in zip(grid.size, grid.tile, strict=True))
        canvas = np.empty((lower - upper, right - left, 3), np.uint8)
        canvas[:] = self._outside
        edge_x, edge_y = (-(-side // shrink) for side in grid.size)
        for row in range(max(upper // height, 0), min(-(-lower // height), rows)):
            for column in range(max(left // width, 0), min(-(-right // width), columns)):
                x, y = column * width, row * height
                x0, x1 = max(left, x), min(right, x + width, edge_x)
                y0, y1 = max(upper, y), min(lower, y + height, edge_y)
                target = canvas[y0 - upper : y1 - upper, x0 - left : x1 - left]
                if skip_blank and grid.blank(column, row):
                    target[:] = grid.glass
                    continue
                target[:] = self._tile(level, grid, column, row, shrink)[y0 - y : y1 - y, x0 - x : x1 - x]
        return canvas

    def _tile(self, level: int, grid: TileGrid, column: int, row: int, shrink: int) -> np.ndarray:
        """A decoded tile; threads that want the same one wait for the first instead of decoding it too."""
        key = (level, column, row, shrink)
        with self._lock:
            future = self._tiles.get(key)
            if mine := future is None:
                future = self._tiles[key] = Future()
            else:
                self._tiles.move_to_end(key)
        if mine:
            try:
                future.set_result(grid.decode(column, row, shrink))
            except BaseException as error:
                future.set_exception(error)
            else:
                self._forget(future.result().nbytes)
        return future.result()

    def _forget(self, added: int) -> None:
        """Count what came in, and let the tiles go that were not wanted for longest."""
        with self._lock:
            self._bytes += added
            while self._bytes > CACHE_BYTES and len(self._tiles) > 1:
                key, old = next(iter(self._tiles.items()))
                if not old.done():
                    break  # its bytes are not counted yet; whoever decodes it comes here next
                del self._tiles[key]
                if old.exception() is None:
                    self._bytes -= old.result().nbytes
