"""``result.json`` of a run over many slides: how it was done, and how good it was where labels are known."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pathclip._version import __version__
from pathclip.slides.draws import draw_metrics
from pathclip.slides.tables import SEGMENT_FIT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pathclip.encoders import DualEncoder
    from pathclip.heads import Prompts
    from pathclip.slides.config import SlideConfig
    from pathclip.slides.folder import SlideRecord
    from pathclip.slides.patients import Patient

__all__ = ["write_run_result"]

log = logging.getLogger("pathclip")


def write_run_result(
    out: Path,
    records: Sequence[SlideRecord],
    patients: Sequence[Patient],
    config: SlideConfig,
    prompts: Prompts,
    model: DualEncoder,
    model_sha: str,
) -> Path:
    """Write ``OUT/result.json`` in the form all benchmarks use.

    ``metrics`` and ``intervals`` are of slides; where slides have patients, the intervals resample patients,
    and ``patients`` holds the same numbers with one label per patient.

    Args:
        out: The folder.
        records: The slides and how they ended.
        patients: The patients, where slides have one.
        config: How they were read and scored.
        prompts: The classes.
        model: The encoder.
        model_sha: Its hash.
    """
    from openslide import __library_version__

    from pathclip.heads.result import write_result

    scale = float(model.logit_scale.detach().float().exp())
    known = model.provenance()
    labels = prompts.labels
    judged = _judged(records, labels, "slide")
    quality, intervals = _quality(judged, labels, _groups(judged))
    details: dict[str, Any] = {"level": "slide"}
    if patients:
        seen = _judged(patients, labels, "patient")
        numbers, spread = _quality(seen, labels)
        counts = {"patients": len(patients), "slides": sum(p.slides for p in patients)}
        details["patients"] = {"level": "patient", "metrics": {**counts, **numbers}, "intervals": spread}
    if config.segment.label is not None:
        details["segment"] = _segments(records, config)
    if config.draws:
        details["draws"] = _draws(judged, config, labels, len(prompts.sets))
    states = {s: sum(r.state == s for r in records) for s in ("done", "failed", "empty")}
    tiles = {key: sum(getattr(record, key) for record in records) for key in ("tiles", "unreadable")}
    return write_result(
        out,
        dataset="slides",
        model=model,
        task="slide_zeroshot_classification",
        metrics={"slides": len(records), **states, **tiles, **quality},
        intervals=intervals,
        provenance={
            "model_sha256": model_sha,
            "prompts": {**prompts.to_dict(), "sha256": prompts.sha256},
            "mpp": config.mpp,
            "tile_px": config.tile_px,
            "K": list(config.top_k),
            "label_k": config.deciding_k,
            "pooling": config.pooled_how,
            "background": list(config.background),
            "smooth": config.smooth,
            "temperature": 1 / scale,
            "logit_scale": scale,
            "seed": None,
            "config": config.model_dump(mode="json"),
            "versions": {
                **(known.get("versions") or {}),
                "pathclip": __version__,
                "openslide": __library_version__,
            },
        },
        classnames=list(labels),
        details=details,
    )


def _segments(records: Sequence[SlideRecord], config: SlideConfig) -> dict[str, Any]:
    """Mean fit over the slides with a drawing; intervals resample patients where these are known."""
    from pathclip.heads.metrics import mean_interval

    asked = config.segment
    told: dict[str, Any] = {"level": "slide", "class": asked.label, "threshold": asked.threshold}
    drawn = [r for r in records if r.segment is not None and "dice" in r.segment]
    told |= {"judged": len(drawn), "metrics": {}, "intervals": {}}
    for key in SEGMENT_FIT:
        known = [r for r in drawn if r.segment is not None and r.segment[key] is not None]
        values = [float((r.segment or {})[key]) for r in known]
        if values:
            told["metrics"][key] = sum(values) / len(values)
            told["intervals"][key] = mean_interval(values, _groups(known))
    return told


def _judged(items: Sequence[Any], labels: Sequence[str], level: str) -> list[Any]:
    """The slides or patients that have a label and whose true one is a class."""
    known = [item for item in items if item.truth is not None and item.label is not None]
    strange = sorted({item.truth for item in known} - set(labels))
    if strange and level == "slide":
        log.warning("labels that are no class are not judged: %s", ", ".join(strange))
    return [item for item in known if item.truth in labels]


def _groups(judged: Sequence[SlideRecord]) -> list[str] | None:
    """Whose each slide is, for intervals that take slides of one patient for the one case that they are."""
    if all(record.patient is None for record in judged):
        return None
    return [f"patient {r.patient}" if r.patient is not None else f"slide {r.name}" for r in judged]


def _quality(
    judged: Sequence[Any], labels: Sequence[str], groups: list[str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Accuracy and its kin with intervals, over the slides or patients whose label the table states."""
    if not judged:
        return {}, {}
    from pathclip.heads import classification_metrics

    truth, found = [item.truth for item in judged], [item.label for item in judged]
    metrics, intervals = classification_metrics(truth, found, list(labels), groups=groups)
    return {"judged": len(judged), **metrics}, intervals


def _draws(
    judged: Sequence[SlideRecord], config: SlideConfig, labels: Sequence[str], num_sets: int
) -> dict[str, Any]:
    """How the slides fare under prompts drawn by chance."""
    judged = [record for record in judged if record.draws]
    by_seed = isinstance(config.draws, int)
    told = {
        "level": "slide",
        "count": config.draws if by_seed else num_sets,
        "seeds": [0, config.draws - 1] if by_seed else None,
        "judged": len(judged),
        "decided_by": config.decided_by,
    }
    if not judged:
        log.warning("draws = %s: no slide has a known label, so there is nothing to judge", config.draws)
        return told
    numbers = draw_metrics([r.truth or "" for r in judged], [r.draws for r in judged], labels)
    return {**told, "balanced_accuracy": numbers}
