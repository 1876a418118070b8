"""Scores of every tile as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pathclip.core.files import atomic_path, strict_json

if TYPE_CHECKING:
    from pathclip.slides.prediction import SlidePrediction

__all__ = ["SCORES_SCHEMA", "write_scores"]

SCORES_SCHEMA = "pathclip.slide-scores/1"


def write_scores(path: Path, prediction: SlidePrediction) -> Path:
    """Write ``x, y, width, height`` (int32, level-0 pixels) and ``prob_CLASS`` (float32) per tile."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    side = np.full(len(prediction.xy), prediction.slide.plan.width, np.int32)
    columns = {"x": prediction.xy[:, 0], "y": prediction.xy[:, 1], "width": side, "height": side}
    for column, name in enumerate(prediction.classes):
        columns[f"prob_{name}"] = prediction.tile_probabilities[:, column]
    table = pa.table({name: np.ascontiguousarray(values) for name, values in columns.items()})
    metadata = {"schema": SCORES_SCHEMA, "provenance": strict_json(prediction.provenance)}
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)
    return path
