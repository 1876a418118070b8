"""Scores of a picture without weights: how it was stained; whether it is a chart, text or a blank."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from pathclip.core.config import Config

__all__ = ["FilterConfig", "score", "why_no_micrograph"]

LOOK_SIDE_PX = 160  # pictures are looked at with a short side of 160 to 319 px
EVEN_STEP = 2  # neighbours that differ by no more, in any channel, are one even area: no camera draws such
COLOURED, STRONG = 16, 40  # largest minus smallest channel
PATCHES = 16  # along the short side

# What surely is no micrograph. Chosen on 688 pictures with room on both sides: docs/design/pictures.md
BLANK_RANGE, BLANK_COARSE = 24, 2.5
CHART_EVEN, EVEN_COLOUR, EVEN_COLOUR_AREA = 0.65, 0.35, 0.02
TEXT_EVEN, TEXT_LINES, TEXT_RANGE, TEXT_COLOURED, TEXT_BUSY_COLOURED = 0.4, 6, 100, 0.1, 0.25

Plane = NDArray[np.uint8]


class FilterConfig(Config):
    """Which pictures are micrographs."""

    pictures: Literal["reject", "keep"] = Field(
        default="reject", description="charts, pages of text and blanks: reject, or keep and only score"
    )
    model: Path | None = Field(
        default=None, description="also reject what this filter of `pathclip data fit-filter` rejects"
    )
    scorer_min: float | None = Field(
        default=None, ge=0, le=1, description="also reject what collect.scorer scores lower"
    )


def score(image: Image.Image) -> dict[str, float | int | str]:
    """Score one decoded picture; a millisecond.

    Args:
        image: Upright RGB.

    Returns:
        ``even``: share of pixels that equal their four neighbours within 2 of 255.
        ``coloured``: share of pixels that are not grey.
        ``even_colour``: of the strongly coloured pixels, the share that is even.
        ``even_colour_area``: those, as a share of all pixels.
        ``busy_coloured``: of the pixels that are not even, the share that is not grey.
        ``lines``: bands of rows with something in them between rows that are even from edge to edge.
        ``coarse``: standard deviation of the means of sixteenths, green channel, 0 to 127.
        ``range``: 1st percentile to 99th, over all channels.
        ``brightness``: mean of the green channel, 0 to 1.
        ``red_yellow`` to ``magenta_red``: of the pixels that are not grey, the share in each sixth of the
        colour circle, by the order of their channels.
        ``stain``: he, brown, blue, dark, fluorescence, faint, grey or other.
    """
    factor = max(1, min(image.size) // LOOK_SIDE_PX)
    small = image.reduce(factor) if factor > 1 else image
    red, green, blue = (np.asarray(band) for band in small.split())
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    chroma = high - low
    across, steps = _steps(red, green, blue)
    even = steps <= EVEN_STEP
    busy, coloured, strong = ~even, chroma >= COLOURED, chroma >= STRONG
    even_colour = int((even & strong).sum())
    found = {
        "even": even.mean(),
        "coloured": coloured.mean(),
        "even_colour": even_colour / max(int(strong.sum()), 1),
        "even_colour_area": even_colour / even.size,
        "busy_coloured": (busy & coloured).sum() / max(int(busy.sum()), 1),
        "coarse": _patch_means(green).std(),
        "range": float(np.percentile(high, 99)) - float(np.percentile(low, 1)),
        "brightness": green.mean() / 255,
    }
    return {
        **{name: round(float(value), 4) for name, value in found.items()},
        "lines": _bands(across > EVEN_STEP),
        **_hues(red[coloured], green[coloured], blue[coloured]),
        "stain": _stain(red, green, blue, high, coloured),
    }


def why_no_micrograph(scores: Mapping[str, Any]) -> str | None:
    """What the picture surely is instead of a micrograph, in words; None where it may be one.

    Args:
        scores: Of `score`.
    """
    if scores["range"] < BLANK_RANGE and scores["coarse"] < BLANK_COARSE:
        return f"a blank: its values span {scores['range']:.0f} of 255"
    flat_colour = scores["even_colour"] >= EVEN_COLOUR and scores["even_colour_area"] >= EVEN_COLOUR_AREA
    if scores["even"] >= CHART_EVEN and flat_colour:
        return f"a chart or screen: {scores['even_colour']:.0%} of its colour lies in even areas"
    grey = scores["coloured"] <= TEXT_COLOURED and scores["busy_coloured"] <= TEXT_BUSY_COLOURED
    lined = scores["lines"] >= TEXT_LINES and scores["range"] >= TEXT_RANGE
    if scores["even"] >= TEXT_EVEN and grey and lined:
        return f"a page of text: {scores['lines']} grey lines on an even ground"
    return None


def _steps(*planes: Plane) -> tuple[Plane, Plane]:
    """Largest difference to the right neighbour (H, W - 1) and to any of four (H, W), over channels."""
    across, down = planes[0][:, 1:] * 0, planes[0][1:] * 0
    for plane in planes:
        for found, a, b in ((across, plane[:, 1:], plane[:, :-1]), (down, plane[1:], plane[:-1])):
            np.maximum(found, np.maximum(a, b) - np.minimum(a, b), out=found)
    steps = np.zeros_like(planes[0])
    for part, step in (
        (steps[:, 1:], across),
        (steps[:, :-1], across),
        (steps[1:], down),
        (steps[:-1], down),
    ):
        np.maximum(part, step, out=part)
    return across, steps


def _bands(edges: NDArray[np.bool_]) -> int:
    """Runs of rows with edges that end at a row without; a single edge is neither."""
    counts = edges.sum(axis=1)
    full = [bool(count) for count in counts if count != 1]
    return sum(before and not after for before, after in pairwise(full))


def _patch_means(plane: Plane) -> NDArray[np.float64]:
    height, width = plane.shape
    side = max(1, min(height, width) // PATCHES)
    rows, columns = height // side, width // side
    means: NDArray[np.float64] = (
        plane[: rows * side, : columns * side].reshape(rows, side, columns, side).mean(axis=(1, 3))
    )
    return means


def _hues(red: Plane, green: Plane, blue: Plane) -> dict[str, float]:
    order = (red >= green) * 4 + (green >= blue) * 2 + (blue > red)
    counts = np.bincount(order, minlength=8) / max(len(red), 1)
    names = {
        6: "red_yellow",
        2: "yellow_green",
        3: "green_cyan",
        1: "cyan_blue",
        5: "blue_magenta",
        4: "magenta_red",
    }
    return {name: round(float(counts[code]), 4) for code, name in names.items()}


def _stain(red: Plane, green: Plane, blue: Plane, high: Plane, coloured: NDArray[np.bool_]) -> str:
    """The family of the stain, by what most of the coloured pixels are; a column to sort by, no diagnosis."""
    brightness = float(high.mean())
    if brightness < 60 and float(np.percentile(high, 99.5)) > 100:
        return "fluorescence"
    share = float(coloured.mean())
    if share < 0.02:
        return "grey" if brightness < 225 else "faint"
    if brightness < 100:
        return "dark"
    r, g, b = (plane[coloured].astype(np.int16) for plane in (red, green, blue))
    brown = float(((r > g) & (g >= b) & (r - b >= 40)).mean())
    blue_share = float(((b > r + 8) & (b > g)).mean())
    pink = float(((r > g) & (b > g)).mean())
    if brown >= 0.15:
        return "brown"
    if pink >= 0.5:
        return "blue" if blue_share >= 0.8 else ("he" if share >= 0.1 else "faint")
    return "blue" if blue_share >= 0.5 else "other"
