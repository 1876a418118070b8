"""``result.json``: what every benchmark writes, in clip_benchmark's keys plus how it was obtained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pathclip.core.files import write_json

__all__ = ["RESULT_SCHEMA", "write_result"]

RESULT_SCHEMA = "pathclip.result/1"


class HasProvenance(Protocol):
    """A model that says how its features are obtained, as `DualEncoder` does."""

    def provenance(self) -> dict[str, Any]:
        """At least model, pretrained and checkpoint_sha256."""


def write_result(
    folder: str | Path,
    *,
    dataset: str | None,
    model: HasProvenance | str,
    task: str,
    metrics: Mapping[str, Any],
    intervals: Mapping[str, Any],
    provenance: Mapping[str, Any],
    classnames: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    language: str = "en",
    details: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``folder/result.json``: strict JSON (null, not NaN) that ``clip_benchmark build`` reads too.

    Args:
        folder: Created if need be.
        dataset: Name of what was scored; None where no benchmark stands behind the pictures.
        model: The model, whose provenance is merged below ``provenance``; or its name.
        task: For example ``zeroshot_classification`` or ``zeroshot_retrieval``.
        metrics: Name to value.
        intervals: Name to (low, high).
        provenance: What makes the number repeatable: prompts, seed, K, mpp, versions and so on.
        classnames: In the order of the classes.
        templates: With ``{}`` for the class name.
        language: Of the prompts.
        details: Further keys of the file, for example ``baselines`` and ``confusion_matrix``.

    Returns:
        The path of the file.
    """
    known = {"model": model} if isinstance(model, str) else model.provenance()
    merged = {**known, **provenance}
    record: dict[str, Any] = {
        "schema": RESULT_SCHEMA,
        "dataset": dataset,
        "model": str(merged["model"]),
        "pretrained": str(merged.get("pretrained") or ""),  # clip_benchmark joins the two as text
        "task": task,
        "metrics": dict(metrics),
        "language": language,
        **({} if classnames is None else {"classnames": list(classnames)}),
        **({} if templates is None else {"templates": list(templates)}),
        "intervals": {name: value for name, value in intervals.items()},
        "provenance": merged,
    }
    clash = record.keys() & (details or {}).keys()
    assert not clash, f"details would replace {sorted(clash)}"
    path = Path(folder) / "result.json"
    write_json(path, {**record, **(details or {})})
    return path
