"""``--retry-failed``: look again at pictures that were missing or unreadable, and at no others."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pathclip.ingest.codes import Code
from pathclip.ingest.media import Place
from pathclip.ingest.tables import read_rows
from pathclip.tweets.packed import ZippedFile

__all__ = ["TRANSIENT", "failures", "forget_known", "is_size", "known_pictures", "set_aside"]

TRANSIENT = (
    Code.IMAGE_MISSING,
    Code.MEDIA_UNLISTED,
    Code.IMAGE_UNREADABLE,
    Code.IMAGE_POISON,
    Code.DOWNLOAD_FAILED,
    Code.DOWNLOAD_SLOW,
)
"""Reasons that may be gone tomorrow: a mount that was away, a read error, a full memory."""


def failures(report: Mapping[str, Any]) -> int:
    """Candidates that a report counts under a reason that may pass."""
    return sum(report["by_code"].get(code, 0) for code in TRANSIENT)


def set_aside(parts: Path) -> None:
    """Take the pictures' parts out of the way; what they say of files that are unchanged is used again.

    May be killed anywhere: a part that is lost on the way is made again.
    """
    aside = parts / "looked"
    first = not aside.exists()
    aside.mkdir(exist_ok=True)
    for path in sorted(parts.glob("pictures-*.parquet")):
        path.rename(aside / path.name) if first else path.unlink()


def known_pictures(parts: Path) -> dict[Place, dict[str, Any]]:
    """What was seen of pictures before, without those whose file could not be read."""
    rows = read_rows(sorted((parts / "looked").glob("pictures-*.parquet")))
    return {(row["root"], row["file"]): row for row in rows if row["bytes"] is not None}


def is_size(path: Path | ZippedFile, size: int) -> bool:
    """True if the file can be asked and has this many bytes."""
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def forget_known(parts: Path) -> None:
    """The new parts stand: drop what was set aside."""
    shutil.rmtree(parts / "looked", ignore_errors=True)
