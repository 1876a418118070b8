"""Tiled, pyramidal TIFF and Aperio SVS from one RGB array, without a compiled TIFF codec.

Tiles are encoded by simplejpeg and handed to tifffile as finished bytes. Those bytes hold YCbCr, so
``photometric="ycbcr"`` states what they are; tifffile converts nothing. (Given pixels instead of bytes, the
same word would mean that the array already is YCbCr, and the slide would come out magenta.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.core.files import atomic_path

__all__ = ["SlideFormat", "write_aperio", "write_generic"]

SlideFormat = Literal["tiff", "svs"]
Pixels = NDArray[np.uint8]
STEP = 4
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
    import tifffile

    levels = _levels(pixels, tile_px)
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=True) as tiff:
        for k, level in enumerate(levels):
            scale: dict[str, Any] = {}
            if mpp is not None:
                scale = {"resolution": (1e4 / mpp / STEP**k,) * 2, "resolutionunit": "CENTIMETER"}
            _write_tiles(tiff, level, tile_px, quality, subfiletype=int(k > 0), **scale)
    return tuple(STEP**k for k in range(len(levels)))


def write_aperio(
    path: Path,
    pixels: Pixels,
    mpp: float | None,
    *,
    tile_px: int = 240,
    quality: int = 85,
    label: Pixels | None = None,
) -> tuple[int, ...]:
    """Write an Aperio SVS: scale in the description, thumbnail, label and macro as associated images.

    Args:
        path: The file.
        pixels: (H, W, 3) uint8, level 0.
        mpp: Micrometres per pixel; None leaves scale and magnification out.
        tile_px: Side of a tile, a multiple of 16.
        quality: JPEG quality.
        label: The picture of the paper label.

    Returns:
        Downsampling of each level.
    """
    import tifffile

    levels = _levels(pixels, tile_px)
    height, width = pixels.shape[:2]
    scale = "" if mpp is None else f"|AppMag = {10 / mpp:g}|MPP = {mpp:g}"
    tail = f"{scale}|Left = 25.0|Top = 22.0"
    kind = f"({tile_px}x{tile_px}) JPEG/RGB Q={quality}"
    thumbnail, macro = _fit(pixels, 512), _macro(pixels)
    paper = np.full((200, 200, 3), 235, np.uint8) if label is None else label
    plain = {"metadata": None, "software": False}
    with (
        atomic_path(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=width * height > 2**30) as tiff,
    ):
        for k, level in enumerate(levels):
            small = "" if k == 0 else f" -> {level.shape[1]}x{level.shape[0]}"
            text = f"{LIBRARY}{width}x{height} [0,0 {width}x{height}] {kind}{small}{tail if k == 0 else ''}"
            _write_tiles(tiff, level, tile_px, quality, description=text, software=False)
            if k == 0:  # page 1 is stripped, not tiled: that makes it an associated image
                size = f"{thumbnail.shape[1]}x{thumbnail.shape[0]}"
                tiff.write(
                    thumbnail,
                    rowsperstrip=16,
                    photometric="rgb",
                    description=f"{LIBRARY}{width}x{height} -> {size} - {tail}",
                    **plain,
                )
        tiff.write(
            paper,
            rowsperstrip=16,
            photometric="rgb",
            subfiletype=1,
            description=f"{LIBRARY}label {paper.shape[1]}x{paper.shape[0]}",
            **plain,
        )
        tiff.write(
            macro,
            rowsperstrip=16,
            photometric="rgb",
            subfiletype=9,
            description=f"{LIBRARY}macro {macro.shape[1]}x{macro.shape[0]}",
            **plain,
        )
    return tuple(STEP**k for k in range(len(levels)))


def _levels(pixels: Pixels, tile_px: int) -> list[Pixels]:
    levels = [pixels]
    while min(levels[-1].shape[:2]) > 2 * tile_px or len(levels) < 2:
        smaller = np.asarray(Image.fromarray(levels[-1]).reduce(STEP))
        if min(smaller.shape[:2]) < 16:
            break
        levels.append(smaller)
    return levels


def _write_tiles(tiff: Any, level: Pixels, tile_px: int, quality: int, **tags: Any) -> None:
    tiff.write(
        _encoded_tiles(level, tile_px, quality),
        shape=level.shape,
        dtype=np.uint8,
        tile=(tile_px, tile_px),
        photometric="ycbcr",
        subsampling=(2, 2),
        compression="jpeg",
        metadata=None,
        **tags,
    )


def _encoded_tiles(level: Pixels, tile_px: int, quality: int) -> Iterator[bytes]:
    import simplejpeg

    height, width = level.shape[:2]
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            part = level[top : top + tile_px, left : left + tile_px]
            below, right = tile_px - part.shape[0], tile_px - part.shape[1]
            if below or right:  # repeat the edge, so that no ringing reaches the picture
                part = np.pad(part, ((0, below), (0, right), (0, 0)), mode="edge")
            yield simplejpeg.encode_jpeg(np.ascontiguousarray(part), quality=quality, colorsubsampling="420")


def _fit(pixels: Pixels, side: int) -> Pixels:
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(picture)


def _macro(pixels: Pixels) -> Pixels:
    """The whole glass slide: the section small on a grey pane with the label at its left."""
    pane = np.full((220, 600, 3), 226, np.uint8)
    pane[10:210, 10:170] = 248
    section = _fit(pixels, 180)
    top, left = 110 - section.shape[0] // 2, 380 - section.shape[1] // 2
    pane[top : top + section.shape[0], left : left + section.shape[1]] = section
    return pane
