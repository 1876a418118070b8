"""The answer for one slide, and everything it can be shown as."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathclip.core.errors import UserError
from pathclip.slides.features import SlideFeatures
from pathclip.slides.mpp import Mpp
from pathclip.slides.summary import TileSummary
from pathclip.slides.tissue import Tissue

if TYPE_CHECKING:
    from PIL.Image import Image

    from pathclip.slides.segment import Segment

__all__ = ["SlidePrediction"]


@dataclass(frozen=True, slots=True, eq=False)
class SlidePrediction:
    """A slide's label, its scores for every K, and the score of every tile.

    Attributes:
        slide: What was encoded: tiles, scale, tissue, features.
        classes: The labels, in the order of the columns below.
        label: The best class under ``pooling``; None for a slide without tissue.
        label_k: The K that decides where ``pooling`` is ``topk``.
        scores: For every K the mean cosine of each class's K best tiles; empty for a slide without tissue.
        agreement: Share of the K that give the same label; None for a slide without tissue.
        tile_scores: (N, C) float32, cosines; smoothed, where that was asked for.
        tile_probabilities: (N, C) float32, softmax of the model's scale times the cosines.
        top_tiles: Per class the rows of its best tiles, best first, with the tile as JPEG where the slide was
            at hand.
        provenance: How all this was obtained.
        pooling: What decides: ``topk``, ``mean`` or ``fraction``.
        means: Mean cosine of each class over all tiles.
        fractions: Share of the tiles whose most probable class it is.
        summary: What pooling over several slides needs; None for a slide without tissue.
    """

    slide: SlideFeatures
    classes: tuple[str, ...]
    label: str | None
    label_k: int
    scores: dict[int, dict[str, float]]
    agreement: float | None
    tile_scores: np.ndarray
    tile_probabilities: np.ndarray
    top_tiles: dict[str, list[tuple[int, bytes | None]]]
    provenance: dict[str, Any] = field(default_factory=dict)
    pooling: str = "topk"
    means: dict[str, float] = field(default_factory=dict)
    fractions: dict[str, float] = field(default_factory=dict)
    summary: TileSummary | None = None

    @property
    def xy(self) -> np.ndarray:
        """(N, 2) int32, upper left corners of the tiles in level-0 pixels."""
        return self.slide.plan.xy

    @property
    def tissue(self) -> Tissue:
        """Where tiles could lie."""
        return self.slide.tissue

    @property
    def mpp(self) -> Mpp | None:
        """The slide's scale and its source."""
        return self.slide.mpp

    @property
    def tile_classes(self) -> np.ndarray:
        """(N,) column of each tile's most probable class."""
        return self.tile_probabilities.argmax(axis=1)

    @property
    def tile_mm2(self) -> float | None:
        """Area of one tile; None where the scale is unknown."""
        return None if self.mpp is None else (self.slide.plan.step * self.mpp.value) ** 2 / 1e6

    @property
    def state(self) -> str:
        """``done`` or ``empty``."""
        return self.slide.state

    def column(self, cls: str) -> int:
        """Column of a class.

        Raises:
            UserError: If there is no such class.
        """
        if cls not in self.classes:
            raise UserError(f"class {cls!r} was not asked for; the classes are: {', '.join(self.classes)}")
        return self.classes.index(cls)

    def heatmap(self, cls: str) -> Image:
        """The thumbnail with the probability of one class laid over it; what was not scored is untouched."""
        from pathclip.slides.heatmap import heatmap

        return heatmap(self, cls)

    def to_geojson(self) -> dict[str, Any]:
        """The tiles as a GeoJSON FeatureCollection that QuPath imports."""
        from pathclip.slides.geojson import tiles_geojson

        return tiles_geojson(self)

    def to_regions(self) -> dict[str, Any]:
        """Neighbouring tiles of one class merged to polygons: a FeatureCollection of QuPath annotations."""
        from pathclip.slides.regions import regions_geojson

        return regions_geojson(self)

    def segment(self, label: str, threshold: float | None = None) -> Segment:
        """The tiles of one class as a mask; by default those whose most probable class it is.

        Args:
            label: The class.
            threshold: Probability from which a tile belongs instead.
        """
        from pathclip.slides.segment import segment_slide

        return segment_slide(self, label, threshold)

    def save(self, out: str | Path, name: str | None = None) -> list[Path]:
        """Write the slide's six files into a folder.

        Args:
            out: The folder; made where it is missing.
            name: Stem of the files; by default the slide's.

        Returns:
            ``NAME.h5``, ``NAME.scores.parquet``, ``NAME.geojson``, ``NAME.regions.geojson``,
            ``NAME.heatmap.png`` and ``NAME.html``.
        """
        from pathclip.slides.export import save_prediction

        return save_prediction(self, Path(out), name or self.slide.path.stem)
