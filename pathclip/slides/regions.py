"""Neighbouring tiles of one class as one polygon, for QuPath: small files, and outlines one can work with.

A region is a set of tiles that hang together over their sides. Its rings follow the grid's lines, so the
polygon covers exactly its tiles; holes stay holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathclip.slides.collection import write_collection
from pathclip.slides.colours import class_colours
from pathclip.slides.lattice import Lattice, lattices

if TYPE_CHECKING:
    from pathclip.slides.prediction import SlidePrediction
    from pathclip.slides.tiling import TilePlan

__all__ = ["REGIONS_SCHEMA", "TileRegion", "merge_tiles", "regions_geojson", "write_regions"]

REGIONS_SCHEMA = "pathclip.slide-regions/1"
Ring = list[tuple[int, int]]


@dataclass(frozen=True, slots=True, eq=False)
class TileRegion:
    """Tiles of one class that hang together.

    Attributes:
        value: The class.
        rows: Its tiles in the plan.
        rings: The outline, then the holes: closed rings of level-0 pixels, a vertex at every turn.
        area_px: Area in level-0 pixels.
    """

    value: int
    rows: np.ndarray
    rings: list[Ring]
    area_px: int


def merge_tiles(plan: TilePlan, values: np.ndarray, corner: tuple[int, int]) -> list[TileRegion]:
    """Merge tiles of equal value that share a side.

    Args:
        plan: N tiles.
        values: (N,) class of each tile; negative ones belong to no region.
        corner: x, y where the scanned area begins.

    Returns:
        The regions, largest first.
    """
    found = [region for lattice in lattices(plan, corner) for region in _regions(lattice, np.asarray(values))]
    return sorted(found, key=lambda region: (-region.area_px, region.rings[0]))


def _regions(lattice: Lattice, values: np.ndarray) -> list[TileRegion]:
    from scipy import ndimage

    first = lattice.cells.min(axis=0)
    column, row = (lattice.cells - first).T
    image = np.full((row.max() + 3, column.max() + 3), -1, np.int64)  # an empty cell around
    image[row + 1, column + 1] = values[lattice.rows]
    pieces, total = np.zeros(image.shape, np.int64), 0  # 0: no region
    for value in np.unique(image[image >= 0]):
        labelled, count = ndimage.label(image == value)
        pieces[labelled > 0] = labelled[labelled > 0] + total
        total += count
    members: dict[int, list[int]] = {}
    for tile, piece in zip(lattice.rows.tolist(), pieces[row + 1, column + 1].tolist(), strict=True):
        if piece:
            members.setdefault(piece, []).append(tile)
    rings = _rings(pieces)
    found = []
    for piece, tiles in members.items():
        placed = [
            [(int(x), int(y)) for x, y in lattice.lines(np.array(ring) + first - 1)] for ring in rings[piece]
        ]
        placed.sort(key=lambda ring: -abs(_area(ring)))  # the outline encloses the holes
        area = abs(_area(placed[0])) - sum(abs(_area(ring)) for ring in placed[1:])
        closed = [[*ring, ring[0]] for ring in placed]
        found.append(TileRegion(int(values[tiles[0]]), np.array(tiles), closed, area))
    return found


def _rings(pieces: np.ndarray) -> dict[int, list[Ring]]:
    """Every piece's rings as corners of cells (x, y), with the piece on the right of each step.

    Where two cells of a piece touch at a corner only, the ring turns left: it stays with the empty cell it
    runs along, so no ring touches itself.
    """
    steps: dict[int, dict[tuple[int, int], list[tuple[int, int]]]] = {}
    # side of a cell: neighbour's offset (row, column), where the step begins and ends (x, y)
    sides = (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    )
    for (down, right), begin, end in sides:
        other = np.roll(pieces, (-down, -right), axis=(0, 1))
        y, x = np.nonzero((pieces > 0) & (pieces != other))
        for cx, cy, piece in zip(x.tolist(), y.tolist(), pieces[y, x].tolist(), strict=True):
            start, stop = (cx + begin[0], cy + begin[1]), (cx + end[0], cy + end[1])
            steps.setdefault(piece, {}).setdefault(start, []).append(stop)
    return {piece: _chained(outgoing) for piece, outgoing in steps.items()}


def _chained(outgoing: dict[tuple[int, int], list[tuple[int, int]]]) -> list[Ring]:
    """Rings of steps, without the corners that lie on straight lines."""
    rings = []
    while outgoing:
        start = next(iter(outgoing))
        path = [start]
        here, heading = start, (0, 0)
        while True:
            choices = outgoing[here]
            left = (here[0] + heading[1], here[1] - heading[0])  # y points down
            there = left if len(choices) > 1 and left in choices else choices[0]
            choices.remove(there)
            if not choices:
                del outgoing[here]
            heading = (there[0] - here[0], there[1] - here[1])
            here = there
            if here == start:
                break
            path.append(here)
        rings.append(_corners(path))
    return rings


def _corners(path: Ring) -> Ring:
    turned = []
    for before, here, after in zip([path[-1], *path[:-1]], path, [*path[1:], path[0]], strict=True):
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
            turned.append(here)
    return turned


def _area(ring: Sequence[tuple[int, int]]) -> int:
    """Signed area, exact: borders run along the axes."""
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)) // 2


def regions_geojson(prediction: SlidePrediction) -> dict[str, Any]:
    """Regions of equal most probable class as a FeatureCollection of QuPath annotations, largest first.

    Coordinates count as in `tiles_geojson`: level-0 pixels of the scanned area.
    """
    x0, y0 = prediction.slide.bounds[:2]
    regions = merge_tiles(prediction.slide.plan, prediction.tile_classes, (x0, y0))
    colours = class_colours(len(prediction.classes))
    features = []
    for region in regions:
        name = prediction.classes[region.value]
        measured: dict[str, float] = {"tiles": len(region.rows)}
        if prediction.mpp is not None:
            measured["area_mm2"] = round(region.area_px * prediction.mpp.value**2 / 1e6, 6)
        chance = prediction.tile_probabilities[region.rows, region.value].mean(dtype=np.float64)
        measured[f"prob_{name}"] = round(float(chance), 6)
        features.append(annotation(region.rings, (x0, y0), name, colours[region.value], measured))
    return {"type": "FeatureCollection", "schema": REGIONS_SCHEMA, "features": features}


def annotation(
    rings: list[Ring],
    corner: tuple[int, int],
    name: str,
    colour: tuple[int, int, int],
    measurements: dict[str, float],
) -> dict[str, Any]:
    """One polygon as QuPath's annotation object.

    Args:
        rings: Outline and holes in level-0 pixels.
        corner: Where QuPath's own coordinates begin.
        name: The class.
        colour: The class's colour.
        measurements: Numbers to show with it.
    """
    x0, y0 = corner
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[x - x0, y - y0] for x, y in r] for r in rings]},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(colour)},
            "measurements": measurements,
        },
    }


def write_regions(path: Path, prediction: SlidePrediction) -> Path:
    """Write `regions_geojson`."""
    return write_collection(path, REGIONS_SCHEMA, regions_geojson(prediction)["features"])
