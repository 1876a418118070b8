"""Tiled, pyramidal TIFF and Aperio SVS from one RGB array, without a compiled TIFF codec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.core.files import atomic_write
from pathclip.synthetic.tiff import TiffPage, TiffWriter

__all__ = ["SlideFormat", "write_aperio", "write_generic"]

SlideFormat = Literal["tiff", "svs"]
Pixels = NDArray[np.uint8]
STEP = 4
STRIP_PX = 16
LIBRARY = "Aperio Image Library v12.0.15 \r\n"


def write_generic(
    path: Path, pixels: Pixels, mpp: float | None, *, tile_px: int = 256, quality: int = 85
) -> tuple[int, ...]:
    """Write a generic pyramidal TIFF; the scale stands in its resolution tags.

    Args:
        path: The file.
        pixels: (H, W, 3) uint8, level 0.
        mpp: Micrometres per pixel; None leaves the resolution out.
        tile_px: Side of a tile, a multiple of 16.
        quality: JPEG quality.

    Returns:
        Downsampling of each level.
    """
    levels = _levels(pixels, tile_px)
    with atomic_write(path) as handle:
        writer = TiffWriter(handle)
        for k, level in enumerate(levels):
            scale = None if mpp is None else 1e4 / mpp / STEP**k
            page = TiffPage(*_size(level), tile_px=tile_px, subfile=int(k > 0), pixels_per_cm=scale)
            writer.add(page, _tiles(level, tile_px, quality))
    return tuple(STEP**k for k in range(len(levels)))


def write_aperio(
    path: Path, pixels: Pixels, mpp: float | None, *, tile_px: int = 240, quality: int = 85
) -> tuple[int, ...]:
    """Write an Aperio SVS: scale in the description, thumbnail, label and macro as associated images.

    Args:
        path: The file.
        pixels: (H, W, 3) uint8, level 0.
        mpp: Micrometres per pixel; None leaves scale and magnification out.
        tile_px: Side of a tile, a multiple of 16.
        quality: JPEG quality.

    Returns:
        Downsampling of each level.
    """
    levels = _levels(pixels, tile_px)
    width, height = _size(pixels)
    scale = "" if mpp is None else f"|AppMag = {10 / mpp:g}|MPP = {mpp:g}"
    tail = f"{scale}|Left = 25.0|Top = 22.0"
    head = f"{LIBRARY}{width}x{height}"
    kind = f"[0,0 {width}x{height}] ({tile_px}x{tile_px})"
    with atomic_write(path) as handle:
        writer = TiffWriter(handle)
        for k, level in enumerate(levels):
            small = "" if k == 0 else f" -> {level.shape[1]}x{level.shape[0]}"
            text = f"{head} {kind}{small} JPEG/RGB Q={quality}{tail if k == 0 else ''}"
            page = TiffPage(*_size(level), tile_px=tile_px, description=text)
            writer.add(page, _tiles(level, tile_px, quality))
            if k == 0:  # the second page is cut into strips: that makes it an associated image
                thumbnail = _fit(pixels, 512)
                w, h = _size(thumbnail)
                _add_strips(writer, thumbnail, quality, 0, f"{head} -> {w}x{h} - {tail}")
        _add_strips(writer, _label(), quality, 1, f"{LIBRARY}label 200x200")
        _add_strips(writer, _macro(pixels), quality, 9, f"{LIBRARY}macro 600x220")
    return tuple(STEP**k for k in range(len(levels)))


def _levels(pixels: Pixels, tile_px: int) -> list[Pixels]:
    levels = [pixels]
    while min(levels[-1].shape[:2]) > 2 * tile_px or len(levels) < 2:
        smaller = np.asarray(Image.fromarray(levels[-1]).reduce(STEP))
        if min(smaller.shape[:2]) < 16:
            break
        levels.append(smaller)
    return levels


def _tiles(level: Pixels, tile_px: int, quality: int) -> Iterator[bytes]:
    height, width = level.shape[:2]
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            part = level[top : top + tile_px, left : left + tile_px]
            below, right = tile_px - part.shape[0], tile_px - part.shape[1]
            if below or right:  # repeat the edge, so that no ringing reaches the picture
                part = np.pad(part, ((0, below), (0, right), (0, 0)), mode="edge")
            yield _encode(part, quality)


def _add_strips(writer: TiffWriter, picture: Pixels, quality: int, subfile: int, description: str) -> None:
    width, height = _size(picture)
    page = TiffPage(width, height, rows_per_strip=STRIP_PX, subfile=subfile, description=description)
    writer.add(page, (_encode(picture[y : y + STRIP_PX], quality) for y in range(0, height, STRIP_PX)))


def _encode(part: Pixels, quality: int) -> bytes:
    import simplejpeg

    return simplejpeg.encode_jpeg(np.ascontiguousarray(part), quality=quality, colorsubsampling="420")


def _size(pixels: Pixels) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


def _fit(pixels: Pixels, side: int) -> Pixels:
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(picture)


def _label() -> Pixels:
    """A paper label with a row of bars where a code would be; it names nobody."""
    label = np.full((200, 200, 3), 238, np.uint8)
    for k, width in enumerate((6, 3, 9, 4, 4, 8, 3, 6, 9, 3, 5, 7)):
        label[60:130, 20 + 13 * k : 20 + 13 * k + width] = 40
    return label


def _macro(pixels: Pixels) -> Pixels:
    """The whole glass slide: the section small on a grey pane with the label at its left."""
    pane = np.full((220, 600, 3), 226, np.uint8)
    pane[10:210, 10:170] = 248
    section = _fit(pixels, 180)
    top, left = 110 - section.shape[0] // 2, 380 - section.shape[1] // 2
    pane[top : top + section.shape[0], left : left + section.shape[1]] = section
    return pane
