"""Slides of one patient as one case: the tiles of all of them, pooled together.

The records of the slides hold what is needed, so no slide is opened again.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pathclip.slides.summary import TileSummary, pool

if TYPE_CHECKING:
    from pathclip.slides.config import SlideConfig
    from pathclip.slides.folder import SlideRecord

__all__ = ["Patient", "pool_patients"]

log = logging.getLogger("pathclip")


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient's answer.

    Attributes:
        name: As in the slide table.
        slides: How many of the slides were scored.
        missing: How many failed or have no tissue, and are left out.
        tiles: Tiles of the scored slides.
        label: The best class under ``SlideConfig.pooling``; None where no slide was scored.
        truth: The known label, where all slides that state one agree.
        scores: K to class to mean cosine of its K best tiles over all slides.
        means: Class to mean cosine over all tiles.
        fractions: Class to share of all tiles of which it is the most probable.
    """

    name: str
    slides: int
    missing: int
    tiles: int = 0
    label: str | None = None
    truth: str | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    fractions: dict[str, float] = field(default_factory=dict)


def pool_patients(
    records: Iterable[SlideRecord], config: SlideConfig, labels: Sequence[str]
) -> tuple[Patient, ...]:
    """Pool over the tiles of all slides of a patient, as if they lay on one slide.

    Args:
        records: The slides; those without a patient are no one's.
        config: The K and what decides.
        labels: The classes.

    Returns:
        One per patient, in the order of their first slides.
    """
    groups: dict[str, list[SlideRecord]] = {}
    for record in records:
        if record.patient is not None:
            groups.setdefault(record.patient, []).append(record)
    return tuple(_pooled(name, group, config, labels) for name, group in groups.items())


def _pooled(name: str, group: list[SlideRecord], config: SlideConfig, labels: Sequence[str]) -> Patient:
    scored = [record for record in group if record.best is not None]
    truth = _truth(name, group)
    if not scored:
        return Patient(name, 0, len(group), truth=truth)
    summary = TileSummary.of_all([_summary(record, labels) for record in scored])
    pooled = pool(summary, config.top_k)
    winner = pooled.winners(config.background_columns(labels))[config.decided_by]

    def named(row: np.ndarray) -> dict[str, float]:
        return dict(zip(labels, map(float, row), strict=True))

    return Patient(
        name=name,
        slides=len(scored),
        missing=len(group) - len(scored),
        tiles=summary.tiles,
        label=labels[winner],
        truth=truth,
        scores={str(k): named(row) for k, row in zip(config.top_k, pooled.top_k, strict=True)},
        means=named(pooled.means),
        fractions=named(pooled.fractions),
    )


def _summary(record: SlideRecord, labels: Sequence[str]) -> TileSummary:
    best = np.frombuffer(base64.b64decode(record.best or ""), "<f4").reshape(-1, len(labels))
    sums = np.array([record.means[label] for label in labels]) * record.tiles
    return TileSummary(best, sums, np.array([record.class_tiles[label] for label in labels]))


def _truth(name: str, group: list[SlideRecord]) -> str | None:
    stated = list(dict.fromkeys(record.truth for record in group if record.truth is not None))
    if len(stated) > 1:
        log.warning("patient %s: its slides have the labels %s; it is not judged", name, " and ".join(stated))
    return stated[0] if len(stated) == 1 else None
