"""Tiles and regions of painted tissue."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.synthetic.canvas import Canvas
from pathclip.synthetic.classes import CLASSES, check_label
from pathclip.synthetic.stain import Stain, draw_stain, render
from pathclip.synthetic.tissue import PAINTERS

__all__ = ["generator", "paint_region", "paint_tile", "write_tile_folder"]


def generator(*key: str | int) -> np.random.Generator:
    """A random generator that depends on nothing but its key, on every machine and in every process."""
    words = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in key]
    return np.random.default_rng(np.random.SeedSequence(words))


def paint_tile(
    label: str,
    seed: int,
    size_px: int = 224,
    mpp: float = 0.5,
    *,
    stain: Stain | None = None,
) -> NDArray[np.uint8]:
    """Paint one H&E-like tile; equal arguments give equal pixels.

    Args:
        label: One of `CLASSES`.
        seed: Not negative; tiles of different seeds differ in everything, the stain included.
        size_px: Side in pixels.
        mpp: Micrometres per pixel: nuclei are 6 to 15 micrometres at any scale.
        stain: The section's stain; drawn by chance when None.

    Returns:
        (size_px, size_px, 3) uint8 RGB.

    Raises:
        UserError: If the label is unknown or a number is out of range.
    """
    check_label(label)
    if seed < 0 or size_px < 8 or not 0.05 <= mpp <= 10:
        raise UserError(
            f"cannot paint seed={seed}, size_px={size_px}, mpp={mpp}: want seed >= 0, size >= 8, mpp 0.05..10"
        )
    rng = generator("tile", label, seed)
    section = draw_stain(rng) if stain is None else stain
    h, e = paint_region(label, rng, (size_px, size_px), mpp)
    return render(h, e, section, rng)


def paint_region(
    label: str, rng: np.random.Generator, shape: tuple[int, int], mpp: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Stain concentrations of a seamless sheet of one tissue, of any size.

    Args:
        label: One of `CLASSES`.
        rng: Source of randomness.
        shape: (H, W) in pixels.
        mpp: Micrometres per pixel.

    Returns:
        Haematoxylin and eosin, (H, W) float32 each, for `render`.
    """
    canvas = Canvas(shape, mpp, rng)
    PAINTERS[check_label(label)](canvas)
    np.clip(canvas.h, 0, None, out=canvas.h)
    np.clip(canvas.e, 0, None, out=canvas.e)
    return canvas.h, canvas.e


def write_tile_folder(
    out: str | Path,
    per_class: int,
    seed: int,
    size_px: int = 224,
    mpp: float = 0.5,
    *,
    classes: tuple[str, ...] = CLASSES,
    quality: int = 90,
) -> Path:
    """Write ``out/<class>/<class>-<n>.jpg``, the layout of the benchmark ``folder``.

    Tile n is painted with a seed made of ``seed`` and n, so folders of different seeds share no tile.
    """
    if per_class < 1:
        raise UserError(f"per_class is {per_class}; at least one tile per class is needed")
    folder = Path(out)
    for label in classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            tile = paint_tile(label, tile_seed(seed, number), size_px, mpp)
            path = folder / label / f"{label}-{number:04d}.jpg"
            Image.fromarray(tile).save(path, quality=quality, subsampling=0)
    return folder


def tile_seed(seed: int, number: int) -> int:
    """The seed of the n-th tile of a folder or a dump: unequal for unequal pairs below a million tiles."""
    return seed * 1_000_000 + number
