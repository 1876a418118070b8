"""Pictures of the slide's truth and of what the model makes of it; plain Pillow."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from pathclip.synthetic import CLASSES

if TYPE_CHECKING:
    from pathclip.demo.road import SlideResult
    from pathclip.slides import SlidePrediction

__all__ = ["LEGEND", "data_uri", "named_tiles", "painted_regions", "picture_uri", "probability_map"]

# apart from each other and from pink and violet
COLOURS = dict(
    zip(
        CLASSES,
        ("#d55e00", "#009e73", "#8c6d1f", "#0072b2", "#f0c800", "#6a3d9a", "#333333", "#56b4e9"),
        strict=True,
    )
)
LEGEND = tuple(COLOURS.items())
WIDTH_PX = 900
OPACITY = 150


def painted_regions(slide: SlideResult) -> Image.Image:
    """The slide with the painted regions coloured by their tissue."""
    picture, scale = _overview(slide.tissues)
    layer = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(layer)
    for region in slide.truth.regions:
        points = [(x * scale, y * scale) for x, y in region.polygon]
        draw.polygon(points, fill=_rgba(COLOURS[region.label]), outline=(255, 255, 255, 255))
    return Image.alpha_composite(picture, layer).convert("RGB")


def named_tiles(slide: SlideResult) -> Image.Image:
    """The slide with every tile in the colour of the tissue it is named."""
    prediction = slide.tissues
    best = prediction.tile_scores.argmax(axis=1)
    colours = [_rgba(COLOURS[prediction.classes[k]]) for k in best.tolist()]
    return _tiles(prediction, colours)


def probability_map(prediction: SlidePrediction, label: str) -> Image.Image:
    """The slide with every tile the redder, the likelier the label."""
    column = prediction.tile_probabilities[:, prediction.classes.index(label)]
    colours = [
        (int(255 * p), 60, int(255 * (1 - p)), 40 + int(130 * abs(2 * p - 1))) for p in column.tolist()
    ]
    return _tiles(prediction, colours)


def data_uri(data: bytes, mime: str) -> str:
    """Bytes inside an address."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def picture_uri(image: Image.Image, side_px: int = WIDTH_PX) -> str:
    """A picture as JPEG inside an address, at most ``side_px`` on its longer side."""
    small = image.convert("RGB")
    small.thumbnail((side_px, side_px))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=84)
    return data_uri(buffer.getvalue(), "image/jpeg")


def _tiles(prediction: SlidePrediction, colours: list[tuple[int, int, int, int]]) -> Image.Image:
    picture, scale = _overview(prediction)
    layer = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(layer)
    side = prediction.slide.plan.stride * scale
    for (x, y), colour in zip(prediction.xy.tolist(), colours, strict=True):
        left, top = x * scale, y * scale
        draw.rectangle((left, top, left + side - 1, top + side - 1), fill=colour)
    return Image.alpha_composite(picture, layer).convert("RGB")


def _overview(prediction: SlidePrediction) -> tuple[Image.Image, float]:
    """The thumbnail as RGBA, and its pixels per level-0 pixel."""
    rgb = np.asarray(prediction.slide.thumbnail.rgb)
    picture = Image.fromarray(rgb)
    picture.thumbnail((WIDTH_PX, WIDTH_PX))
    return picture.convert("RGBA"), picture.width / prediction.slide.size[0]


def _rgba(css: str) -> tuple[int, int, int, int]:
    return int(css[1:3], 16), int(css[3:5], 16), int(css[5:7], 16), OPACITY
