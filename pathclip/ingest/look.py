"""Look at pictures: judge the size, decode once, hash and score, and store ahead what will likely be kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pathclip.core import engine
from pathclip.ingest.ahead import MAX_BYTES, Stored, write_ahead
from pathclip.ingest.config import CollectConfig
from pathclip.ingest.media import Place, safe_path
from pathclip.ingest.retry import is_size
from pathclip.ingest.tables import write_rows
from pathclip.pairs import (
    LOOK_SIDE_PX,
    Drop,
    PackConfig,
    damage,
    decode,
    find_panels,
    passed_through,
    phash,
    read_header,
    score,
    small_picture,
    stored_jpeg,
    why_phi,
)
from pathclip.tweets.packed import ZippedFile

__all__ = ["LookTask", "Scorer", "look_apart", "look_at", "look_at_many", "picture_file"]

Scorer = Callable[[Image.Image], float]
"""An upright RGB picture to the probability that it is a micrograph."""
UNSEEN: dict[str, Any] = {"phash": None, "scores": None, "panels": None}


@dataclass(frozen=True, slots=True)
class LookTask:
    """Some pictures and where their part goes.

    Attributes:
        number: Of the part.
        places: The pictures.
        roots: Folders that places count.
        parts: The folder of the parts.
        config: What is looked at.
        pack: How pictures are stored.
        ahead: Where those of ``likely`` are stored ahead.
        likely: Pictures that will likely be kept.
        known: Rows of pictures that were seen before.
        scorer: Says how likely a picture is a micrograph; picklable.
    """

    number: int
    places: tuple[Place, ...]
    roots: tuple[Path, ...]
    parts: Path
    config: CollectConfig
    pack: PackConfig
    ahead: Path
    likely: frozenset[Place]
    known: tuple[dict[str, Any], ...] = ()
    scorer: Scorer | None = None


def look_at(
    path: Path | ZippedFile,
    config: CollectConfig,
    pack: PackConfig | None = None,
    scorer: Scorer | None = None,
) -> tuple[dict[str, Any], Stored | None]:
    """Columns of ``pictures`` for one file, size judged before pixels; and the picture as it shall be stored.

    Args:
        path: The file.
        config: What is too large to be looked at.
        pack: How pictures are stored; None where it need not be stored ahead.
        scorer: Says how likely the picture is a micrograph.
    """
    try:
        size = path.stat().st_size
        if size > config.max_bytes:
            drop = Drop("image_oversized", f"{size} bytes; at most {config.max_bytes}")
            return _rejected(drop, bytes=size), None
        data = path.read_bytes()
    except OSError as error:
        return _rejected(Drop("image_unreadable", error.strerror or str(error))), None
    header = read_header(data, max_pixels=config.max_pixels)
    if isinstance(header, Drop):
        return _rejected(header, bytes=size), None
    known = {
        "bytes": size,
        "sha256": hashlib.sha256(data).hexdigest(),
        "format": header.format,
        "width": header.width,
        "height": header.height,
    }
    if header.is_animated:
        return _rejected(Drop("image_animated", f"{header.format} of several frames"), **known), None
    stored = passed_through(data, pack, header) if pack is not None else None
    is_used = config.phash or config.scores or scorer or (pack is not None and stored is None)
    image = decode(data, min_side_px=LOOK_SIDE_PX, header=header) if is_used else damage(data, header)
    if isinstance(image, Drop):
        return _rejected(image, **known), None
    looks = _looks(image, config, scorer, header.width) if image is not None else UNSEEN
    columns = {**known, "code": None, "detail": None, **looks}
    if pack is not None and stored is None:
        stored = stored_jpeg(data, pack, image, header=header)
    return columns, stored


def _looks(
    image: Image.Image, config: CollectConfig, scorer: Scorer | None, width: int = 0
) -> dict[str, Any]:
    """Columns made of the small picture, at most ``LOOK_SIDE_PX`` a side; the scorer sees the whole one.

    Args:
        image: Decoded, perhaps at a smaller scale.
        config: What is looked for.
        scorer: Says how likely it is a micrograph.
        width: Of the picture at full size, to which the boxes of panels are scaled.
    """
    if not (config.phash or config.scores or scorer):
        return UNSEEN
    small = small_picture(image)
    panels = _panels(image, config, width or image.width) if config.scores and config.panels else []
    scores: dict[str, Any] = score(small) if config.scores else {}
    if config.scores and (phi := why_phi(image)):
        scores["phi"] = phi
    if scorer is not None:
        scores["scorer"] = round(scorer(image), 4)
    return {
        "phash": phash(small) if config.phash else None,
        "scores": json.dumps(scores) if scores else None,
        "panels": json.dumps(panels) if panels else None,
    }


def _panels(image: Image.Image, config: CollectConfig, width: int) -> list[dict[str, Any]]:
    """The panels of a figure: box at full size, hash and scores of each."""
    scale, found = width / image.width, []
    for box in find_panels(image):
        small = small_picture(image.crop(box))
        found.append(
            {
                "box": [round(edge * scale) for edge in box],
                "phash": phash(small) if config.phash else None,
                "scores": score(small),
            }
        )
    return found


def look_at_many(task: LookTask) -> None:
    """Write the task's part, and before it what is stored ahead."""
    _keep_freed_memory()
    rows, ahead = _look(task)
    if ahead:
        write_ahead(task.ahead, task.number, ahead)
    write_rows(picture_file(task), "pictures", rows)


def _look(task: LookTask) -> tuple[list[dict[str, Any]], dict[str, Stored]]:
    known = {(row["root"], row["file"]): row for row in task.known}
    rows: list[dict[str, Any]] = []
    ahead: dict[str, Stored] = {}
    for place in task.places:
        path = safe_path(task.roots[place[0]], place[1])
        before, stored = known.get(place), None
        if isinstance(path, Drop):
            seen = _rejected(path)
        elif before is not None and is_size(path, before["bytes"]):
            seen = before
        else:
            seen, stored = look_at(
                path, task.config, task.pack if place in task.likely else None, task.scorer
            )
        rows.append({"root": place[0], "file": place[1], **seen})
        if stored is not None and len(stored[0]) <= MAX_BYTES:
            ahead[seen["sha256"]] = stored
    return rows, ahead


def _rows(task: LookTask) -> list[dict[str, Any]]:
    return _look(task)[0]


def look_apart(task: LookTask) -> None:
    """Look at pictures one of which kills every process that does, so that it alone is rejected."""
    write_rows(picture_file(task), "pictures", _halved(task))


def _halved(task: LookTask) -> list[dict[str, Any]]:
    if len(task.places) == 1:
        root, file = task.places[0]
        poison = Drop("image_poison", "two processes died looking at it; look at the file by itself")
        return [{"root": root, "file": file, **_rejected(poison)}]
    middle = len(task.places) // 2
    alone = replace(task, likely=frozenset())
    halves = [replace(alone, places=places) for places in (task.places[:middle], task.places[middle:])]
    looks = engine.map(_rows, halves, engine="processes", workers=1, on_lost=_halved)
    return [row for _, rows in sorted(looks, key=lambda half: half[0].places) for row in rows]


def _keep_freed_memory() -> None:
    """Let glibc hold up to twice this much for the next picture, instead of giving it back after each.

    Its threshold follows the largest block that was freed; no page of this one is touched. Saves a twentieth
    of the time. Source: mallopt(3), M_MMAP_THRESHOLD (at most 32 MiB) and M_TRIM_THRESHOLD.
    """
    np.empty(31 << 20, np.uint8)


def picture_file(task: LookTask) -> Path:
    """The task's part; it stands when all its pictures were looked at."""
    return task.parts / f"pictures-{task.number:05d}.parquet"


def _rejected(drop: Drop, **known: Any) -> dict[str, Any]:
    return {**known, "code": drop.code, "detail": drop.detail}
