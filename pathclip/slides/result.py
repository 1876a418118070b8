"""``result.json`` of a run over many slides: how it was done, and how good it was where labels are known."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pathclip._version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pathclip.encoders import DualEncoder
    from pathclip.heads import Prompts
    from pathclip.slides.config import SlideConfig
    from pathclip.slides.folder import SlideRecord

__all__ = ["write_run_result"]

log = logging.getLogger("pathclip")


def write_run_result(
    out: Path,
    records: Sequence[SlideRecord],
    config: SlideConfig,
    prompts: Prompts,
    model: DualEncoder,
    model_sha: str,
) -> Path:
    """Write ``OUT/result.json`` in the form all benchmarks use.

    Args:
        out: The folder.
        records: The slides and how they ended.
        config: How they were read and scored.
        prompts: The classes.
        model: The encoder.
        model_sha: Its hash.
    """
    from openslide import __library_version__

    from pathclip.heads.result import write_result

    scale = float(model.logit_scale.detach().float().exp())
    known = model.provenance()
    quality, intervals = _quality(records, prompts)
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
            "pooling": "mean of the K best tiles per class (MI-Zero)",
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
        classnames=list(prompts.labels),
    )


def _quality(records: Sequence[SlideRecord], prompts: Prompts) -> tuple[dict[str, Any], dict[str, Any]]:
    """Accuracy and its kin with intervals, over the slides whose label the table states."""
    judged = [r for r in records if r.truth is not None and r.label is not None]
    strange = sorted({r.truth for r in judged} - set(prompts.labels))
    if strange:
        log.warning("labels that are no class are not judged: %s", ", ".join(strange))
    judged = [r for r in judged if r.truth in prompts.labels]
    if not judged:
        return {}, {}
    from pathclip.heads import classification_metrics

    truth, found = [r.truth for r in judged], [r.label for r in judged]
    metrics, intervals = classification_metrics(truth, found, list(prompts.labels))
    return {"judged": len(judged), **metrics}, intervals
