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
from pathclip.slides.collection import write_collection
from pathclip.slides.colours import class_colours
from pathclip.slides.lattice import lattices
from pathclip.slides.mask import GEOJSON, geojson_polygons, mask_for, picture_mask
from pathclip.slides.raster import fill_polygons, first_pixel
from pathclip.slides.regions import REGIONS_SCHEMA, annotation, merge_tiles

if TYPE_CHECKING:
    from pathclip.slides.config import SegmentConfig
    from pathclip.slides.features import SlideFeatures
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
        mask: (H, W) bool, from the scanned area's corner on; a tile is a whole number of pixels wide.
        origin: x, y of the mask's upper left corner in level-0 pixels.
        downsample: Level-0 pixels per pixel of the mask.
        pixel_mm2: Area of a pixel of the mask; None where the scale is unknown.
    """

    label: str
    threshold: float | None
    chosen: np.ndarray
    boxes: np.ndarray
    mask: np.ndarray
    origin: tuple[int, int]
    downsample: float
    pixel_mm2: float | None

    def area(self, mask: np.ndarray) -> float | None:
        """Area of a mask of the same shape in mm²; None where the scale is unknown."""
        return None if self.pixel_mm2 is None else float(mask.sum()) * self.pixel_mm2


def segment_slide(prediction: SlidePrediction, label: str, threshold: float | None = None) -> Segment:
    """The tiles of one class as a mask with pixels of about 8 µm.

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
    slide, mpp = prediction.slide, prediction.mpp.value if prediction.mpp else None
    wanted = max(slide.size) / MAX_SIDE_PX if mpp is None else SEGMENT_MPP / mpp
    down = slide.plan.step / max(1, round(slide.plan.step / max(1.0, wanted)))
    origin = slide.bounds[:2]
    shape = tuple(math.ceil((slide.size[axis] - origin[axis]) / down) for axis in (1, 0))
    mask = np.zeros(shape, bool)
    boxes = _boxes(slide, down, shape)
    for left, upper, right, lower in boxes[chosen].tolist():
        mask[upper:lower, left:right] = True
    pixel = None if mpp is None else (down * mpp) ** 2 / 1e6
    return Segment(label, threshold, chosen, boxes, mask, origin, down, pixel)


def _boxes(slide: SlideFeatures, down: float, shape: tuple[int, ...]) -> np.ndarray:
    boxes = np.zeros((len(slide.xy), 4), np.int64)
    corner, limit = np.array(slide.bounds[:2]), np.array(shape[::-1])
    for lattice in lattices(slide.plan, slide.bounds[:2]):
        for part, step in ((np.s_[:2], 0), (np.s_[2:], 1)):
            edges = first_pixel((lattice.lines(lattice.cells + step) - corner) / down)
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
        polygons = geojson_polygons(path, name)
        return fill_polygons(
            ([ring[:, :2] / segment.downsample for ring in rings] for rings in polygons), (height, width)
        )
    drawn = picture_mask(path, prediction.slide.size)
    out = np.zeros((height, width), bool)
    at = []
    for axis, count in ((1, height), (0, width)):
        place = segment.origin[axis] + (np.arange(count) + 0.5) * segment.downsample
        pixel = place * drawn.shape[1 - axis] / prediction.slide.size[axis]
        at.append(pixel[pixel < drawn.shape[1 - axis]].astype(np.int64))
    out[: len(at[0]), : len(at[1])] = drawn[np.ix_(*at)]
    return out


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
    integral = np.zeros((drawn.shape[0] + 1, drawn.shape[1] + 1), np.int32)
    integral[1:, 1:] = drawn.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)
    left, upper, right, lower = segment.boxes.T
    hit = integral[lower, right] - integral[upper, right] - integral[lower, left] + integral[upper, left]
    hit = hit.astype(np.int64)
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
        Image.fromarray(_over_slide(segment, prediction.slide.size)).save(temporary, "PNG")
    outlines = out / f"{name}.segment.geojson"
    write_collection(outlines, REGIONS_SCHEMA, segment_geojson(prediction, segment)["features"])
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


def _over_slide(segment: Segment, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8, the mask over the whole level 0, as pictures of masks are laid."""
    at, inside = [], []
    for axis in (1, 0):
        count = math.ceil(size[axis] / segment.downsample)
        place = (np.arange(count) + 0.5) * size[axis] / count
        pixel = np.floor((place - segment.origin[axis]) / segment.downsample).astype(np.int64)
        inside.append(pixel >= 0)
        at.append(np.clip(pixel, 0, segment.mask.shape[1 - axis] - 1))
    shown = segment.mask[np.ix_(*at)] & inside[0][:, None] & inside[1]
    return shown.astype(np.uint8) * 255


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
