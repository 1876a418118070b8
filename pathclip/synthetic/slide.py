"""A pyramidal slide whose regions are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pathclip.core.errors import UserError
from pathclip.synthetic.classes import check_label
from pathclip.synthetic.layout import Region, SlideTruth, draw_regions, region_mask
from pathclip.synthetic.noise import smooth_field
from pathclip.synthetic.pyramid import SlideFormat, write_aperio, write_generic
from pathclip.synthetic.stain import Stain, draw_stain, render
from pathclip.synthetic.tiles import generator, paint_region

__all__ = ["paint_slide", "write_slide"]

STRIP_PX = 512
EDGE_PX = 24
INKS = ((40, 60, 150), (30, 110, 70), (25, 25, 30))


def write_slide(
    path: str | Path,
    seed: int,
    size_px: tuple[int, int] = (4096, 3072),
    mpp: float | None = 0.5,
    *,
    label: str = "adenocarcinoma",
    format: SlideFormat = "tiff",
    regions: tuple[Region, ...] | None = None,
    pen: bool = False,
    black_edge: bool = False,
    stain: Stain | None = None,
) -> SlideTruth:
    """Write a pyramidal slide with several tissues on a white ground.

    Args:
        path: The file to write; its suffix is the caller's business.
        seed: Not negative; equal arguments give equal bytes of pixels.
        size_px: (width, height) of level 0.
        mpp: Micrometres per pixel; None paints at 0.5 and leaves the scale out of the file.
        label: The slide's diagnosis: the tissue of its main regions.
        format: ``tiff`` (generic, tiled) or ``svs`` (Aperio, with thumbnail, label and macro).
        regions: What to paint where, in painting order; drawn by chance when None.
        pen: Add a marker's line beside the tissue.
        black_edge: Add the black border that some scanners leave.
        stain: The section's stain; drawn by chance, near the reference, when None.

    Raises:
        UserError: If the label or the format is unknown.
    """
    check_label(label)
    if format not in ("tiff", "svs"):
        raise UserError(f"unknown slide format {format!r}; known: tiff, svs")
    rng = generator("slide", label, seed)
    if regions is None:
        regions = draw_regions(rng, size_px, label)
    section = draw_stain(rng, 0.4) if stain is None else stain
    pixels = paint_slide(rng, size_px, mpp or 0.5, regions, section)
    if pen:
        _mark(pixels, rng)
    if black_edge:
        pixels[-EDGE_PX:] = 0
        pixels[:, -EDGE_PX:] = 0
    writer = write_generic if format == "tiff" else write_aperio
    levels = writer(Path(path), pixels, mpp)
    return SlideTruth(Path(path), label, mpp or 0.5, size_px, levels, regions)


def paint_slide(
    rng: np.random.Generator,
    size_px: tuple[int, int],
    mpp: float,
    regions: tuple[Region, ...],
    stain: Stain,
) -> NDArray[np.uint8]:
    """Paint regions into one another, in stain concentration, so that no border between tiles shows.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    width, height = size_px
    h, e = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for region in regions:
        xs, ys = np.array(region.polygon).T
        left, right = max(int(xs.min()) - 2, 0), min(int(xs.max()) + 3, width)
        top, bottom = max(int(ys.min()) - 2, 0), min(int(ys.max()) + 3, height)
        if left >= right or top >= bottom:
            continue
        shape = (bottom - top, right - left)
        mask = region_mask(region, left, top, shape)
        for plane, paint in zip((h, e), paint_region(region.label, rng, shape, mpp), strict=True):
            part = plane[top:bottom, left:right]
            part += mask * (paint - part)
    unevenness = 1 + 0.05 * smooth_field(rng, h.shape, 400 / mpp)
    h *= unevenness
    e *= unevenness
    strips = [
        render(h[y : y + STRIP_PX], e[y : y + STRIP_PX], stain, rng) for y in range(0, height, STRIP_PX)
    ]
    return np.concatenate(strips)


def _mark(pixels: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """A felt pen's line along the left border, as pathologists draw beside a finding."""
    height, width = pixels.shape[:2]
    small = Image.new("L", (max(width // 4, 8), max(height // 4, 8)))
    w, h = small.size
    middle, sway = 0.04 * w, 0.012 * w * float(rng.uniform(-1, 1))
    t = np.linspace(0.2, 0.8, 40)
    x = middle + sway * np.sin(5 * t + float(rng.uniform(0, 6))) + 0.0005 * w * rng.standard_normal(40)
    pen = ImageDraw.Draw(small)
    for px, py in zip(x.tolist(), (h * t).tolist(), strict=True):
        r = 0.009 * w
        pen.ellipse((px - r, py - 1.2 * r, px + r, py + 1.2 * r), fill=235)
    pen.line(list(zip(x.tolist(), (h * t).tolist(), strict=True)), fill=235, width=max(round(0.017 * w), 2))
    mask = small.filter(ImageFilter.GaussianBlur(w / 700)).resize((width, height), Image.Resampling.BICUBIC)
    reach = slice(0, max(width // 8, 1))
    alpha = np.asarray(mask, np.float32)[:, reach, None] / 255
    ink = np.array(INKS[int(rng.integers(len(INKS)))], np.float32)
    part = pixels[:, reach].astype(np.float32)
    pixels[:, reach] = np.clip(part * (1 - alpha) + ink * alpha + 0.5, 0, 255).astype(np.uint8)
