"""Bytes to posts: one reader per payload shape behind one call, and the chunks a source is read in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pathclip.tweets.archive import Owner, archive_files, owner_of, with_note
from pathclip.tweets.elements import TooLong, elements
from pathclip.tweets.fields import as_id, as_mapping, is_rounded, printable
from pathclip.tweets.packed import DamagedError, is_packed, open_source, zipped_names
from pathclip.tweets.sniff import Shape, sniff
from pathclip.tweets.table import csv_items, is_row, parquet_items, row
from pathclip.tweets.tweet import Fault, Row, Tweet
from pathclip.tweets.v1 import v1_posts
from pathclip.tweets.v2 import flat_posts, page_posts

__all__ = ["Chunk", "Item", "chunks", "read"]

Item = Tweet | Row | Fault
CHUNK_BYTES = 64 << 20
MAX_LINE_BYTES = 64 << 20
SKIP_BYTES = 1 << 20
COMPLIANCE_KEYS = (
    {"action", "reason"},
    {"action", "redacted_at"},
    {"delete"},
    {"scrub_geo"},
    {"status_withheld"},
    {"user_withheld"},
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a source that one task reads.

    Attributes:
        path: The file; of one in a zip, the zip's path and the name within it.
        name: How messages call it.
        shape: What it holds.
        start: First byte; a line belongs to the chunk it starts in.
        end: Byte after the last, or None to read to the end.
        first_line: Number of the line at ``start``, from 1.
    """

    path: Path
    name: str
    shape: Shape
    start: int = 0
    end: int | None = None
    first_line: int = 1


def chunks(path: Path, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """Cut a source into chunks: plain JSON lines by size, an archive or a zip by file, the rest whole.

    Raises:
        UserError: If the source is missing, empty or of no known shape.
    """
    shape = sniff(path)
    if shape == "archive":
        for file in archive_files(path):
            yield Chunk(file, printable(file.name), "archive_js")
    elif shape == "zip":
        for name in zipped_names(path):
            inner = sniff(path / name)
            yield Chunk(path / name, printable(f"{path.name}/{name}"), inner)
    elif shape == "jsonl" and path.stat().st_size > chunk_bytes and not is_packed(path):
        yield from _line_chunks(path, chunk_bytes)
    else:
        yield Chunk(path, printable(path.name), shape)


def read(chunk: Chunk) -> Iterator[tuple[int, Item]]:
    """Yield ``(line number, item)`` for all that the chunk holds; a bad line is a `Fault`, no exception.

    Every line that is not blank yields at least one item.

    Raises:
        UserError: If the file as a whole cannot be read.
    """
    if chunk.shape == "parquet":
        yield from enumerate(parquet_items(chunk.path, chunk.name), chunk.first_line)
        return
    with open_source(chunk.path) as handle:
        last = chunk.first_line - 1
        try:
            for last, item in _items(handle, chunk):
                yield last, item
        except DamagedError as error:
            yield last + 1, Fault("parse_error", str(error), f"{chunk.name}:{last + 1}")


def _items(handle: IO[bytes], chunk: Chunk) -> Iterator[tuple[int, Item]]:
    if chunk.shape == "csv":
        yield from enumerate(csv_items(handle, chunk.name), chunk.first_line)
    elif chunk.shape == "jsonl":
        yield from _json_lines(handle, chunk)
    else:
        yield from _json_elements(handle, chunk)


def _json_lines(handle: IO[bytes], chunk: Chunk) -> Iterator[tuple[int, Item]]:
    if chunk.start:
        handle.seek(chunk.start)
    position, number = chunk.start, chunk.first_line
    while chunk.end is None or position < chunk.end:
        line, size = _read_line(handle)
        if not size:
            return
        position += size
        source = f"{chunk.name}:{number}"
        if line is None:
            yield number, _too_long(size, source)
        elif line.strip():
            for item in _line_items(line, source):
                yield number, item
        number += 1


def _read_line(handle: IO[bytes]) -> tuple[bytes | None, int]:
    """A line and its bytes; None for one that is too long to hold, read past piece by piece."""
    line = handle.readline(MAX_LINE_BYTES)
    size = len(line)
    if size < MAX_LINE_BYTES or line.endswith(b"\n"):
        return line, size
    del line
    while piece := handle.readline(SKIP_BYTES):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return None, size


def _too_long(size: int, source: str) -> Fault:
    return Fault("line_too_long", f"{size} bytes; at most {MAX_LINE_BYTES}", source)


def _line_items(line: bytes, source: str, owner: Owner | None = None) -> Iterator[Item]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        yield Fault("parse_error", f"not UTF-8 at byte {error.start} of the line", source)
    except (ValueError, RecursionError) as error:
        yield Fault("parse_error", f"not JSON: {error}", source)
    else:
        if owner is not None:
            yield from _archive_items(as_mapping(record), source, owner)
        elif isinstance(record, list):
            for n, inner in enumerate(record):
                yield from _record_items(as_mapping(inner), f"{source}#{n}")
            if not record:
                yield Fault("unknown_shape", "an empty list", source)
        else:
            yield from _record_items(as_mapping(record), source)


def _record_items(record: Mapping[str, Any], source: str) -> Iterator[Item]:
    """Dispatch one JSON value by the keys that only its shape has."""
    if isinstance(record.get("tweet"), Mapping):
        yield from _archive_items(record, source, Owner())
    elif "data" in record or "errors" in record:
        yield from page_posts(record, source)
    elif is_row(record):
        yield row(record, source)
    elif _has_id(record) and "text" in record and "user" not in record and "id_str" not in record:
        yield from flat_posts(record, source)
    elif "id_str" in record or ("user" in record and "id" in record):
        yield from v1_posts(record, source)
    elif any(keys <= record.keys() for keys in COMPLIANCE_KEYS):
        action = record.get("action")
        detail = f"{action if isinstance(action, str) else 'notice'} of {as_id(record.get('id')) or '?'}"
        yield Fault("compliance_event", printable(detail), source)
    elif _has_id(record) and set(record) <= {"id", "edit_history_tweet_ids"}:
        lost = is_rounded(record["id"])
        yield Fault("float_id" if lost else "not_hydrated", "an id without its post", source)
    else:
        keys = ", ".join(sorted(map(str, record))[:8]) or "none"
        yield Fault("unknown_shape", printable(f"keys: {keys}"), source)


def _has_id(record: Mapping[str, Any]) -> bool:
    return as_id(record.get("id")) is not None or is_rounded(record.get("id"))


def _archive_items(record: Mapping[str, Any], source: str, owner: Owner) -> Iterator[Item]:
    """An entry of a personal archive; the oldest list bare posts."""
    if owner.is_deleted:
        yield Fault("deleted_post", "deleted by its author; kept by the archive for a while", source)
        return
    post = record["tweet"] if isinstance(record.get("tweet"), Mapping) else record
    for item in v1_posts(post, source, author_id=owner.author_id, own_media=True):
        yield with_note(item, owner.notes) if isinstance(item, Tweet) else item


def _json_elements(handle: IO[bytes], chunk: Chunk) -> Iterator[tuple[int, Item]]:
    owner = owner_of(chunk.path) if chunk.shape == "archive_js" else None
    for number, element in enumerate(elements(handle, MAX_LINE_BYTES), chunk.first_line):
        source = f"{chunk.name}:{number}"
        if isinstance(element, TooLong):
            yield number, _too_long(element, source)
        else:
            for item in _line_items(element, source, owner):
                yield number, item


def _line_chunks(path: Path, chunk_bytes: int) -> Iterator[Chunk]:
    """Cut at the first line after each ``chunk_bytes``; lines are counted on the way."""
    name = printable(path.name)
    with open(path, "rb") as handle:
        start, first_line, position, number = 0, 1, 0, 1
        while size := _read_line(handle)[1]:
            if position - start >= chunk_bytes:
                yield Chunk(path, name, "jsonl", start, position, first_line)
                start, first_line = position, number
            position += size
            number += 1
        yield Chunk(path, name, "jsonl", start, None, first_line)
