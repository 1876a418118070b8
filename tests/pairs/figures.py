"""Figures put together from painted tissue, and real tiles where they are at hand."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from pathclip.pairs import Box
from pathclip.synthetic import CLASSES, paint_tile

LAYOUTS = ("2x1", "1x2", "2x2", "3x1", "1+2")


def boxes_of(layout: str, width: int, height: int, gutter: int) -> list[Box]:
    """Boxes of the panels, row by row."""
    if layout == "1+2":
        half, low = (width - gutter) // 2, (height - gutter) // 2
        right = half + gutter
        return [
            (0, 0, half, height),
            (right, 0, right + half, low),
            (right, low + gutter, right + half, 2 * low + gutter),
        ]
    across, down = map(int, layout.split("x"))
    w, h = (width - gutter * (across - 1)) // across, (height - gutter * (down - 1)) // down
    return [
        (x * (w + gutter), y * (h + gutter), x * (w + gutter) + w, y * (h + gutter) + h)
        for y in range(down)
        for x in range(across)
    ]


def figure(
    layout: str,
    gutter: int,
    *,
    colour: tuple[int, int, int] = (255, 255, 255),
    size: tuple[int, int] = (640, 480),
    seed: int = 0,
) -> tuple[Image.Image, list[Box]]:
    """A figure of painted tissues, and where its panels lie."""
    boxes = boxes_of(layout, *size, gutter)
    image = Image.new("RGB", (max(b[2] for b in boxes), max(b[3] for b in boxes)), colour)
    tissues = [CLASSES[(seed + n) % len(CLASSES)] for n in range(len(boxes))]
    for number, (box, tissue) in enumerate(zip(boxes, tissues, strict=True)):
        width, height = box[2] - box[0], box[3] - box[1]
        tile = Image.fromarray(paint_tile(tissue, seed * 100 + number, max(width, height)))
        image.paste(tile.crop((0, 0, width, height)), box[:2])
    return image, boxes


def as_jpeg(image: Image.Image, quality: int = 85) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(wide, 0) * max(high, 0)
    return both / (np.prod([a[2] - a[0], a[3] - a[1]]) + np.prod([b[2] - b[0], b[3] - b[1]]) - both)
