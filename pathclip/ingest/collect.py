"""Phase A: read every line and look at every picture, chunk by chunk, into ``private/parts``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pathclip.core import engine
from pathclip.core.errors import UserError
from pathclip.core.files import atomic_write
from pathclip.core.progress import track
from pathclip.ingest.ahead import MAX_BYTES, Stored, ahead_folder, write_ahead
from pathclip.ingest.config import CollectConfig, IngestConfig
from pathclip.ingest.media import MediaFolders, Place, safe_path
from pathclip.ingest.privacy import without_names
from pathclip.ingest.tables import items_to_tables, read_rows, rows_to_tweets, write_rows
from pathclip.ingest.tombstones import Tombstones
from pathclip.pairs import (
    LOOK_SIDE_PX,
    Drop,
    PackConfig,
    decode,
    passed_through,
    phash,
    read_header,
    small_picture,
    stored_jpeg,
)
from pathclip.tweets import Chunk, Row, Tweet, archive_media, chunks, read

__all__ = ["Collected", "collect", "look_at", "media_roots"]

PICTURES_PER_TASK = 64
ANY_SIDE_PX = 1  # the least decoding that tells whether a picture is whole


@dataclass(frozen=True, slots=True)
class Collected:
    """What phase A left behind.

    Attributes:
        parts: The folder of the parts.
        folders: Where pictures lie.
        folders_of_tables: Chunk number to the folder its rows name files in.
        lines: Lines that are not blank.
    """

    parts: Path
    folders: MediaFolders
    folders_of_tables: dict[int, int]
    lines: int

    def files(self, table: str) -> list[Path]:
        """The parts of one table, in order."""
        return sorted(self.parts.glob(f"{table}-*.parquet"))

    def posts(self) -> Iterator[Tweet]:
        """Every post read, repeats included."""
        return rows_to_tweets(read_rows(self.files("posts")))

    def rows(self) -> Iterator[tuple[Row, Place | Drop]]:
        """Every table row, and where its picture should lie."""
        for path in self.files("rows"):
            folder = self.folders_of_tables[int(path.stem.rpartition("-")[2])]
            for values in read_rows([path]):
                yield Row(**values), self.folders.of_row(values["image"], folder)


@dataclass(frozen=True, slots=True)
class ReadTask:
    """One chunk of input, where its parts go, and what may not come back."""

    number: int
    chunk: Chunk
    parts: Path
    gone: Tombstones


@dataclass(frozen=True, slots=True)
class LookTask:
    """Some pictures and where their part goes; those of ``likely`` are also stored ahead in ``ahead``."""

    number: int
    places: tuple[Place, ...]
    roots: tuple[Path, ...]
    parts: Path
    config: CollectConfig
    pack: PackConfig
    ahead: Path
    likely: frozenset[Place]


def collect(
    config: IngestConfig,
    parts: Path,
    gone: Tombstones | None = None,
    likely: Callable[[Collected], set[Place]] | None = None,
) -> Collected:
    """Read all sources, find the pictures they name, look at each once.

    A part that exists is not made again, so a killed run goes on where it was. Of what was taken down only
    the place is kept (a fault ``taken_down``); names of accounts are not kept at all.

    Args:
        config: Of the whole ingest.
        parts: The folder of the parts.
        gone: What was taken down.
        likely: Tells which pictures will likely be kept: they are stored ahead, so that the shards need no
            second decode. It changes no result.

    Raises:
        UserError: If a source is missing, empty or of no known shape, or holds nothing at all.
    """
    parts.mkdir(parents=True, exist_ok=True)
    gone = gone or Tombstones()
    read_tasks = [ReadTask(n, chunk, parts, gone) for n, chunk in enumerate(_all_chunks(config.sources))]
    todo = [task for task in read_tasks if not _lines_file(task).is_file()]
    for _ in track(engine.map(_read_chunk, todo, **config.engine_for(todo)), "input chunks", len(todo)):
        pass
    lines = sum(int(_lines_file(task).read_text()) for task in read_tasks)
    if lines == 0:
        raise UserError(f"{', '.join(map(str, config.sources))}: nothing to read, every line is blank")
    collected = _with_folders(config, read_tasks, parts, lines)
    look_tasks = list(_look_tasks(config, collected))
    todo_looks = [task for task in look_tasks if not _picture_file(task).is_file()]
    if likely is not None and todo_looks:
        wanted = likely(collected)
        todo_looks = [replace(task, likely=wanted.intersection(task.places)) for task in todo_looks]
    looks = engine.map(_look_at_many, todo_looks, **config.engine_for(todo_looks))
    for _ in track(looks, "batches of pictures", len(todo_looks)):
        pass
    return collected


def media_roots(config: IngestConfig) -> list[Path]:
    """The folders that attachments are searched in: ``--media`` and those of archives."""
    roots = [config.media] if config.media is not None else []
    for source in config.sources:
        inside = archive_media(source) if source.is_dir() else None
        if inside is not None:
            roots.append(inside)
    return roots


def look_at(
    path: Path, config: CollectConfig, pack: PackConfig | None = None
) -> tuple[dict[str, Any], Stored | None]:
    """Columns of ``pictures`` for one file, size judged before pixels; and the picture as it shall be stored.

    Args:
        path: The file.
        config: What is too large to be looked at.
        pack: How pictures are stored; None where it need not be stored ahead.
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
    stored = passed_through(data, pack) if pack is not None else None
    is_used = config.phash or (pack is not None and stored is None)
    image = decode(data, min_side_px=LOOK_SIDE_PX if is_used else ANY_SIDE_PX, header=header)
    if isinstance(image, Drop):
        return _rejected(image, **known), None
    columns = {**known, "code": None, "detail": None, **_looks(image, config)}
    return columns, stored_jpeg(data, pack, image) if pack is not None and stored is None else stored


def _looks(image: Image.Image, config: CollectConfig) -> dict[str, Any]:
    """Columns made of the small picture, at most ``LOOK_SIDE_PX`` a side."""
    if not config.phash:
        return {"phash": None}
    small = small_picture(image)
    return {"phash": phash(small)}


def _with_folders(config: IngestConfig, tasks: list[ReadTask], parts: Path, lines: int) -> Collected:
    """Tables name files relative to ``--media``, or to their own folder where none is given."""
    roots = media_roots(config)
    tables = [task for task in tasks if (parts / f"rows-{task.number:05d}.parquet").is_file()]
    if config.media is not None:
        return Collected(parts, MediaFolders(roots), {task.number: 0 for task in tables}, lines)
    beside = sorted({task.chunk.path.parent for task in tables})
    numbers = {task.number: len(roots) + beside.index(task.chunk.path.parent) for task in tables}
    return Collected(parts, MediaFolders(roots, beside), numbers, lines)


def _rejected(drop: Drop, **known: Any) -> dict[str, Any]:
    return {**known, "code": drop.code, "detail": drop.detail}


def _all_chunks(sources: Iterable[Path]) -> Iterator[Chunk]:
    """Chunks of all sources; where two sources share a file name, messages give more of the path."""
    found = [chunk for source in sources for chunk in chunks(source)]
    paths: dict[str, set[Path]] = {}
    for chunk in found:
        paths.setdefault(chunk.name, set()).add(chunk.path)
    for chunk in found:
        shared = len(paths[chunk.name]) > 1
        yield replace(chunk, name=chunk.path.as_posix()) if shared else chunk


def _read_chunk(task: ReadTask) -> None:
    """Write the chunk's posts, rows and faults, and last of all how many lines it had."""
    last, lines = None, 0
    items = []
    for number, item in read(task.chunk):
        lines += number != last
        last = number
        items.append(task.gone.obey(without_names(item)))
    for table, rows in items_to_tables(items).items():
        if rows:
            write_rows(task.parts / f"{table}-{task.number:05d}.parquet", table, rows)
    with atomic_write(_lines_file(task), "w") as handle:
        handle.write(str(lines))


def _lines_file(task: ReadTask) -> Path:
    return task.parts / f"chunk-{task.number:05d}.lines"


def _look_tasks(config: IngestConfig, collected: Collected) -> Iterator[LookTask]:
    places = sorted(set(_places(collected)))
    for number, start in enumerate(range(0, len(places), PICTURES_PER_TASK)):
        batch = tuple(places[start : start + PICTURES_PER_TASK])
        yield LookTask(
            number,
            batch,
            tuple(collected.folders.roots),
            collected.parts,
            config.collect,
            config.pack,
            ahead_folder(config, collected.parts),
            frozenset(),
        )


def _places(collected: Collected) -> Iterator[Place]:
    for tweet in collected.posts():
        for media in tweet.media:
            place = collected.folders.of_post(tweet.id, media)
            if not isinstance(place, Drop):
                yield place
    yield from (place for _, place in collected.rows() if not isinstance(place, Drop))


def _look_at_many(task: LookTask) -> None:
    _keep_freed_memory()
    rows = []
    ahead: dict[str, Stored] = {}
    for place in task.places:
        path = safe_path(task.roots[place[0]], place[1])
        pack = task.pack if place in task.likely else None
        seen, stored = (_rejected(path), None) if isinstance(path, Drop) else look_at(path, task.config, pack)
        rows.append({"root": place[0], "file": place[1], **seen})
        if stored is not None and len(stored[0]) <= MAX_BYTES:
            ahead[seen["sha256"]] = stored
    if ahead:
        write_ahead(task.ahead, task.number, ahead)
    write_rows(_picture_file(task), "pictures", rows)


def _keep_freed_memory() -> None:
    """Let glibc hold up to twice this much for the next picture, instead of giving it back after each.

    Its threshold follows the largest block that was freed; no page of this one is touched. Saves a twentieth
    of the time. Source: mallopt(3), M_MMAP_THRESHOLD (at most 32 MiB) and M_TRIM_THRESHOLD.
    """
    np.empty(31 << 20, np.uint8)


def _picture_file(task: LookTask) -> Path:
    return task.parts / f"pictures-{task.number:05d}.parquet"
