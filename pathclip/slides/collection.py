"""GeoJSON files, one feature per line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pathclip.core.files import atomic_write

__all__ = ["write_collection"]


def write_collection(path: Path, schema: str, features: Iterable[dict[str, Any]]) -> Path:
    """Write a FeatureCollection atomically, never more than one feature in memory.

    Args:
        path: The file.
        schema: Name of the kind of file, a key that readers of GeoJSON pass over.
        features: Strict JSON.
    """
    with atomic_write(path, "w") as handle:
        handle.write(f'{{"type": "FeatureCollection", "schema": "{schema}", "features": [\n')
        between = ""
        for feature in features:
            handle.write(between + json.dumps(feature, ensure_ascii=False, allow_nan=False))
            between = ",\n"
        handle.write("\n]}\n")
    return path
