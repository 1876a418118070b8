"""A prediction as its files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pathclip.slides.config import OUTPUTS
from pathclip.slides.features import write_features
from pathclip.slides.geojson import write_geojson
from pathclip.slides.heatmap import write_heatmap
from pathclip.slides.page import write_page
from pathclip.slides.regions import write_regions
from pathclip.slides.scores import write_scores

if TYPE_CHECKING:
    from pathclip.slides.prediction import SlidePrediction

__all__ = ["SUFFIXES", "save_prediction"]

SUFFIXES = (".h5", ".scores.parquet", ".geojson", ".regions.geojson", ".heatmap.png", ".html")


def save_prediction(
    prediction: SlidePrediction,
    out: Path,
    name: str,
    *,
    features: bool = True,
    every_class: bool = False,
    outputs: Collection[str] = OUTPUTS,
) -> list[Path]:
    """Write the files of one slide, each atomically, and return their paths.

    Args:
        prediction: What to write.
        out: The folder; made where it is missing.
        name: Stem of the files.
        features: Write the h5 as well; false where it lies there already or came from elsewhere.
        every_class: Show the probability of every class in the PNG, not of the label alone.
        outputs: Which of the other files.
    """
    written = [write_features(out / f"{name}.h5", prediction.slide, name=name)] if features else []
    if "scores" in outputs:
        written.append(write_scores(out / f"{name}.scores.parquet", prediction))
    if "tiles" in outputs:
        written.append(write_geojson(out / f"{name}.geojson", prediction))
    if "regions" in outputs:
        written.append(write_regions(out / f"{name}.regions.geojson", prediction))
    if "heatmap" in outputs:
        written.append(write_heatmap(out / f"{name}.heatmap.png", prediction, name, every_class))
    if "page" in outputs:
        written.append(write_page(out / f"{name}.html", prediction, name))
    return written
