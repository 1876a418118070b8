"""Pictures stored ahead: while one is decoded to be looked at, it is also encoded as it shall lie in a shard.

A store beside the parts and nothing more: what it lacks, or holds for other settings, is made again from the
picture, with the same bytes. It is gone before `index.json` stands, which a takedown asks for.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pathclip.core.files import atomic_write, read_json, write_json
from pathclip.ingest.config import IngestConfig

__all__ = ["MAX_BYTES", "Ahead", "ahead_folder", "clear_ahead", "find_ahead", "write_ahead"]

SCHEMA = "pathclip.ahead/1"
MAX_BYTES = 2 << 20
"""Larger pictures are rare and made again, so that a batch of them takes little memory."""
Stored = tuple[bytes, int, int]
"""A JPEG, its width and its height."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """Where one stored picture lies: a file, the place in it, and the picture's size."""

    path: Path
    offset: int
    size: int
    width: int
    height: int

    def read(self) -> Stored | None:
        """The picture, or None where the file is gone."""
        try:
            with open(self.path, "rb") as handle:
                handle.seek(self.offset)
                data = handle.read(self.size)
        except OSError:
            return None
        return (data, self.width, self.height) if len(data) == self.size else None


def ahead_folder(config: IngestConfig, parts: Path) -> Path:
    """One folder per setting of ``pack``, so that another one's pictures are never taken."""
    return parts / "ahead" / config.hashes()["pack"][:16]


def write_ahead(folder: Path, number: int, stored: dict[str, Stored]) -> None:
    """Write the pictures of one batch by the SHA-256 of their files: the bytes, then the list of places."""
    places, at = {}, 0
    with atomic_write(folder / f"{number:05d}.bin") as handle:
        for sha256, (jpg, width, height) in stored.items():
            handle.write(jpg)
            places[sha256] = (at, len(jpg), width, height)
            at += len(jpg)
    write_json(folder / f"{number:05d}.json", {"schema": SCHEMA, "pictures": places})


def find_ahead(folder: Path, wanted: Iterable[str]) -> dict[str, Ahead]:
    """Of the wanted pictures those that were stored ahead, by SHA-256."""
    names = set(wanted)
    found: dict[str, Ahead] = {}
    for path in sorted(folder.glob("*.json")) if names else ():
        for sha256, place in read_json(path)["pictures"].items():
            if sha256 in names:
                found[sha256] = Ahead(path.with_suffix(".bin"), *place)
    return found


def clear_ahead(parts: Path) -> None:
    """Remove all of it."""
    shutil.rmtree(parts / "ahead", ignore_errors=True)
