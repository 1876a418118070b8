"""All slides of a run on one page: a picture, the label, and the way to each slide's own page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pathclip.core.files import atomic_path, atomic_write, strict_json
from pathclip.slides.colours import class_colours, css
from pathclip.slides.page import fill_template

if TYPE_CHECKING:
    from pathclip.slides.folder import OutputFolder, SlideRecord
    from pathclip.slides.patients import Patient
    from pathclip.slides.prediction import SlidePrediction

__all__ = ["COHORT_SCHEMA", "cohort_data", "write_cohort", "write_thumbnail"]

COHORT_SCHEMA = "pathclip.slide-cohort/1"
THUMBNAIL_PX = 110
MAX_PICTURES = 1000  # of about 8 kB each
SHOWN_METRICS = ("balanced_accuracy", "accuracy", "weighted_f1")


def write_thumbnail(path: Path, prediction: SlidePrediction) -> Path:
    """Write a small JPEG: the slide, and beside it the most probable class of its tiles.

    Args:
        path: The file.
        prediction: The slide.
    """
    from pathclip.slides.heatmap import class_map

    plain = Image.fromarray(prediction.slide.thumbnail.rgb)
    shown = [plain] if prediction.label is None else [plain, class_map(prediction)]
    for picture in shown:
        picture.thumbnail((THUMBNAIL_PX * 3 // 2, THUMBNAIL_PX))
    both = Image.new("RGB", (shown[0].width * len(shown) + 4 * (len(shown) - 1), shown[0].height), "white")
    for index, picture in enumerate(shown):
        both.paste(picture, (index * (picture.width + 4), 0))
    with atomic_path(path) as temporary:
        both.save(temporary, "JPEG", quality=80)
    return path


def write_cohort(
    folder: OutputFolder,
    records: Sequence[SlideRecord],
    patients: Sequence[Patient],
    labels: Sequence[str],
    result: dict[str, Any],
) -> Path:
    """Write ``OUT/index.html``: one file that asks the network for nothing and links to those beside it.

    Args:
        folder: The folder.
        records: The slides.
        patients: The patients, where slides have one.
        labels: The classes.
        result: What ``result.json`` holds.
    """
    data = cohort_data(folder, records, patients, labels, result)
    title = f"{len(records)} slides, {result['model']}"
    page = fill_template(
        "cohort.html", {"@@TITLE@@": html.escape(title), "@@DATA@@": strict_json(data)}, script="cohort.js"
    )
    with atomic_write(folder.path / "index.html", "w") as handle:
        handle.write(page)
    return folder.path / "index.html"


def cohort_data(
    folder: OutputFolder,
    records: Sequence[SlideRecord],
    patients: Sequence[Patient],
    labels: Sequence[str],
    result: dict[str, Any],
) -> dict[str, Any]:
    """What the page shows (docs/reference/schemas/slide-cohort)."""
    colours = class_colours(len(labels))
    pictured = {record.name for record in records[:MAX_PICTURES]}
    return {
        "schema": COHORT_SCHEMA,
        "model": result["model"],
        "pooling": _decides(result["provenance"]),
        "classes": [{"name": n, "colour": css(c)} for n, c in zip(labels, colours, strict=True)],
        "quality": {"slide": _quality(result), "patient": _quality(result.get("patients", {}))},
        "draws": _draws(result),
        "slides": [_slide(folder, record, record.name in pictured) for record in records],
        "patients": [
            {
                "name": p.name,
                "label": p.label,
                "truth": p.truth,
                "slides": p.slides,
                "missing": p.missing,
                "tiles": p.tiles,
                "shares": p.fractions,
            }
            for p in patients
        ],
        "pictured": len(pictured),
        "files": [n for n in _tables() if (folder.path / n).is_file()],
    }


def _decides(provenance: dict[str, Any]) -> str:
    at = f", K = {provenance['label_k']}" if provenance["config"]["pooling"] == "topk" else ""
    return f"{provenance['pooling']}{at}"


def _draws(result: dict[str, Any]) -> dict[str, float] | None:
    """The spread over draws of prompts, for what decides the labels."""
    draws = result.get("draws", {})
    if "balanced_accuracy" not in draws:
        return None
    found = draws["balanced_accuracy"][draws["decided_by"]]
    return {"count": draws["count"], **{key: found[key] for key in ("median", "q25", "q75")}}


def _tables() -> tuple[str, ...]:
    return ("results.csv", "fractions.csv", "patients.csv", "segments.csv", "status.jsonl", "result.json")


def _quality(result: dict[str, Any]) -> dict[str, Any] | None:
    metrics, intervals = result.get("metrics", {}), result.get("intervals", {})
    if "judged" not in metrics:
        return None
    shown = {name: [metrics[name], *intervals[name]] for name in SHOWN_METRICS if name in metrics}
    return {"judged": metrics["judged"], "metrics": shown}


def _slide(folder: OutputFolder, record: SlideRecord, pictured: bool) -> dict[str, Any]:
    picture = folder.thumbnail_path(record.name)
    jpeg = None
    if pictured and record.state != "failed" and picture.is_file():
        jpeg = base64.b64encode(picture.read_bytes()).decode()
    page = f"{record.name}.html"
    return {
        "name": record.name,
        "slide": record.slide,
        "page": page if record.state != "failed" and (folder.path / page).is_file() else None,
        "state": record.state,
        "reason": record.reason,
        "label": record.label,
        "truth": record.truth,
        "patient": record.patient,
        "agreement": record.agreement,
        "tiles": record.tiles,
        "unreadable": record.unreadable,
        "shares": {k: n / record.tiles for k, n in record.class_tiles.items() if n},
        "dice": (record.segment or {}).get("dice"),
        "jpeg": jpeg,
    }
