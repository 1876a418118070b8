"""Tissue masks made elsewhere: a PNG over the whole slide, or GeoJSON polygons in level-0 pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pathclip.core.errors import UserError
from pathclip.slides.raster import fill_polygons
from pathclip.slides.slide import Slide
from pathclip.slides.tissue import TISSUE_MPP, Tissue

__all__ = ["GEOJSON", "geojson_polygons", "mask_for", "picture_mask", "read_mask"]

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
    if path.suffix in GEOJSON:
        mask = _from_geojson(path, slide, slide_mpp)
    else:
        mask = picture_mask(path, slide.levels[0].size)
    width, height = slide.levels[0].size
    downsample = width / mask.shape[1], height / mask.shape[0]
    area = mask.sum() * downsample[0] * downsample[1] * slide_mpp**2 / 1e6
    return Tissue(mask, (0, 0), downsample, path.name, float(area))


def picture_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool of what is not black in a picture that is laid over a whole slide.

    Args:
        path: The picture.
        size: (width, height) of the slide, to see whether they fit.

    Raises:
        UserError: If it cannot be read or has other proportions.
    """
    try:
        with Image.open(path) as image:
            mask = np.asarray(image.convert("RGBA"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"mask {path} cannot be read as a picture: {error}") from None
    width, height = size
    slack = MAX_STRETCH + 1 / mask.shape[1] + 1 / mask.shape[0]
    if abs(math.log((mask.shape[1] / mask.shape[0]) / (width / height))) > slack:
        raise UserError(
            f"mask {path} is {mask.shape[1]} x {mask.shape[0]} px, the slide {width} x {height}: the sides "
            "must be in proportion, as the mask is laid over the whole slide"
        )
    return (mask[..., :3].max(axis=2) > 0) & (mask[..., 3] > 0)


def geojson_polygons(path: Path, name: str | None = None) -> list[list[np.ndarray]]:
    """Every polygon of a GeoJSON file as its rings of (P, 2) x, y.

    Args:
        path: The file.
        name: Only features of this class, as QuPath writes it; None takes all.

    Raises:
        UserError: If it cannot be read, or holds no polygon at all.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        every = list(_polygons(data, None))
        chosen = every if name is None else list(_polygons(data, name))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError) as error:
        raise UserError(f"mask {path} is not readable GeoJSON: {type(error).__name__}: {error}") from None
    if not every:
        raise UserError(f"mask {path} holds no Polygon or MultiPolygon")
    return chosen


def _from_geojson(path: Path, slide: Slide, slide_mpp: float) -> np.ndarray:
    polygons = geojson_polygons(path)
    down = max(1.0, TISSUE_MPP / slide_mpp)
    width, height = (max(1, math.ceil(side / down)) for side in slide.levels[0].size)
    scale = np.array([width / slide.levels[0].size[0], height / slide.levels[0].size[1]])
    return fill_polygons(([ring[:, :2] * scale for ring in rings] for rings in polygons), (height, width))


def _polygons(data: Any, name: str | None) -> Iterator[list[np.ndarray]]:
    """Every polygon of a FeatureCollection, Feature, geometry or list of them, as its rings."""
    if isinstance(data, list):
        for item in data:
            yield from _polygons(item, name)
    elif data["type"] == "FeatureCollection":
        yield from _polygons(data["features"], name)
    elif data["type"] == "Feature":
        if name is None or _class_of(data) == name:
            yield from _polygons(data["geometry"], None)
    elif data["type"] == "GeometryCollection":
        yield from _polygons(data["geometries"], name)
    elif name is not None:
        return  # a bare geometry has no class
    elif data["type"] == "Polygon":
        yield [np.asarray(ring, dtype=np.float64) for ring in data["coordinates"]]
    elif data["type"] == "MultiPolygon":
        yield from ([np.asarray(ring, dtype=np.float64) for ring in p] for p in data["coordinates"])


def _class_of(feature: dict[str, Any]) -> str | None:
    classification = (feature.get("properties") or {}).get("classification")
    return classification.get("name") if isinstance(classification, dict) else classification
