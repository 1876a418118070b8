"""Start over without losing what stands: a new generation is built inside and moved in at the end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["clear_leftovers", "swap_in"]

FOLDERS = ("shards", "private/parts", "private/rejects")
PRIVATE = (
    "private/key",
    "private/plan.parquet",
    "private/provenance.parquet",
    "private/thumbs.parquet",
    "private/report.html",
    "private/run.json",
)
PUBLIC = ("report.json", "README.md", "croissant.json", "index.json")


def clear_leftovers(out: Path) -> None:
    """Remove what a killed run was writing: temporary files, a generation half built or half moved away."""
    for folder in (out, *(out / name for name in ("shards", "private", "private/parts", "private/rejects"))):
        for path in folder.glob(".*.part"):
            path.unlink(missing_ok=True)
    for name in (".new", ".old"):
        shutil.rmtree(out / name, ignore_errors=True)


def swap_in(out: Path, fresh: Path) -> None:
    """Move a whole generation from ``fresh`` to ``out``.

    ``index.json`` leaves first and comes last, so no reader meets a mixture. What a generation does not hold
    (tombstones, files of the user) stays where it is.
    """
    (out / "index.json").unlink(missing_ok=True)
    (out / "private" / "run.json").unlink(missing_ok=True)
    old = out / ".old"
    (old / "private").mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        if (out / name).exists():
            os.replace(out / name, old / name)
        if (fresh / name).exists():
            os.replace(fresh / name, out / name)
    for name in (*PRIVATE, *PUBLIC):
        if (fresh / name).exists():
            os.replace(fresh / name, out / name)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(fresh, ignore_errors=True)
