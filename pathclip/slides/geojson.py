"""Tiles as GeoJSON for QuPath: one square per tile, its class, and the probability of every class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathclip.slides.collection import write_collection
from pathclip.slides.colours import class_colours

if TYPE_CHECKING:
    from pathclip.slides.prediction import SlidePrediction

__all__ = ["GEOJSON_SCHEMA", "tiles_geojson", "write_geojson"]

GEOJSON_SCHEMA = "pathclip.slide-tiles/1"


def tiles_geojson(prediction: SlidePrediction) -> dict[str, Any]:
    """A FeatureCollection in QuPath's terms: ``objectType`` tile, ``classification``, ``measurements``.

    Coordinates are level-0 pixels as QuPath shows them: of the scanned area, where the file states one
    (MIRAX), because QuPath crops to it.
    """
    features = list(_tiles(prediction))
    return {"type": "FeatureCollection", "schema": GEOJSON_SCHEMA, "features": features}


def _tiles(prediction: SlidePrediction) -> Iterator[dict[str, Any]]:
    chances = prediction.tile_probabilities
    colours = class_colours(len(prediction.classes))
    x0, y0 = prediction.slide.bounds[:2]
    side = prediction.slide.plan.width
    for (x, y), row in zip(prediction.xy.tolist(), chances.tolist(), strict=True):
        best = max(range(len(row)), key=row.__getitem__)
        left, upper, right, lower = x - x0, y - y0, x - x0 + side, y - y0 + side
        ring = [[left, upper], [right, upper], [right, lower], [left, lower], [left, upper]]
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {
                "objectType": "tile",
                "classification": {"name": prediction.classes[best], "color": list(colours[best])},
                "measurements": {
                    f"prob_{name}": round(value, 6)
                    for name, value in zip(prediction.classes, row, strict=True)
                },
            },
        }


def write_geojson(path: Path, prediction: SlidePrediction) -> Path:
    """Write `tiles_geojson`, one tile per line, atomically; never more than one tile in memory."""
    return write_collection(path, GEOJSON_SCHEMA, _tiles(prediction))
