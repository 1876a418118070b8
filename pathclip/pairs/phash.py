"""phash_v1: the one perceptual hash of the project, 64 bits, and the search for near neighbours by it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

__all__ = ["VERSION", "near_pairs", "phash"]

VERSION = "phash_v1"
SIDE = 32
LOW = 8
MIN_CONTRAST = 2.0
_N = np.arange(SIDE)
_DCT = np.cos(np.pi * (2 * _N[None, :] + 1) * _N[:, None] / (2 * SIDE))[:LOW]


def phash(image: Image.Image) -> str | None:
    """The picture's hash: luma, 32 x 32 by Lanczos, DCT-II, the 8 x 8 lowest terms against their median.

    Args:
        image: Upright, any mode that Pillow turns to luma.

    Returns:
        16 hexadecimal digits, row by row, most significant bit first; None where the small picture has no
        structure (standard deviation below 2 of 255), since its bits would be noise.

    Source: the definition of imagehash 4.3 (``phash``), which a test compares with.
    """
    luma = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(luma, dtype=np.float64)
    if pixels.std() < MIN_CONTRAST:
        return None
    low = np.round(_DCT @ pixels @ _DCT.T, 6)  # what is zero but for rounding is zero on every machine
    bits = (low > np.median(low)).ravel()
    return np.packbits(bits).tobytes().hex()


def near_pairs(hashes: np.ndarray, radius: int, *, block: int = 256) -> Iterator[tuple[int, int, int]]:
    """Every ``(i, j, distance)`` with i < j and Hamming distance at most ``radius``; exact, in order.

    Compares all pairs in blocks: N**2 / 2 popcounts, about half a minute for 200,000 hashes on one core.

    Args:
        hashes: (N,) uint64.
        radius: Largest distance that counts as near.
        block: Rows compared at a time; memory is block x N x 9 bytes.
    """
    for start in range(0, len(hashes), block):
        rows = hashes[start : start + block]
        distance = np.bitwise_count(rows[:, None] ^ hashes[None, start:])
        for i, j in np.argwhere(distance <= radius):
            if i < j:
                yield int(start + i), int(start + j), int(distance[i, j])
