"""Zero-shot segmentation by tiles: those of one class as a mask, and how well it fits a drawing.

The threshold is set beforehand. What the best one for a slide would have given is told apart, as ``oracle``.

Legend: N tiles, (H, W) pixels of a mask over the whole level 0.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.core.files import atomic_path
from pathclip.slides.colours import class_colours
from pathclip.slides.geojson import write_collection
from pathclip.slides.lattice import lattices
from pathclip.slides.mask import GEOJSON, geojson_polygons, mask_for, picture_mask
from pathclip.slides.raster import fill_polygons, first_pixel
from pathclip.slides.regions import REGIONS_SCHEMA, annotation, merge_tiles

if TYPE_CHECKING:
    from pathclip.slides.config import SegmentConfig
    from pathclip.slides.prediction import SlidePrediction

__all__ = ["Segment", "judge_segment", "read_annotation", "segment_slide", "write_segment"]

log = logging.getLogger("pathclip")
SEGMENT_MPP = 8.0
MAX_SIDE_PX = 4096  # of a mask whose scale is unknown


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The tiles of one class.

    Attributes:
        label: The class.
        threshold: Probability from which a tile belongs; None where the most probable class decides.
        chosen: (N,) bool, the tiles that belong.
        boxes: (N, 4) int64, left, upper, right, lower of each tile in pixels of the mask.
        mask: (H, W) bool.
        downsample: Level-0 pixels per pixel of the mask, in x and y.
        pixel_mm2: Area of a pixel of the mask; None where the scale is unknown.
    """

    label: str
    threshold: float | None
    chosen: np.ndarray
    boxes: np.ndarray
    mask: np.ndarray
    downsample: tuple[float, float]
    pixel_mm2: float | None

    def area(self, mask: np.ndarray) -> float | None:
        """Area of a mask of the same shape in mm²; None where the scale is unknown."""
        return None if self.pixel_mm2 is None else float(mask.sum()) * self.pixel_mm2


def segment_slide(prediction: SlidePrediction, label: str, threshold: float | None = None) -> Segment:
    """The tiles of one class as a mask over the whole slide, at 8 µm/px or the slide's own scale if coarser.

    Args:
        prediction: The scored slide.
        label: The class.
        threshold: Probability from which a tile belongs; None takes tiles whose most probable class it is.

    Raises:
        UserError: If there is no such class.
    """
    column = prediction.column(label)
    if threshold is None:
        chosen = prediction.tile_classes == column
    else:
        chosen = prediction.tile_probabilities[:, column] >= threshold
    width, height = prediction.slide.size
    mpp = prediction.mpp.value if prediction.mpp else None
    down = max(1.0, max(width, height) / MAX_SIDE_PX if mpp is None else SEGMENT_MPP / mpp)
    shape = max(1, math.ceil(height / down)), max(1, math.ceil(width / down))
    downsample = width / shape[1], height / shape[0]
    boxes = _boxes(prediction, downsample, shape)
    mask = np.zeros(shape, bool)
    for left, upper, right, lower in boxes[chosen].tolist():
        mask[upper:lower, left:right] = True
    pixel = None if mpp is None else downsample[0] * downsample[1] * mpp**2 / 1e6
    return Segment(label, threshold, chosen, boxes, mask, downsample, pixel)


def _boxes(
    prediction: SlidePrediction, downsample: tuple[float, float], shape: tuple[int, int]
) -> np.ndarray:
    boxes = np.zeros((len(prediction.xy), 4), np.int64)
    limit = np.array(shape[::-1])
    for lattice in lattices(prediction.slide.plan, prediction.slide.bounds[:2]):
        for part, step in ((np.s_[:2], 0), (np.s_[2:], 1)):
            edges = first_pixel(lattice.lines(lattice.cells + step) / np.array(downsample))
            boxes[lattice.rows, part] = np.clip(edges, 0, limit)
    return boxes


def read_annotation(
    path: Path, prediction: SlidePrediction, segment: Segment, name: str | None
) -> np.ndarray:
    """A person's drawing on the pixels of a segment's mask.

    Args:
        path: GeoJSON with polygons in level-0 pixels as QuPath shows them, that is of the scanned area where
            the file states one; or a picture over the whole slide, not black where drawn.
        prediction: The slide.
        segment: Whose pixels.
        name: Class of the GeoJSON objects that count; None takes all.

    Returns:
        (H, W) bool.

    Raises:
        UserError: If it cannot be read or has another shape than the slide.
    """
    height, width = segment.mask.shape
    if path.suffix in GEOJSON:
        corner, scale = np.array(prediction.slide.bounds[:2]), np.array(segment.downsample)
        polygons = geojson_polygons(path, name)
        return fill_polygons(
            ([(ring[:, :2] + corner) / scale for ring in rings] for rings in polygons), (height, width)
        )
    drawn = picture_mask(path, prediction.slide.size)
    y = ((np.arange(height) + 0.5) * drawn.shape[0] / height).astype(np.int64)
    x = ((np.arange(width) + 0.5) * drawn.shape[1] / width).astype(np.int64)
    return drawn[np.ix_(y, x)]


def judge_segment(
    prediction: SlidePrediction, segment: Segment, drawn: np.ndarray
) -> dict[str, float | None]:
    """How well a segment fits a drawing, pixel by pixel; tissue that was not tiled counts as not found.

    Args:
        prediction: The slide.
        segment: What was found.
        drawn: (H, W) bool, what a person drew.

    Returns:
        ``dice``, ``iou``, ``sensitivity``, ``precision``, None where undefined; and ``oracle_dice``, which
        the best threshold for this very drawing would give: an upper bound, no result.
    """
    both = int((segment.mask & drawn).sum())
    found, wanted = int(segment.mask.sum()), int(drawn.sum())

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return {
        "dice": share(2 * both, found + wanted),
        "iou": share(both, found + wanted - both),
        "sensitivity": share(both, wanted),
        "precision": share(both, found),
        "oracle_dice": _oracle(prediction, segment, drawn),
    }


def _oracle(prediction: SlidePrediction, segment: Segment, drawn: np.ndarray) -> float | None:
    """The highest Dice over all thresholds on the probability."""
    wanted = int(drawn.sum())
    if not wanted or not len(segment.boxes):
        return None
    integral = np.zeros((drawn.shape[0] + 1, drawn.shape[1] + 1), np.int64)
    integral[1:, 1:] = drawn.cumsum(0).cumsum(1)
    left, upper, right, lower = segment.boxes.T
    hit = integral[lower, right] - integral[upper, right] - integral[lower, left] + integral[upper, left]
    area = (right - left) * (lower - upper)
    chances = prediction.tile_probabilities[:, prediction.column(segment.label)]
    order = np.argsort(-chances, kind="stable")
    dice = 2 * hit[order].cumsum() / (area[order].cumsum() + wanted)
    last = np.append(np.diff(chances[order]) != 0, True)  # tiles of one probability come together
    return float(max(0.0, dice[last].max()))


def write_segment(
    out: Path, name: str, prediction: SlidePrediction, config: SegmentConfig, slide_path: Path
) -> tuple[list[Path], dict[str, Any]]:
    """Write ``NAME.segment.png`` (white on black over the whole slide) and ``NAME.segment.geojson``.

    Args:
        out: The folder.
        name: Stem of the files.
        prediction: The scored slide.
        config: Class, threshold, drawings.
        slide_path: Whose name the drawing has, in a folder of them.

    Returns:
        The files, and what the record keeps: label, threshold, areas, and the fit where there is a drawing.

    Raises:
        UserError: If a drawing cannot be read.
    """
    assert config.label is not None
    segment = segment_slide(prediction, config.label, config.threshold)
    picture = out / f"{name}.segment.png"
    with atomic_path(picture) as temporary:
        Image.fromarray(segment.mask.astype(np.uint8) * 255).save(temporary, "PNG")
    outlines = write_collection(out / f"{name}.segment.geojson", segment_geojson(prediction, segment))
    told: dict[str, Any] = {
        "label": segment.label,
        "threshold": segment.threshold,
        "mm2": segment.area(segment.mask),
    }
    if (path := drawing_of(slide_path, config)) is not None:
        drawn = read_annotation(path, prediction, segment, config.annotation_class)
        told |= {"drawn_mm2": segment.area(drawn), **judge_segment(prediction, segment, drawn)}
    elif config.annotations is not None:
        log.warning("%s: no drawing of its name in %s; not judged", slide_path.name, config.annotations)
    return [picture, outlines], told


def segment_geojson(prediction: SlidePrediction, segment: Segment) -> dict[str, Any]:
    """The segment's outlines as QuPath annotations, in the coordinates of `tiles_geojson`."""
    corner = prediction.slide.bounds[:2]
    column = prediction.column(segment.label)
    values = np.where(segment.chosen, column, -1)
    colour = class_colours(len(prediction.classes))[column]
    features = []
    for region in merge_tiles(prediction.slide.plan, values, corner):
        measured: dict[str, float] = {"tiles": len(region.rows)}
        if prediction.mpp is not None:
            measured["area_mm2"] = round(region.area_px * prediction.mpp.value**2 / 1e6, 6)
        features.append(annotation(region.rings, corner, segment.label, colour, measured))
    return {"type": "FeatureCollection", "schema": REGIONS_SCHEMA, "features": features}


def drawing_of(slide_path: Path, config: SegmentConfig) -> Path | None:
    """The drawing that a slide is judged by; None where none is asked for or a folder holds none for it.

    Raises:
        UserError: If the file or folder named does not exist.
    """
    if config.annotations is None:
        return None
    try:
        return mask_for(slide_path, config.annotations)
    except UserError:
        if not config.annotations.is_dir():
            raise UserError(
                f"segment.annotations = {config.annotations} does not exist; expected a file or a folder"
            ) from None
        return None
