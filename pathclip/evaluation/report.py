"""`EvaluateReport`: what an evaluation found, and the files it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.core.files import atomic_path, atomic_write
from pathclip.encoders import BadPicture
from pathclip.evaluation.figure import confusion_png
from pathclip.evaluation.reliability_figure import reliability_png
from pathclip.evaluation.tables import write_tables
from pathclip.heads.result import write_result

__all__ = ["EvaluateReport", "Mistake"]

PREDICTIONS_SCHEMA = "pathclip.scored-predictions/1"


@dataclass(frozen=True, slots=True)
class Mistake:
    """A picture that was answered wrongly, to look at.

    Attributes:
        picture: Its path, its bytes, or what gives it when called.
        name: Its path inside the data, or its key.
        truth: Its class or caption.
        predicted: The class or caption it was given.
        note: How sure the model was, or how far down the right answer lies.
    """

    picture: Any
    name: str
    truth: str
    predicted: str
    note: str


@dataclass(frozen=True, slots=True)
class EvaluateReport:
    """One model on one benchmark.

    Attributes:
        dataset: Name of what was scored.
        task: ``zeroshot_classification``, ``zeroshot_multilabel``, ``zeroshot_retrieval``,
            ``image_retrieval`` or ``linear_probe``.
        metrics: Name to value, as in result.json.
        intervals: 95 % bootstrap interval of each.
        baselines: What the constant class and chance score.
        counts: total, scored, bad, ignored.
        bad: The pictures that could not be used, and why.
        provenance: Model, prompts, data, seed, versions.
        classnames: The classes, in the order of the matrix; empty for retrieval.
        templates: Sentences the class names were put into.
        classes: One row per class: support, precision, recall and its interval, F1.
        confusion: (C, C) counts, rows the truth; None for retrieval.
        predictions: A polars table, one row per picture.
        mistakes: The most confident, or the worst, at most two of a kind.
        files: What `save` wrote, by role.
        extra: Further keys of result.json.
    """

    dataset: str
    task: str
    metrics: dict[str, Any]
    intervals: dict[str, Any]
    baselines: dict[str, Any]
    counts: dict[str, int]
    bad: tuple[BadPicture, ...]
    provenance: dict[str, Any]
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    classes: tuple[dict[str, Any], ...] = ()
    confusion: NDArray[np.int64] | None = None
    predictions: Any = None
    mistakes: tuple[Mistake, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The object of ``--json``."""
        return {
            "dataset": self.dataset,
            "task": self.task,
            "metrics": self.metrics,
            "intervals": self.intervals,
            "baselines": self.baselines,
            "counts": self.counts,
            "bad": _bad(self.bad),
            "classnames": list(self.classnames),
            **self.extra,
            "files": self.files,
        }

    def save(self, out: str | Path) -> EvaluateReport:
        """Write predictions, picture and page, and result.json last."""
        from pathclip.evaluation.page import report_page

        out = Path(out)
        (out / "result.json").unlink(missing_ok=True)  # it would vouch for files that are being replaced
        if self.predictions is not None:
            self.files["predictions"] = out / "predictions.parquet"
            with atomic_path(self.files["predictions"]) as temporary:
                self.predictions.write_parquet(temporary, metadata={"schema": PREDICTIONS_SCHEMA})
        if self.confusion is not None:
            title = f"{self.dataset}: {self.provenance['model']}"
            self.files["confusion"] = confusion_png(
                out / "confusion.png", self.confusion, self.classnames, title=title
            )
            self.files["reliability"] = reliability_png(
                out / "reliability.png", self.extra["reliability"], ece=self.metrics["ece"], title=title
            )
            self.files.update(write_tables(out, self))
        self.files["report"] = out / "report.html"
        with atomic_write(self.files["report"], "w") as handle:
            handle.write(report_page(self))
        self.files["result"] = write_result(
            out,
            dataset=self.dataset,
            model=self.provenance["model"],
            task=self.task,
            metrics=self.metrics,
            intervals=self.intervals,
            provenance=self.provenance,
            classnames=self.classnames or None,
            templates=self.templates or None,
            details=self._details(),
        )
        return self

    def _details(self) -> dict[str, Any]:
        details: dict[str, Any] = {
            "counts": self.counts,
            "bad": _bad(self.bad),
            "baselines": self.baselines,
            **self.extra,
        }
        if self.confusion is not None:
            details |= {"confusion_matrix": self.confusion.tolist(), "classes": list(self.classes)}
        return details


def _bad(items: Sequence[BadPicture]) -> list[Mapping[str, str]]:
    return [{"name": item.name, "reason": item.reason} for item in items]
