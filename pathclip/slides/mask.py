"""Tissue masks made elsewhere: a PNG over the whole slide, or GeoJSON polygons in level-0 pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, UnidentifiedImageError

from pathclip.core.errors import UserError
from pathclip.slides.slide import Slide
from pathclip.slides.tissue import TISSUE_MPP, Tissue

__all__ = ["mask_for", "read_mask"]

GEOJSON = (".geojson", ".json")
MAX_STRETCH = 0.02  # a mask whose sides differ more from the slide's belongs to another slide


def mask_for(slide_path: Path, mask: Path) -> Path:
    """The mask file of a slide: ``mask`` itself, or the file in the folder ``mask`` named as the slide.

    Raises:
        UserError: If there is none.
    """
    if not mask.is_dir():
        if not mask.is_file():
            raise UserError(f"mask {mask} does not exist; expected a PNG, a GeoJSON file or a folder of them")
        return mask
    for suffix in (".png", *GEOJSON):
        if (candidate := mask / f"{slide_path.stem}{suffix}").is_file():
            return candidate
    raise UserError(f"mask folder {mask} holds no {slide_path.stem}.png or {slide_path.stem}.geojson")


def read_mask(path: Path, slide: Slide, slide_mpp: float) -> Tissue:
    """Read a tissue mask.

    Args:
        path: A PNG (or any picture) that covers the slide's whole level 0, tissue being what is not black; or
            GeoJSON with polygons in level-0 pixels.
        slide: The slide it belongs to.
        slide_mpp: µm per level-0 pixel.

    Raises:
        UserError: If it cannot be read, holds no polygon, or has another shape than the slide.
    """
    mask = _from_geojson(path, slide, slide_mpp) if path.suffix in GEOJSON else _from_picture(path, slide)
    width, height = slide.levels[0].size
    downsample = width / mask.shape[1], height / mask.shape[0]
    area = mask.sum() * downsample[0] * downsample[1] * slide_mpp**2 / 1e6
    return Tissue(mask, (0, 0), downsample, path.name, float(area))


def _from_picture(path: Path, slide: Slide) -> np.ndarray:
    try:
        with Image.open(path) as image:
            mask = np.asarray(image.convert("RGBA"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"mask {path} cannot be read as a picture: {error}") from None
    width, height = slide.levels[0].size
    slack = MAX_STRETCH + 1 / mask.shape[1] + 1 / mask.shape[0]
    if abs(math.log((mask.shape[1] / mask.shape[0]) / (width / height))) > slack:
        raise UserError(
            f"mask {path} is {mask.shape[1]} x {mask.shape[0]} px, the slide {width} x {height}: the sides "
            "must be in proportion, as the mask is laid over the whole slide"
        )
    return (mask[..., :3].max(axis=2) > 0) & (mask[..., 3] > 0)


def _from_geojson(path: Path, slide: Slide, slide_mpp: float) -> np.ndarray:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        polygons = list(_polygons(data))
    except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
        raise UserError(f"mask {path} is not readable GeoJSON: {type(error).__name__}: {error}") from None
    if not polygons:
        raise UserError(f"mask {path} holds no Polygon or MultiPolygon")
    down = max(1.0, TISSUE_MPP / slide_mpp)
    width, height = (max(1, math.ceil(side / down)) for side in slide.levels[0].size)
    scale = np.array([width / slide.levels[0].size[0], height / slide.levels[0].size[1]])
    mask = np.zeros((height, width), bool)
    for rings in polygons:
        layer = Image.new("1", (width, height), 0)
        draw = ImageDraw.Draw(layer)
        for index, ring in enumerate(rings):  # the first ring is the outline, the others are holes
            points = [tuple(point) for point in ring[:, :2] * scale]
            draw.polygon(points, fill=0 if index else 1)
        mask |= np.asarray(layer)
    return mask


def _polygons(data: Any) -> Iterator[list[np.ndarray]]:
    """Every polygon of a FeatureCollection, Feature, geometry or list of them, as its rings."""
    if isinstance(data, list):
        for item in data:
            yield from _polygons(item)
    elif data["type"] == "FeatureCollection":
        yield from _polygons(data["features"])
    elif data["type"] == "Feature":
        yield from _polygons(data["geometry"])
    elif data["type"] == "GeometryCollection":
        yield from _polygons(data["geometries"])
    elif data["type"] == "Polygon":
        yield [np.asarray(ring, dtype=np.float64) for ring in data["coordinates"]]
    elif data["type"] == "MultiPolygon":
        yield from ([np.asarray(ring, dtype=np.float64) for ring in p] for p in data["coordinates"])
