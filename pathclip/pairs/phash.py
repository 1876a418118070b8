"""phash_v2: the one perceptual hash of the project, 64 bits, and the search for near neighbours by it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from PIL import Image

__all__ = ["VERSION", "near_pairs", "phash"]

VERSION = "phash_v2"
SIDE = 32
LOW = 8
MIN_CONTRAST = 2.0
REDUCING_GAP = 4.0  # whole blocks are averaged first where more than 4 x 32 pixels stay a side
MAX_COMPARED = 1 << 20  # distances held at a time
_N = np.arange(SIDE)
_DCT = np.cos(np.pi * (2 * _N[None, :] + 1) * _N[:, None] / (2 * SIDE))[:LOW]


def phash(image: Image.Image) -> str | None:
    """The picture's hash: luma, 32 x 32 by Lanczos, DCT-II, the 8 x 8 lowest terms against their median.

    Before Lanczos whole blocks are averaged down to not less than 128 pixels a side, which is what phash_v2
    changed: it moves two bits at most, where a term lies close to the median.

    Args:
        image: Upright, any mode that Pillow turns to luma. Datasets hold the hash of `small_picture`.

    Returns:
        16 hexadecimal digits, row by row, most significant bit first; None where the small picture has no
        structure (standard deviation below 2 of 255), since its bits would be noise.

    Source: the definition of imagehash 4.3 (``phash``), which a test compares with.
    """
    luma = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP)
    pixels = np.asarray(luma, dtype=np.float64)
    if pixels.std() < MIN_CONTRAST:
        return None
    low = np.round(_DCT @ pixels @ _DCT.T, 6)  # what is zero but for rounding is zero on every machine
    ordered = np.sort(low, axis=None)
    median = (ordered[LOW * LOW // 2 - 1] + ordered[LOW * LOW // 2]) / 2
    return np.packbits((low > median).ravel()).tobytes().hex()


def near_pairs(hashes: np.ndarray, radius: int) -> Iterator[tuple[int, int, int]]:
    """Every ``(i, j, distance)`` with i < j and Hamming distance at most ``radius``, once; exact.

    Two hashes that differ in at most ``radius`` bits agree in one of ``radius + 1`` bands of bits, so only
    those that share a band are compared: at radius 8 a fourteenth of all pairs.

    Args:
        hashes: (N,) uint64.
        radius: Largest distance that counts as near, 0 to 63.
    """
    seen: set[tuple[int, int]] = set()
    edges = np.linspace(0, 64, radius + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        for members in _equal(band):
            for i, j, distance in _near_within(hashes, members, radius):
                if (i, j) not in seen:
                    seen.add((i, j))
                    yield i, j, distance


def _equal(values: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of equal values, ascending, for every value that occurs more than once."""
    order = np.argsort(values, kind="stable")
    borders = np.flatnonzero(np.diff(values[order])) + 1
    return (group for group in np.split(order, borders) if len(group) > 1)


def _near_within(hashes: np.ndarray, members: np.ndarray, radius: int) -> Iterator[tuple[int, int, int]]:
    rows = max(1, MAX_COMPARED // len(members))
    for start in range(0, len(members), rows):
        block = members[start : start + rows]
        distance = np.bitwise_count(hashes[block][:, None] ^ hashes[members[start:]])
        for i, j in np.argwhere(distance <= radius):
            if i < j:
                yield int(block[i]), int(members[start + j]), int(distance[i, j])
