"""The tables of a report as CSV, for whoever draws or compares them elsewhere."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathclip.core.files import atomic_write

if TYPE_CHECKING:
    from pathclip.evaluation.report import EvaluateReport

__all__ = ["write_tables"]


def write_tables(out: Path, report: EvaluateReport) -> dict[str, Path]:
    """Write metrics.csv, classes.csv, confusion.csv and reliability.csv; their paths by role."""
    names = list(report.classnames)
    assert report.confusion is not None
    constant, chance = (report.baselines[key] for key in ("constant_class", "chance"))
    metrics = [
        (name, value, *report.intervals.get(name, (None, None)), constant.get(name), chance.get(name))
        for name, value in report.metrics.items()
    ]
    classes = [
        (
            *(row[key] for key in ("label", "support", "predicted", "precision", "recall")),
            *row["recall_interval"],
            row["f1"],
        )
        for row in report.classes
    ]
    matrix = [(name, *row) for name, row in zip(names, report.confusion.tolist(), strict=True)]
    bins = [
        (*(row[key] for key in ("low", "high", "count", "confidence", "accuracy")), *row["interval"])
        for row in report.extra["reliability"]
    ]
    head = ("metric", "value", "low", "high", "constant_class", "chance")
    recall = ("recall", "recall_low", "recall_high", "f1")
    return {
        "metrics": _write(out / "metrics.csv", head, metrics),
        "classes": _write(
            out / "classes.csv", ("label", "support", "predicted", "precision", *recall), classes
        ),
        "confusion_table": _write(out / "confusion.csv", ("truth", *names), matrix),
        "reliability_table": _write(
            out / "reliability.csv",
            ("low", "high", "count", "confidence", "accuracy", "accuracy_low", "accuracy_high"),
            bins,
        ),
    }


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with atomic_write(path, "w") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
    return path
