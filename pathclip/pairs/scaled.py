"""JPEG decoded at the smallest scale that will do, and the small picture that is looked at."""

from __future__ import annotations

import simplejpeg
from PIL import Image

__all__ = ["LOOK_SIDE_PX", "decode_jpeg", "small_picture"]

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
                return Image.fromarray(simplejpeg.decode_jpeg(data, min_height=small[0], min_width=small[1]))
        return Image.fromarray(simplejpeg.decode_jpeg(data))
    except ValueError:
        return None


def small_picture(image: Image.Image) -> Image.Image:
    """What is looked at: averaged over whole blocks until the long side is at most ``LOOK_SIDE_PX``."""
    factor = -(-max(image.size) // LOOK_SIDE_PX)
    return image.reduce(factor) if factor > 1 else image
