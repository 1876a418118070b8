"""Features that TRIDENT, CLAM or MI-Zero made: where their tiles lie, and what the slide itself adds.

TRIDENT writes the size of its tiles beside the coordinates. CLAM writes it into another file than the
features, so there it is taken from the distances between tiles.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pathclip.core.errors import UserError
from pathclip.slides.features import SlideFeatures
from pathclip.slides.mpp import resolve_mpp
from pathclip.slides.overview import Overview, thumbnail
from pathclip.slides.slide import Slide
from pathclip.slides.tiling import TilePlan
from pathclip.slides.tissue import Tissue

__all__ = ["read_foreign", "with_slide"]

log = logging.getLogger("pathclip")
BLANK_PX = 1600
MIN_AGREEING = 0.5  # share of neighbouring tiles that must be equally far apart


def read_foreign(path: Path, file: h5py.File) -> SlideFeatures:
    """Features and coordinates of another program; no picture, no mask, no scale (see `with_slide`).

    Args:
        path: The file.
        file: The same, open: datasets ``features`` (N, D) or (1, N, D) and ``coords`` (N, 2), level-0 pixels.

    Raises:
        UserError: If features and coordinates are not in step or not finite, or nothing tells a tile's size.
    """
    attrs = {**file["features"].attrs, **file["coords"].attrs, **file.attrs}
    features = np.asarray(file["features"][:], np.float32).reshape(-1, file["features"].shape[-1])
    xy = np.asarray(file["coords"][:]).reshape(-1, 2).astype(np.int32)
    if len(xy) != len(features):
        raise UserError(f"{path}: {len(features)} features but {len(xy)} coordinates")
    if bad := int((~np.isfinite(features).all(axis=1)).sum()):
        raise UserError(f"{path}: {bad} of {len(features)} features are not finite; extract them again")
    side = _side(path, attrs, xy)
    size = _size(attrs, xy, side)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    tile_px = int(attrs.get("patch_size", side))
    picture, nowhere = _blank(size)
    return SlideFeatures(
        path=path,
        vendor="unknown",
        size=size,
        bounds=(0, 0, *size),
        mpp=None,
        tissue=Tissue(nowhere, picture.origin, picture.downsample, "unknown", 0.0),
        plan=TilePlan(
            xy=xy,
            tile_px=tile_px,
            mpp=float("nan"),
            level=0,
            read_px=round(side),
            scale=side / tile_px,
            stride=side,
            overlap_px=_overlap(attrs, xy, side, tile_px),
        ),
        features=(features / np.maximum(lengths, 1e-12)).astype(np.float16),
        unreadable=0,
        thumbnail=picture,
        provenance={"model": None, "features": path.name, "encoder": _text(attrs.get("encoder"))},
    )


def with_slide(features: SlideFeatures, slide: Slide, row_mpp: float | None = None) -> SlideFeatures:
    """Foreign features with what their slide tells: its size, its scale if it states one, its picture.

    Args:
        features: From `read_features`; those that have a scale are returned as they are.
        slide: The open slide.
        row_mpp: The scale that a slide table states, µm/px.

    Raises:
        UserError: If tiles lie outside the slide.
    """
    if features.mpp is not None or features.vendor != "unknown":
        return features
    size = slide.levels[0].size
    reach = features.xy.max(axis=0, initial=0) + round(features.plan.stride / 2)
    if (reach > np.array(size)).any():
        raise UserError(
            f"{features.path}: tiles reach x {reach[0]}, y {reach[1]}, but slide {slide.path.name} is "
            f"{size[0]} x {size[1]} px; are they features of another slide?"
        )
    try:
        mpp = resolve_mpp(slide, row=row_mpp)
    except UserError:
        mpp = None  # scores need no scale; areas and the scale bar are left out
    scale = float("nan") if mpp is None else mpp.value * features.plan.scale
    return replace(
        features,
        vendor=slide.vendor,
        size=size,
        bounds=slide.bounds,
        mpp=mpp,
        plan=replace(features.plan, mpp=scale),
        thumbnail=thumbnail(slide, BLANK_PX),
    )


def _side(path: Path, attrs: Mapping[str, Any], xy: np.ndarray) -> float:
    """Side of a tile in level-0 pixels."""
    if "patch_size_level0" in attrs:
        return float(attrs["patch_size_level0"])
    if "patch_size" in attrs and "downsample" in attrs:
        return float(attrs["patch_size"]) * float(np.ravel(attrs["downsample"])[0])
    spacing = _spacing(xy)
    if spacing is None:
        raise UserError(
            f"{path} does not state the size of its tiles, and their distances do not tell it; set the "
            "attribute patch_size_level0 (side in level-0 pixels) of coords"
        )
    log.info("%s: tiles of %d level-0 pixels, by their distances", path.name, spacing)
    return float(spacing)


def _overlap(attrs: Mapping[str, Any], xy: np.ndarray, side: float, tile_px: int) -> int:
    """Pixels that neighbouring tiles share: as TRIDENT states it; CLAM's step shows in the distances."""
    if "overlap" in attrs:
        return min(max(0, int(attrs["overlap"])), tile_px - 1)
    spacing = _spacing(xy)
    return 0 if spacing is None or spacing >= side else round(tile_px * (1 - spacing / side))


def _spacing(xy: np.ndarray) -> int | None:
    """The distance of most neighbours in a row and in a column; None where there is none they agree on."""
    steps = []
    for along, across in ((0, 1), (1, 0)):
        order = np.lexsort((xy[:, along], xy[:, across]))
        line, place = xy[order, across], xy[order, along]
        gaps = np.diff(place)[np.diff(line) == 0]
        steps.append(gaps[gaps > 0])
    every = np.concatenate(steps)
    if not len(every):
        return None
    values, counts = np.unique(every, return_counts=True)
    best = counts.argmax()
    return int(values[best]) if counts[best] >= MIN_AGREEING * len(every) else None


def _size(attrs: Mapping[str, Any], xy: np.ndarray, side: float) -> tuple[int, int]:
    """Size of level 0 as TRIDENT or CLAM state it, or as far as the tiles reach."""
    reach = xy.max(axis=0, initial=0) + side
    if "level0_width" in attrs and "level0_height" in attrs:
        stated = (attrs["level0_width"], attrs["level0_height"])
    elif "level_dim" in attrs and "downsample" in attrs:
        stated = np.ravel(attrs["level_dim"])[:2] * np.ravel(attrs["downsample"])[0]
    else:
        stated = reach
    return int(max(float(stated[0]), 1)), int(max(float(stated[1]), 1))


def _blank(size: tuple[int, int]) -> tuple[Overview, np.ndarray]:
    """A white picture in the slide's proportions, and a mask of the same shape with no tissue in it."""
    down = max(1.0, max(size) / BLANK_PX)
    width, height = (max(1, round(side / down)) for side in size)
    nowhere = np.zeros((height, width), bool)
    place = (size[0] / width, size[1] / height)
    return Overview(np.full((height, width, 3), 255, np.uint8), nowhere, (0, 0), place), nowhere


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else None if value is None else str(value)
