"""Pictures that may name a patient: lines of burnt-in letters, printed labels, and codes to be scanned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

__all__ = ["why_phi"]

LONG_SIDE_PX = 1280  # pictures are looked at no larger
# Ink: what is printed or burnt in is nearly black, nearly white, or of a pure colour, and stands out
BLACK, GREY, WHITE, PURE, STEP, AROUND_PX = 120, 50, 190, 170, 40, 12
BLOCK_ROWS, BLOCK_PX, CHANGES = 8, 64, 8.0  # where letters are, ink comes and goes so often in each row
# Letters of a line: how many, how high, and how far base, height and gap may differ, in heights
LETTERS, LETTER_PX, LETTER_MOST_PX, BASE, HIGH, GAP = 7, 7, 64, 0.12, 0.35, 2.2
CODE_PX, CODE_BLOCK, CODE_CHANGES, CODE_ALIKE, CODE_SHARE = 28, 32, 3, 0.99, 0.4
# Chosen on real tiles and on texts drawn into such: docs/design/pictures.md

Mask = NDArray[np.bool_]


def why_phi(image: Image.Image) -> str | None:
    """What in the picture may name a patient, in words; None where nothing is found.

    No weights and no reading: a line of `LETTERS` or more marks of one ink, of like height and on one base,
    or a field of bars. Scales ("100 µm") and letters of panels are shorter. Words in a picture that name
    nobody are suspects too.

    Args:
        image: Upright RGB.
    """
    factor = -(-max(image.size) // LONG_SIDE_PX)
    small = image.reduce(factor) if factor > 1 else image
    red, green, blue = (np.asarray(band) for band in small.split())
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    chroma = high - low
    dark = (high <= BLACK) & (chroma <= GREY)
    for ink, edge in ((dark, high), (low >= WHITE, low), (chroma >= PURE, None)):
        for part in _busy_parts(ink):
            mask = ink[part] if edge is None else ink[part] & _stands_out(edge[part])
            if not _busy_blocks(mask).any():  # of most tissue, little stands out
                continue
            if why := (_bars(mask) if edge is high else None) or _letters(mask):
                return why
    return None


def _stands_out(edge: NDArray[np.uint8]) -> Mask:
    """Where a pixel differs by `STEP` from what is around it."""
    around = np.asarray(Image.fromarray(edge).filter(ImageFilter.BoxBlur(AROUND_PX)))
    return np.maximum(edge, around) - np.minimum(edge, around) >= STEP


def _busy_parts(ink: Mask) -> Iterator[tuple[slice, slice]]:
    """Where the ink comes and goes often enough for letters: neighbouring blocks and what surrounds them."""
    busy = _busy_blocks(ink)
    if not busy.any():
        return
    from scipy import ndimage  # a sixth of a second, for runs that do not look

    named: Any = ndimage.label(busy, np.ones((3, 3)))
    for down, across in ndimage.find_objects(named[0]):
        yield (
            slice(max(0, (down.start - 3) * BLOCK_ROWS), (down.stop + 3) * BLOCK_ROWS),
            slice(max(0, (across.start - 1) * BLOCK_PX), (across.stop + 1) * BLOCK_PX + 1),
        )


def _busy_blocks(ink: Mask) -> Mask:
    """Blocks of ``BLOCK_ROWS`` x ``BLOCK_PX`` in which it does."""
    height, width = ink.shape
    rows, columns = height // BLOCK_ROWS, (width - 1) // BLOCK_PX
    least = int(CHANGES * BLOCK_ROWS)
    if rows == 0 or columns == 0 or np.count_nonzero(ink) < least / 2:  # each pixel makes two changes at most
        return np.zeros((1, 1), bool)
    used = ink[: rows * BLOCK_ROWS, : columns * BLOCK_PX + 1]
    changes = (used[:, 1:] ^ used[:, :-1]).view(np.uint8).reshape(rows, BLOCK_ROWS, -1)
    in_columns = changes.sum(axis=1, dtype=np.uint8)  # bytes, row on row: four times faster than at once
    counts: NDArray[np.int32] = in_columns.reshape(rows, columns, BLOCK_PX).sum(axis=2, dtype=np.int32)
    return counts >= least


def _letters(ink: Mask) -> str | None:
    from scipy import ndimage

    named: Any = ndimage.label(ink, np.ones((3, 3)))
    boxes = np.array(
        [(x.start, x.stop, y.start, y.stop) for y, x in ndimage.find_objects(named[0])], np.int32
    ).reshape(-1, 4)
    wide, high = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    fits = (high >= LETTER_PX) & (high <= LETTER_MOST_PX) & (wide <= 2 * high)
    boxes = boxes[fits][np.argsort(boxes[fits][:, 0], kind="stable")]
    longest = _longest_line(boxes) if len(boxes) >= LETTERS else 0
    return f"a line of {longest} letters or figures" if longest >= LETTERS else None


def _longest_line(boxes: NDArray[np.int32]) -> int:
    """The most boxes in a row, each right of one of like height and base; sorted by their left."""
    left, right, top, base = (boxes[:, column] for column in range(4))
    high = base - top
    first = np.searchsorted(left, right - 0.1 * high.max())
    first = np.maximum(first, np.arange(1, len(boxes) + 1))  # the box itself does not follow
    number = np.maximum(np.searchsorted(left, right + GAP * high.max(), side="right") - first, 0)
    i = np.repeat(np.arange(len(boxes)), number)
    j = np.arange(len(i)) + np.repeat(first - np.cumsum(number) + number, number)
    gap, tall = left[j] - right[i], high[j]
    follows = (
        (abs(base[j] - base[i]) <= np.maximum(1, BASE * tall))
        & (abs(tall - high[i]) <= HIGH * tall)
        & (gap >= -0.1 * tall)
        & (gap <= GAP * tall)
    )
    length = [1] * len(boxes)
    for before, after in zip(i[follows].tolist(), j[follows].tolist(), strict=True):
        length[after] = max(length[after], length[before] + 1)
    return max(length)


def _bars(ink: Mask) -> str | None:
    """A code of bars or squares: rows that change often, and not from row to row, over a good height."""
    columns = (ink.shape[1] - 1) // CODE_BLOCK
    across, wide = ink[:, 1 : columns * CODE_BLOCK + 1], ink[:, : columns * CODE_BLOCK]
    changes = (across ^ wide).reshape(-1, columns, CODE_BLOCK).sum(axis=2)
    alike = (wide[1:] == wide[:-1]).reshape(-1, columns, CODE_BLOCK).mean(axis=2) >= CODE_ALIKE
    for busy, same in zip((changes[1:] >= CODE_CHANGES).T, alike.T, strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], busy.astype(np.int8), [0]))))
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            if end - first >= CODE_PX and same[first:end].mean() >= CODE_SHARE:
                return "a code of bars or squares"
    return None
