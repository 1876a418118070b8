"""``private/rejects/*.parquet``: what ended, written as it ends, so that it need not be held."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pathclip.ingest.candidates import Candidate
from pathclip.ingest.codes import stage_of
from pathclip.ingest.tables import write_rows

__all__ = ["Rejects"]

ROWS_PER_FILE = 50_000


class Rejects:
    """The folder of the rejects, emptied first; what was there belongs to another plan.

    Attributes:
        codes: Code to how many candidates ended with it.
    """

    def __init__(self, folder: Path) -> None:
        self.codes: Counter[str] = Counter()
        self._folder, self._files = folder, 0
        self._rows: list[dict[str, Any]] = []
        for path in folder.glob("rejects-*.parquet"):
            path.unlink()

    def add(self, candidate: Candidate) -> None:
        """Take a candidate that nothing can bring back."""
        row = _row(candidate)
        self.codes[row["code"]] += 1
        self._rows.append(row)
        if len(self._rows) >= ROWS_PER_FILE:
            self._write()

    def finish(self, candidates: Iterable[Candidate]) -> None:
        """Take the last ones and write what is still held; there is always at least one file."""
        for candidate in candidates:
            self.add(candidate)
        if self._rows or not self._files:
            self._write()

    def _write(self) -> None:
        self._rows.sort(key=lambda row: row["candidate_id"])
        write_rows(self._folder / f"rejects-{self._files:05d}.parquet", "rejects", self._rows)
        self._files += 1
        self._rows = []


def _row(candidate: Candidate) -> dict[str, Any]:
    assert candidate.drop is not None, f"{candidate.id} is not rejected"
    picture = candidate.picture
    sizes = {name: picture[name] for name in ("width", "height", "bytes") if picture.get(name) is not None}
    scores = sizes | json.loads(picture.get("scores") or "{}")
    return {
        "candidate_id": candidate.id,
        "tweet_id": candidate.tweet_id,
        "media_key": candidate.media_key,
        "stage": stage_of(candidate.drop.code),
        "code": candidate.drop.code,
        "detail": candidate.drop.detail,
        "source": candidate.source,
        "scores": json.dumps(scores),
    }
