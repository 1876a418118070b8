"""JPEG decoded at the smallest scale that will do, and the small picture that is looked at."""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

__all__ = ["LOOK_SIDE_PX", "decode_jpeg", "is_whole_jpeg", "small_picture"]

LOOK_SIDE_PX = 512
EIGHTHS = (1, 2, 3, 4, 5)
"""Scales of libjpeg's inverse DCT that cost less than they save the resize: 3/4 and 7/8 do not."""


def decode_jpeg(data: bytes, min_side_px: int | None) -> Image.Image | None:
    """RGB pixels as they are stored: neither turned nor converted by a profile.

    Args:
        data: A JPEG of one or three colours.
        min_side_px: The short side that must be left; None for full size.

    Returns:
        The picture; None where libjpeg has the least doubt, so that the slower way decides.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        for eighths in EIGHTHS if min_side_px is not None else ():
            small = -(-height * eighths // 8), -(-width * eighths // 8)
            if min(small) >= (min_side_px or 0):
                return _picture(simplejpeg.decode_jpeg(data, "RGBX", min_height=small[0], min_width=small[1]))
        return _picture(simplejpeg.decode_jpeg(data, "RGBX"))
    except ValueError:
        return None


def is_whole_jpeg(data: bytes) -> bool:
    """True if libjpeg decodes all of a JPEG of one or three colours without the least doubt.

    Every byte of every colour is read, but only the luma is made, at an eighth: no decoding costs less.
    """
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1)
    except ValueError:
        return False
    return True


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """RGB of (H, W, 4), as Pillow holds it: half the time of three bytes a pixel."""
    height, width, _ = pixels.shape
    return Image.frombytes("RGB", (width, height), pixels, "raw", "RGBX")


def small_picture(image: Image.Image) -> Image.Image:
    """What is looked at: averaged over whole blocks until the long side is at most ``LOOK_SIDE_PX``."""
    factor = -(-max(image.size) // LOOK_SIDE_PX)
    return image.reduce(factor) if factor > 1 else image
