"""Colours that stay apart from each other and from the pink and violet of H&E."""

from __future__ import annotations

import colorsys

__all__ = ["class_colours", "css"]

# Okabe and Ito's palette, safe for colour-blind readers, less black and the violet that H&E drowns
_FIRST = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
    (120, 70, 20),
    (60, 60, 60),
)
GOLDEN_RATIO = 0.618034


def class_colours(count: int) -> list[tuple[int, int, int]]:
    """``count`` colours as (red, green, blue); the same first ones for any count."""
    more = (
        colorsys.hsv_to_rgb((0.17 + i * GOLDEN_RATIO) % 1, 0.75, 0.55 + 0.35 * (i % 2))
        for i in range(max(0, count - len(_FIRST)))
    )
    return [*_FIRST[:count], *(tuple(round(255 * channel) for channel in colour) for colour in more)]


def css(colour: tuple[int, int, int]) -> str:
    """A colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
