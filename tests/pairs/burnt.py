"""Pictures with letters, labels and codes burnt in."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
NAMES = (
    "SMITH, JOHN",
    "Maria Gonzalez",
    "S22-14567 A1",
    "MRN 00482913",
    "DOB: 03/14/1956",
    "12-MAR-2021 09:14",
)


def font(size: int, name: str = "DejaVuSans") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONTS / f"{name}.ttf"), size)


def written(
    image: Image.Image, text: str, *, size: int = 28, colour: str = "white", box: str = ""
) -> Image.Image:
    """Text in the lower left corner, on the picture itself or on a bar of the colour ``box``."""
    image = image.copy()
    draw, place = ImageDraw.Draw(image), (14, image.height - 2 * size)
    if box:
        left, top, right, bottom = draw.textbbox(place, text, font=font(size))
        draw.rectangle((left - 5, top - 5, right + 5, bottom + 5), fill=box)
    draw.text(place, text, fill=colour, font=font(size))
    return image


def labelled(image: Image.Image, *texts: str, size: int = 24) -> Image.Image:
    """A paper label in the upper right corner, as slides have."""
    image = image.copy()
    paper = Image.new("RGB", (image.width // 3, len(texts) * size * 2), (245, 240, 225))
    for line, text in enumerate(texts):
        ImageDraw.Draw(paper).text((8, size // 2 + 2 * size * line), text, fill=(20, 20, 20), font=font(size))
    image.paste(paper, (image.width - paper.width, 0))
    return image


def coded(image: Image.Image, seed: int, *, square: bool = False, module_px: int = 3) -> Image.Image:
    """A code of bars, or of squares, on white."""
    rng = np.random.default_rng(seed)
    cells = rng.random((24, 24)) < 0.5 if square else np.repeat(rng.random((1, 80)) < 0.5, 30, axis=0)
    pixels = np.where(np.kron(cells, np.ones((module_px, module_px), bool)), 0, 255).astype(np.uint8)
    code = Image.new("RGB", (pixels.shape[1] + 24, pixels.shape[0] + 24), "white")
    code.paste(Image.fromarray(pixels).convert("RGB"), (12, 12))
    image = image.copy()
    image.paste(code, (image.width - code.width - 20, 30))
    return image
