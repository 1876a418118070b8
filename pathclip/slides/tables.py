"""Tables beside ``results.csv``: what share of the tissue is which class, and one row per patient."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathclip.core.files import atomic_write

if TYPE_CHECKING:
    from pathclip.slides.config import SlideConfig
    from pathclip.slides.folder import SlideRecord
    from pathclip.slides.patients import Patient

__all__ = ["SEGMENT_FIT", "write_fractions", "write_patients", "write_segments"]

SEGMENT_FIT = ("dice", "iou", "sensitivity", "precision", "oracle_dice")


def write_fractions(out: Path, records: Iterable[SlideRecord], labels: Sequence[str]) -> Path:
    """Write ``fractions.csv``: per slide the share and area of each class among the scored tiles.

    Args:
        out: The folder.
        records: The slides; failed ones have no row.
        labels: The classes.

    Returns:
        The file, with the columns ``slide, patient, label, tiles, mm2``, then ``share_{class}``,
        ``mm2_{class}`` and ``mean_{class}`` (mean cosine over all tiles).
    """
    header = ["slide", "patient", "label", "tiles", "mm2"]
    header += [f"{what}_{label}" for what in ("share", "mm2", "mean") for label in labels]
    return _write(
        out / "fractions.csv", header, (_fractions(r, labels) for r in records if r.state != "failed")
    )


def _fractions(record: SlideRecord, labels: Sequence[str]) -> list[Any]:
    counts = [record.class_tiles.get(label) for label in labels]
    area = record.tile_mm2
    return [
        *(record.slide, record.patient, record.label, record.tiles),
        None if area is None else record.tiles * area,
        *(None if n is None else n / record.tiles for n in counts),
        *(None if n is None or area is None else n * area for n in counts),
        *(record.means.get(label) for label in labels),
    ]


def write_patients(
    out: Path, patients: Sequence[Patient], config: SlideConfig, labels: Sequence[str]
) -> Path | None:
    """Write ``patients.csv``; where no slide has a patient, remove one that an earlier run left.

    Args:
        out: The folder.
        patients: From `pool_patients`.
        config: The K.
        labels: The classes.

    Returns:
        The file, with the columns ``patient, label, slides, missing, tiles``, then ``K{k}_{class}``,
        ``mean_{class}`` and ``share_{class}``; None without patients.
    """
    path = out / "patients.csv"
    if not patients:
        path.unlink(missing_ok=True)
        return None
    header = ["patient", "label", "slides", "missing", "tiles"]
    header += [f"K{k}_{label}" for k in config.top_k for label in labels]
    header += [f"{what}_{label}" for what in ("mean", "share") for label in labels]
    return _write(path, header, (_patient(p, config, labels) for p in patients))


def _patient(patient: Patient, config: SlideConfig, labels: Sequence[str]) -> list[Any]:
    return [
        *(patient.name, patient.label, patient.slides, patient.missing, patient.tiles),
        *(patient.scores.get(str(k), {}).get(label) for k in config.top_k for label in labels),
        *(row.get(label) for row in (patient.means, patient.fractions) for label in labels),
    ]


def write_segments(out: Path, records: Iterable[SlideRecord], config: SlideConfig) -> Path | None:
    """Write ``segments.csv``: per slide the segment's area and how well it fits the drawing.

    Args:
        out: The folder.
        records: The slides; failed ones have no row.
        config: Whether a segment is asked for; if not, a table that an earlier run left is removed.

    Returns:
        The file, with the columns ``slide, patient, segment, threshold, mm2, drawn_mm2, dice, iou,
        sensitivity, precision, oracle_dice``; None without segments.
    """
    path = out / "segments.csv"
    if config.segment.label is None:
        path.unlink(missing_ok=True)
        return None
    header = ["slide", "patient", "segment", "threshold", "mm2", "drawn_mm2", *SEGMENT_FIT]
    keys = ("label", "threshold", "mm2", "drawn_mm2", *SEGMENT_FIT)
    rows = [[r.slide, r.patient, *(r.segment.get(key) for key in keys)] for r in records if r.segment]
    return _write(path, header, rows)


def _write(path: Path, header: list[str], rows: Iterable[list[Any]]) -> Path:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with atomic_write(path, "w") as handle:
        handle.write(buffer.getvalue())
    return path
