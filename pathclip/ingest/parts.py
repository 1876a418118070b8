"""Figures in the plan: which of their panels become samples of their own."""

from __future__ import annotations

import json
from typing import Any

from pathclip.ingest.candidates import Candidate, Panel
from pathclip.ingest.config import IngestConfig
from pathclip.pairs import Drop, FittedFilter, is_positional, why_no_micrograph

__all__ = ["find_parts"]


def find_parts(candidate: Candidate, config: IngestConfig, fitted: FittedFilter | None) -> None:
    """Count the panels of a candidate's picture and, with ``split``, take those that may be micrographs.

    A figure with a panel below ``image.min_side_px`` stays whole, and so does one without any panel to take.
    """
    found: list[dict[str, Any]] = json.loads(candidate.picture["panels"] or "[]")
    candidate.num_panels = len(found)
    if config.image.panels != "split" or any(_is_small(p["box"], config) for p in found):
        return
    candidate.panels = tuple(
        Panel(number, tuple(p["box"]), p["phash"])
        for number, p in enumerate(found, 1)
        if not _is_other(p["scores"], config, fitted)
    )
    if candidate.panels and config.caption.positional == "drop":
        candidate.captions = tuple(c for c in candidate.captions if not is_positional(c.text))
        if not candidate.captions:
            candidate.reject(Drop("no_caption", "tells the panels of a figure apart by place"))


def _is_small(box: list[int], config: IngestConfig) -> bool:
    left, top, right, bottom = box
    return min(right - left, bottom - top) < config.image.min_side_px


def _is_other(scores: dict[str, Any], config: IngestConfig, fitted: FittedFilter | None) -> bool:
    """True for a panel that the filters of whole pictures would reject: a chart beside a micrograph."""
    if config.filter.pictures == "reject" and why_no_micrograph(scores) is not None:
        return True
    return fitted is not None and fitted.why_rejected(scores) is not None
