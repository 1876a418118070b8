"""Scores of a picture without weights: how it was stained; whether it is a chart, text or a blank."""

from __future__ import annotations

from collections.abc import Mapping
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
Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
VALUES = np.arange(256)
count = np.count_nonzero  # a tenth of the time of a mask's own sum


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
    even_colour, pixels = count(even & strong), even.size
    highs, lows = (np.array(Image.fromarray(plane).histogram()) for plane in (high, low))
    found = {
        "even": count(even) / pixels,
        "coloured": count(coloured) / pixels,
        "even_colour": even_colour / max(count(strong), 1),
        "even_colour_area": even_colour / pixels,
        "busy_coloured": count(busy & coloured) / max(count(busy), 1),
        "coarse": _patch_means(green).std(),
        "range": _percentile(highs, 99) - _percentile(lows, 1),
        "brightness": green.mean() / 255,
    }
    return {
        **{name: round(float(value), 4) for name, value in found.items()},
        "lines": _bands(across > EVEN_STEP),
        **_hues(red, green, blue, coloured),
        "stain": _stain(red, green, blue, highs, coloured),
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
    counts = np.count_nonzero(edges, axis=1)
    full = counts[counts != 1] > 0
    return int(count(full[:-1] & ~full[1:]))


def _patch_means(plane: Plane) -> NDArray[np.float64]:
    height, width = plane.shape
    side = max(1, min(height, width) // PATCHES)
    rows, columns = height // side, width // side
    used = plane[: rows * side, : columns * side].reshape(rows, side, -1)
    lines = used.sum(axis=1, dtype=np.uint32)  # rows first: a third of the time of all at once
    return lines.reshape(rows, columns, side).sum(axis=2, dtype=np.uint32) / (side * side)


def _mean(counts: Counts) -> float:
    """Mean of the values that were counted."""
    return float(counts @ VALUES / counts.sum())


def _percentile(counts: Counts, percent: float) -> float:
    """As `numpy.percentile`, from the counts of the 256 values."""
    reached = np.cumsum(counts)
    place = percent / 100 * (int(reached[-1]) - 1)
    below = int(np.searchsorted(reached, int(place), side="right"))
    above = int(np.searchsorted(reached, int(place) + 1, side="right"))
    return below + (above - below) * (place - int(place))


def _hues(red: Plane, green: Plane, blue: Plane, coloured: Mask) -> dict[str, float]:
    """Shares of the six orders of the channels, from three masks that can neither all hold nor all fail."""
    number = count(coloured)
    red_green, green_blue, blue_red = (red >= green) & coloured, (green >= blue) & coloured, blue > red
    descends = count(red_green & green_blue)
    green_least, green_most = count(red_green & blue_red), count(green_blue & blue_red)
    counts = {
        "red_yellow": descends,
        "yellow_green": count(green_blue) - descends - green_most,
        "green_cyan": green_most,
        "cyan_blue": number - count(red_green) - count(green_blue) + descends,
        "blue_magenta": green_least,
        "magenta_red": count(red_green) - descends - green_least,
    }
    return {name: round(float(found / max(number, 1)), 4) for name, found in counts.items()}


def _stain(red: Plane, green: Plane, blue: Plane, highs: Counts, coloured: Mask) -> str:
    """The family of the stain, by what most of the coloured pixels are; a column to sort by, no diagnosis."""
    brightness = _mean(highs)
    if brightness < 60 and _percentile(highs, 99.5) > 100:
        return "fluorescence"
    number = count(coloured)
    share = number / coloured.size
    if share < 0.02:
        return "grey" if brightness < 225 else "faint"
    if brightness < 100:
        return "dark"
    red_first, blue_second = red > green, blue > green
    brown = count(coloured & red_first & ~blue_second & (red - np.minimum(red, blue) >= 40)) / number
    blues = count(coloured & blue_second & (blue - np.minimum(red, blue) > 8)) / number
    pink = count(coloured & red_first & blue_second) / number
    if brown >= 0.15:
        return "brown"
    if pink >= 0.5:
        return "blue" if blues >= 0.8 else ("he" if share >= 0.1 else "faint")
    return "blue" if blues >= 0.5 else "other"
