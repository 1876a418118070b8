"""Figures of several pictures: where one file shows panels side by side, and the box of each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.pairs.pair import Box

__all__ = ["find_panels"]

Plane = NDArray[np.uint8]

LONG_SIDE_PX = 1024  # figures are looked at no larger
DEPTH, MOST = 3, 16
LEAST_SIDE, LEAST_PX = 0.12, 48  # of the figure's side; a smaller piece is a strip of text or a scale

# A gutter: even lines from edge to edge, beyond which the picture starts at once. The gap between two pieces
# of tissue is even too, but its rim is ragged: line by line it lets more of the picture in.
GUTTER_RANGE, GUTTER_PX, GUTTER_SHARE = 36, 2, 0.12
RIM_STEP, RIM_SHARE, RIM_PX, RIM_DEEP_PX, RIM_EVEN = 24, 0.3, 3, 16, 0.8
# A seam without gutter: a line along which neighbours differ far more than beside it, over its whole length
SEAM_PARTS, SEAM_SHARE, SEAM_RATIO, SEAM_PART_RATIO, SEAM_STEP, SEAM_BESIDE = 32, 0.75, 3.0, 1.5, 10.0, 12
FILLED_STEP, FILLED_SHARE = 16, 0.15
# Chosen on real tiles and on figures made of them: docs/design/pictures.md


def find_panels(image: Image.Image) -> tuple[Box, ...]:
    """The panels of a figure, by recursive cuts along even gutters and straight seams.

    Args:
        image: Upright RGB.

    Returns:
        At least two boxes in pixels of ``image``, row by row; none where the file is a single picture.
    """
    factor = -(-max(image.size) // LONG_SIDE_PX)
    grey = np.asarray((image.reduce(factor) if factor > 1 else image).getchannel("G"))
    found = _cut(grey, _without_frame(grey), DEPTH)
    if not 2 <= len(found) <= MOST:
        return ()
    width, height = image.size
    return tuple(
        (left * factor, top * factor, min(right * factor, width), min(bottom * factor, height))
        for left, top, right, bottom in sorted(found, key=lambda box: (box[1], box[0]))
    )


def _cut(grey: Plane, box: Box, depth: int) -> list[Box]:
    left, top, right, bottom = box
    part = grey[top:bottom, left:right]
    if depth == 0 or min(part.shape) < 2 * LEAST_PX:
        return [box]
    for find in (_gutters, _seams):
        for across in (True, False):
            lines = part if across else part.T
            least = max(LEAST_PX, LEAST_SIDE * grey.shape[0 if across else 1])
            pieces = _pieces(len(lines), find(lines), least)
            if len(pieces) > 1 and (find is _gutters or all(_is_filled(lines[a:b]) for a, b in pieces)):
                boxes = [
                    (left, top + a, right, top + b) if across else (left + a, top, left + b, bottom)
                    for a, b in pieces
                ]
                return [found for one in boxes for found in _cut(grey, one, depth - 1)]
    return [box]


def _pieces(length: int, cuts: list[tuple[int, int]], least: float) -> list[tuple[int, int]]:
    """What lies between the cuts; a cut that would leave less than a panel is none."""
    pieces, start = [], 0
    for first, end in cuts:
        if first - start >= least and length - end >= least:
            pieces.append((start, first))
            start = end
    return [*pieces, (start, length)]


def _is_filled(lines: Plane) -> bool:
    """True where a good part differs from the ground: no margin of a screen or page."""
    some = lines[::3, ::3]
    ground = int(np.median(some))
    return bool((abs(some.astype(np.int16) - ground) >= FILLED_STEP).mean() >= FILLED_SHARE)


def _without_frame(grey: Plane) -> Box:
    """The picture without a frame: even lines at its edges up to a sharp rim."""
    (top, bottom), (left, right) = _framed(grey), _framed(grey.T)
    return left, top, right, bottom


def _framed(lines: Plane) -> tuple[int, int]:
    ends = []
    for one in (lines, lines[::-1]):
        even = _even(one[: max(RIM_PX, int(GUTTER_SHARE * len(one)))])
        width = len(even) if even.all() else int(np.argmin(even))
        step = abs(one[min(width + RIM_PX, len(one)) - 1].astype(np.int16) - int(one[0, 0]))
        ends.append(width if 0 < width < len(even) and (step >= RIM_STEP).mean() >= RIM_SHARE else 0)
    return ends[0], len(lines) - ends[1]


def _even(lines: Plane) -> NDArray[Any]:
    """Which lines span few values, from edge to edge."""
    spans: NDArray[Any] = lines.max(axis=1) - lines.min(axis=1) <= GUTTER_RANGE
    return spans


def _gutters(lines: Plane) -> list[tuple[int, int]]:
    """Runs of even lines of one colour between two sharp rims: the first line and one past the last."""
    even, colour = _even(lines), lines[:, lines.shape[1] // 2].astype(np.int16)
    goes_on = even[1:] & even[:-1] & (abs(np.diff(colour)) < RIM_STEP)
    starts = np.flatnonzero(even & ~np.concatenate(([False], goes_on)))
    ends = np.flatnonzero(even & ~np.concatenate((goes_on, [False]))) + 1
    most = max(GUTTER_PX, GUTTER_SHARE * len(lines))
    return [
        (int(a), int(b))
        for a, b in zip(starts, ends, strict=True)
        if GUTTER_PX <= b - a <= most and _is_sharp(lines, int(a), int(b))
    ]


def _is_sharp(lines: Plane, first: int, end: int) -> bool:
    if first < RIM_PX or end + RIM_PX > len(lines):
        return False
    colour = int(np.median(lines[(first + end) // 2]))
    for side in (lines[first - RIM_PX :: -1], lines[end + RIM_PX - 1 :]):
        share = (abs(side[:RIM_DEEP_PX].astype(np.int16) - colour) >= RIM_STEP).mean(axis=1)
        if share[0] < max(RIM_SHARE, RIM_EVEN * share.mean()):
            return False
    return True


def _seams(lines: Plane) -> list[tuple[int, int]]:
    """Places between two lines that differ far more than those beside them: the line, twice.

    Lines are compared by the means of their parts: texture averages out, the other picture does not.
    """
    size = lines.shape[1] // SEAM_PARTS
    if size == 0 or len(lines) < 4 * SEAM_BESIDE:
        return []
    parts = _part_means(lines, size)
    steps = abs(parts[2:] - parts[:-2])
    whole = steps.mean(axis=1)
    found: list[tuple[int, int]] = []
    for at in np.flatnonzero(whole >= max(SEAM_STEP, SEAM_RATIO * float(np.median(whole)))):
        first, end = max(0, at - SEAM_BESIDE), at + SEAM_BESIDE + 1
        beside = np.r_[first : max(0, at - 3), at + 4 : min(len(steps), end)]
        is_peak = whole[at] >= whole[max(0, at - 3) : at + 4].max()
        if not is_peak or whole[at] < SEAM_RATIO * np.percentile(whole[beside], 80):
            continue
        is_step = steps[at] >= SEAM_PART_RATIO * np.maximum(np.median(steps[beside], axis=0), 1)
        if is_step.mean() >= SEAM_SHARE and (not found or at + 1 > found[-1][0] + 3):
            found.append((int(at) + 1, int(at) + 1))
    return found


def _part_means(lines: Plane, size: int) -> NDArray[np.float32]:
    """Mean of each part of each line; exact sums, so that the faster way for each layout changes nothing."""
    values = lines[:, : size * SEAM_PARTS]
    if values.flags.c_contiguous or values.strides[1] == 1:
        parts = values.astype(np.float32).reshape(len(values), SEAM_PARTS, size)
        return np.einsum("ijk->ij", parts) / np.float32(size)
    sums = values.T.reshape(SEAM_PARTS, size, len(values)).sum(axis=1, dtype=np.uint32)
    return sums.T.astype(np.float32) / np.float32(size)
