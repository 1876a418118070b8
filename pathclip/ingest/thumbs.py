"""A few small pictures for every way a candidate can end: what ``report.html`` shows, kept as a table."""

from __future__ import annotations

import hashlib
import heapq
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from pathclip.ingest.candidates import Candidate
from pathclip.ingest.codes import Code
from pathclip.ingest.media import safe_path
from pathclip.ingest.tables import write_rows
from pathclip.pairs import Drop, read_header

__all__ = ["KEPT", "write_thumbs"]

PER_CODE = 12
SIDE_PX = 160
KEPT = "kept"
MAX_PIXELS, MAX_BYTES = 64_000_000, 25_000_000


def write_thumbs(path: Path, candidates: Iterable[Candidate], roots: list[Path]) -> None:
    """Write ``thumbs.parquet``: up to twelve candidates with a picture per code, and twelve that were kept.

    Which ones does not depend on the order of the input. Pictures that cannot be shown have no bytes.
    """
    chosen: dict[str, list[Candidate]] = defaultdict(list)
    for code, candidate in _smallest(candidates):
        chosen[code].append(candidate)
    rows = [_row(code, c, roots) for code in sorted(chosen) for c in chosen[code]]
    write_rows(path, "thumbs", rows)


def _smallest(candidates: Iterable[Candidate]) -> Iterator[tuple[str, Candidate]]:
    heaps: dict[str, list[tuple[int, str, Candidate]]] = defaultdict(list)
    for candidate in candidates:
        if candidate.place is None:
            continue
        code = candidate.drop.code if candidate.drop is not None else KEPT
        mark = -int.from_bytes(hashlib.blake2b(candidate.id.encode(), digest_size=8).digest(), "big")
        entry = (mark, candidate.id, candidate)
        (heapq.heappush if len(heaps[code]) < PER_CODE else heapq.heappushpop)(heaps[code], entry)
    for code, heap in heaps.items():
        yield from ((code, entry[2]) for entry in sorted(heap, reverse=True))


def _row(code: str, candidate: Candidate, roots: list[Path]) -> dict[str, Any]:
    assert candidate.place is not None
    root, file = candidate.place
    path = safe_path(roots[root], file)
    is_poison = candidate.picture.get("code") == Code.IMAGE_POISON  # it would end this process too
    return {
        "code": code,
        "candidate_id": candidate.id,
        "source": candidate.source,
        "note": candidate.captions[0].text
        if code == KEPT
        else (candidate.drop.detail if candidate.drop else ""),
        "width": candidate.picture.get("width"),
        "height": candidate.picture.get("height"),
        "jpg": None if isinstance(path, Drop) or is_poison else _thumbnail(path),
    }


def _thumbnail(path: Path) -> bytes | None:
    """A small JPEG, or None where the file does not decode or is too large to try."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
        if isinstance(read_header(data, max_pixels=MAX_PIXELS), Drop):
            return None
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (2 * SIDE_PX, 2 * SIDE_PX))
            small = ImageOps.exif_transpose(image).convert("RGB")
        small.thumbnail((SIDE_PX, SIDE_PX))
        out = io.BytesIO()
        small.save(out, "JPEG", quality=80)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return out.getvalue()
