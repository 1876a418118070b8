"""One slide as one HTML file that opens anywhere and asks the network for nothing."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pathclip.core.files import atomic_write, strict_json
from pathclip.slides.colours import class_colours, css

if TYPE_CHECKING:
    from pathclip.slides.prediction import SlidePrediction

__all__ = ["PAGE_SCHEMA", "fill_template", "page_data", "write_page"]

PAGE_SCHEMA = "pathclip.slide-page/1"


def write_page(path: Path, prediction: SlidePrediction, name: str) -> Path:
    """Write the page: map with class picker, scores per K, scores under the pointer, best tiles.

    Args:
        path: The HTML file to write.
        prediction: What to show.
        name: The slide's name.
    """
    parts = {"@@TITLE@@": html.escape(name), "@@DATA@@": strict_json(page_data(prediction, name))}
    page = fill_template("page.html", parts, script="page.js")
    with atomic_write(path, "w") as handle:
        handle.write(page)
    return path


def fill_template(template: str, parts: dict[str, str], *, script: str) -> str:
    """A page from its template in this package, the common style sheet and a script.

    Args:
        template: Name of the template.
        parts: What stands in place of each mark; ``@@DATA@@`` is JSON.
        script: Name of the script.
    """
    data = parts["@@DATA@@"].replace("</", "<\\/")  # no name may close the script
    parts = {**parts, "@@DATA@@": data, "@@CSS@@": _resource("page.css"), "@@JS@@": _resource(script)}
    head, *rest = _split(_resource(template), tuple(parts))
    return head + "".join(parts.get(piece, piece) for piece in rest)


def page_data(prediction: SlidePrediction, name: str) -> dict[str, Any]:
    """What the page shows; arrays as base64 of little-endian numbers (docs/reference/schemas/slide-page)."""
    slide = prediction.slide
    view = slide.thumbnail
    return {
        "schema": PAGE_SCHEMA,
        "name": name,
        "label": prediction.label,
        "label_k": prediction.label_k,
        "pooling": prediction.pooling,
        "agreement": prediction.agreement,
        "size": list(slide.size),
        "mpp": slide.mpp.value if slide.mpp else None,
        "mpp_source": slide.mpp.source if slide.mpp else "unknown",
        "tissue_mm2": None if slide.tissue.source == "unknown" else slide.tissue.area_mm2,
        "classes": [
            {"name": cls, "colour": css(colour)}
            for cls, colour in zip(prediction.classes, class_colours(len(prediction.classes)), strict=True)
        ],
        "scores": {str(k): row for k, row in prediction.scores.items()},
        "means": prediction.means,
        "fractions": prediction.fractions,
        "tiles": {
            "count": len(prediction.xy),
            "unreadable": slide.unreadable,
            "tile_px": slide.plan.tile_px,
            "mpp": slide.plan.mpp if math.isfinite(slide.plan.mpp) else None,
            "side_level0": slide.plan.step,
            "mm2": prediction.tile_mm2,
            "xy": _base64(prediction.xy + slide.plan.margin, "<i4"),
            "probability": _base64(np.rint(prediction.tile_probabilities * 65535), "<u2"),
            "cosine": _base64(np.rint(np.clip(prediction.tile_scores, -1, 1) * 32767), "<i2"),
        },
        "view": {
            "width": view.rgb.shape[1],
            "height": view.rgb.shape[0],
            "origin": list(view.origin),
            "downsample": list(view.downsample),
            "jpeg": _jpeg(view.rgb),
        },
        "top": [
            {
                "class": cls,
                "tiles": [
                    {"tile": row, "jpeg": base64.b64encode(jpeg).decode() if jpeg else None}
                    for row, jpeg in tiles
                ],
            }
            for cls, tiles in prediction.top_tiles.items()
        ],
        "provenance": json.loads(strict_json(prediction.provenance)),
    }


def _split(template: str, marks: tuple[str, ...]) -> list[str]:
    """The template cut at the marks, so that nothing put in is searched for marks again."""
    import re

    return re.split("(" + "|".join(map(re.escape, marks)) + ")", template)


def _resource(name: str) -> str:
    return files("pathclip.slides").joinpath(name).read_text(encoding="utf-8")


def _base64(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype(dtype).tobytes()).decode()


def _jpeg(rgb: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()
