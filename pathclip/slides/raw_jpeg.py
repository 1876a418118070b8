"""The raw JPEG tiles of a TIFF (Aperio, generic), decoded at a half, a quarter or an eighth of their size.

A 40x scan read at 20x is decoded in full and shrunk by every reader that goes through OpenSlide. libjpeg can
leave the high frequencies out instead, which costs a fraction: see docs/design/slides.md for figures.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import tifffile

from pathclip.slides.mosaic import MAX_SHRINK, BrokenTile, TileGrid

__all__ = ["jpeg_grid", "jpeg_grids"]

JPEG, RGB, YCBCR = 7, 2, 6  # TIFF's codes for the compression and the two colour spaces
SOI = b"\xff\xd8"
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"  # and one byte: 0 for RGB, 1 for YCbCr
BLANK_SLACK = 1.2  # of the fewest bytes: no tissue among 3,072 tiles; at 2.0 it was missed
BLANK_SPREAD, BLANK_VALUE = 8, 200  # a tile of glass is flat and bright


def jpeg_grids(path: Path, sizes: Sequence[tuple[int, int]]) -> list[TileGrid | None]:
    """For every level of a slide the grid of its raw JPEG tiles, or None where the file stores it otherwise.

    Args:
        path: The slide.
        sizes: (width, height) of its levels, finest first; a level is the one tiled page of that size.
    """
    none: list[TileGrid | None] = [None] * len(sizes)
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]
            matches = [[p for p in pages if (p.imagewidth, p.imagelength) == size] for size in sizes]
            return [jpeg_grid(path, found[0]) if len(found) == 1 else None for found in matches]
    except (tifffile.TiffFileError, OSError, ValueError, KeyError, IndexError):
        return none  # whoever opened the slide says what is wrong with it


def jpeg_grid(path: Path, page: Any) -> TileGrid | None:
    """The grid of a page (a `tifffile.TiffPage`); None unless it holds 8-bit JPEG tiles of three colours."""
    plain = page.compression == JPEG and page.photometric in (RGB, YCBCR) and page.bitspersample == 8
    if not (plain and page.samplesperpixel == 3 and page.planarconfig == 1 and page.is_tiled):
        return None
    tiles = _RawTiles(path, page)
    if not tiles.as_expected():
        return None
    width, height = page.tilewidth, page.tilelength
    factors = (1, 2, 4, MAX_SHRINK)
    return TileGrid(
        size=(page.imagewidth, page.imagelength),
        tile=(width, height),
        shrinks=tuple(f for f in factors if width % f == 0 and height % f == 0),
        decode=tiles.decode,
        blank=tiles.blank,
        glass=tiles.glass(),
    )


class _RawTiles:
    """One page's tiles: where their bytes lie, and the tables that they share."""

    def __init__(self, path: Path, page: Any) -> None:
        self.size = page.tilewidth, page.tilelength
        self.columns = -(-page.imagewidth // page.tilewidth)
        self.offsets = np.asarray(page.dataoffsets, np.int64)
        self.counts = np.asarray(page.databytecounts, np.int64)
        self.space = "RGB" if page.photometric == RGB else "YCbCr"
        tables = page.jpegtables
        # the tag, not the stream, says whether a tile is RGB: only Adobe's marker tells libjpeg so
        self.head = (tables[:-2] if tables else SOI) + ADOBE + bytes([page.photometric != RGB])
        self.file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.lock = threading.Lock()
        weakref.finalize(self, os.close, self.file)
        self.blank_bytes = 0

    def decode(self, column: int, row: int, factor: int) -> np.ndarray:
        """See `TileGrid.decode`."""
        width, height = (side // factor for side in self.size)
        try:
            tile = simplejpeg.decode_jpeg(
                self._jpeg(row * self.columns + column), min_width=width, min_height=height
            )
        except (ValueError, OSError) as error:  # damaged, or a disk that does not give it
            raise BrokenTile(f"tile {column}, {row}: {error}") from None
        if tile.shape[:2] != (height, width):
            raise BrokenTile(f"tile {column}, {row} is {tile.shape[1]} x {tile.shape[0]} px")
        return tile

    def blank(self, column: int, row: int) -> bool:
        """See `TileGrid.blank`."""
        index = row * self.columns + column
        return index < len(self.counts) and 0 < self.counts[index] <= self.blank_bytes

    def as_expected(self) -> bool:
        """Whether the first tile that is there has the size and the colours that the page's tags state."""
        present = np.flatnonzero(self.counts)
        if len(present) == 0 or len(self.counts) != len(self.offsets):
            return False
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(self._jpeg(int(present[0])))
        except (ValueError, BrokenTile):
            return False
        return (width, height) == self.size and space == self.space

    def glass(self) -> tuple[int, int, int]:
        """The colour of bare glass, from the tile of fewest bytes; sets what counts as blank, if it is."""
        smallest = int(np.where(self.counts > 0, self.counts, self.counts.max() + 1).argmin())
        try:
            tile = self.decode(smallest % self.columns, smallest // self.columns, 1)
        except BrokenTile:
            return (255, 255, 255)
        spread = np.ptp(tile, axis=(0, 1)).max()
        if not 0 < spread <= BLANK_SPREAD or tile.min() < BLANK_VALUE:
            # no glass, or flat paint, of which every colour has as few bytes: all tiles are decoded
            return (255, 255, 255)
        self.blank_bytes = int(self.counts[smallest] * BLANK_SLACK)
        red, green, blue = np.rint(tile.mean(axis=(0, 1))).astype(int).tolist()
        return red, green, blue

    def _jpeg(self, index: int) -> bytes:
        if not 0 <= index < len(self.counts) or self.counts[index] == 0:
            raise BrokenTile(f"tile {index} is not in the file")
        raw = self._bytes(int(self.offsets[index]), int(self.counts[index]))
        if raw[:2] != SOI:
            raise BrokenTile(f"tile {index} is no JPEG")
        return self.head + raw[2:]

    def _bytes(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self.file, count, offset)
        with self.lock:  # Windows has no read that leaves the position alone
            os.lseek(self.file, offset, os.SEEK_SET)
            return os.read(self.file, count)
