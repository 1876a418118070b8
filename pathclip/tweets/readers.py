"""Bytes to posts: one reader per payload shape behind one call, and the chunks a source is read in."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pathclip.core.errors import UserError
from pathclip.tweets.fields import as_id, as_mapping
from pathclip.tweets.sniff import Shape, open_source, sniff
from pathclip.tweets.table import csv_rows, is_row, parquet_rows, row
from pathclip.tweets.tweet import Fault, Row, Tweet
from pathclip.tweets.v1 import v1_posts
from pathclip.tweets.v2 import flat_posts, page_posts

__all__ = ["Chunk", "Item", "archive_media", "chunks", "read"]

Item = Tweet | Row | Fault
CHUNK_BYTES = 64 << 20
MAX_LINE_BYTES = 256 << 20
ARCHIVE_OWNER = "archive-owner"  # an archive holds one person's posts and does not repeat the id
ARCHIVE_FILE = re.compile(r"tweets?(-part\d+)?\.js$")
ARCHIVE_MEDIA = ("tweets_media", "tweet_media")
COMPLIANCE_KEYS = (
    {"action", "reason"},
    {"action", "redacted_at"},
    {"delete"},
    {"scrub_geo"},
    {"status_withheld"},
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a source that one task reads.

    Attributes:
        path: The file.
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
    """Cut a source into chunks: plain JSON lines by size, an archive by file, the rest whole.

    Raises:
        UserError: If the source is missing, empty or of no known shape.
    """
    shape = sniff(path)
    if shape == "archive":
        for file in _archive_files(path):
            yield Chunk(file, file.name, "archive_js")
    elif shape == "jsonl" and path.stat().st_size > chunk_bytes and not _is_gzip(path):
        yield from _line_chunks(path, chunk_bytes)
    else:
        yield Chunk(path, path.name, shape)


def archive_media(path: Path) -> Path | None:
    """The media folder inside a personal archive, or None."""
    data = path / "data" if (path / "data").is_dir() else path
    return next((data / name for name in ARCHIVE_MEDIA if (data / name).is_dir()), None)


def read(chunk: Chunk) -> Iterator[tuple[int, Item]]:
    """Yield ``(line number, item)`` for all that the chunk holds; a bad line is a `Fault`, no exception.

    Every line that is not blank yields at least one item.

    Raises:
        UserError: If the file as a whole cannot be read.
    """
    if chunk.shape == "parquet":
        yield from enumerate(parquet_rows(chunk.path, chunk.name), chunk.first_line)
        return
    with open_source(chunk.path) as handle:
        if chunk.shape == "csv":
            yield from enumerate(csv_rows(handle, chunk.name), chunk.first_line)
        elif chunk.shape == "jsonl":
            yield from _json_lines(handle, chunk)
        else:
            yield from _json_array(handle, chunk)


def _json_lines(handle: IO[bytes], chunk: Chunk) -> Iterator[tuple[int, Item]]:
    if chunk.start:
        handle.seek(chunk.start)
    position, number = chunk.start, chunk.first_line
    while chunk.end is None or position < chunk.end:
        source = f"{chunk.name}:{number}"
        try:
            line, size = _read_line(handle)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            yield number, Fault("parse_error", f"gzip stream damaged: {error}", source)
            return
        if not size:
            return
        position += size
        if line is None:
            yield number, Fault("parse_error", f"line of {size} bytes; at most {MAX_LINE_BYTES}", source)
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
    while piece := handle.readline(MAX_LINE_BYTES):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return None, size


def _line_items(line: bytes, source: str) -> Iterator[Item]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        yield Fault("parse_error", f"not UTF-8 at byte {error.start} of the line", source)
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        yield Fault("parse_error", f"not JSON: {error}", source)
    else:
        yield from _record_items(record, source)


def _record_items(record: Any, source: str) -> Iterator[Item]:
    """Dispatch one JSON value by the keys that only its shape has."""
    if isinstance(record, list):
        for n, inner in enumerate(record):
            yield from _record_items(inner, f"{source}#{n}")
        if not record:
            yield Fault("unknown_shape", "an empty list", source)
        return
    record = as_mapping(record)
    if isinstance(record.get("tweet"), Mapping):
        yield from v1_posts(record["tweet"], source, author_id=ARCHIVE_OWNER, own_media=True)
    elif "data" in record or "errors" in record:
        yield from page_posts(record, source)
    elif is_row(record):
        yield row(record, source)
    elif as_id(record.get("id")) and "text" in record and "user" not in record and "id_str" not in record:
        yield from flat_posts(record, source)
    elif "id_str" in record or ("user" in record and "id" in record):
        yield from v1_posts(record, source)
    elif any(keys <= record.keys() for keys in COMPLIANCE_KEYS):
        yield Fault(
            "compliance_event", f"{record.get('action', 'notice')} of {record.get('id', '?')}", source
        )
    elif as_id(record.get("id")) and set(record) <= {"id", "edit_history_tweet_ids"}:
        yield Fault("not_hydrated", "an id without its post", source)
    else:
        yield Fault("unknown_shape", f"keys: {', '.join(sorted(map(str, record))[:8]) or 'none'}", source)


def _json_array(handle: IO[bytes], chunk: Chunk) -> Iterator[tuple[int, Item]]:
    data = handle.read().decode("utf-8-sig", "replace")
    if chunk.shape == "archive_js":
        data = data.partition("=")[2]
    try:
        records = json.loads(data)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"source {chunk.path} is not valid JSON: {error}") from None
    for n, record in enumerate(records if isinstance(records, list) else [records], chunk.first_line):
        source = f"{chunk.name}:{n}"
        if chunk.shape == "archive_js" and "tweet" not in as_mapping(record):
            record = {"tweet": record}  # the oldest archives list bare posts
        for item in _record_items(record, source):
            yield n, item


def _archive_files(path: Path) -> list[Path]:
    data = path / "data" if (path / "data").is_dir() else path
    return sorted(file for file in data.glob("tweet*.js") if ARCHIVE_FILE.fullmatch(file.name))


def _line_chunks(path: Path, chunk_bytes: int) -> Iterator[Chunk]:
    """Cut at the first line after each ``chunk_bytes``; lines are counted on the way."""
    with open(path, "rb") as handle:
        start, first_line, position, number = 0, 1, 0, 1
        while size := _read_line(handle)[1]:
            if position - start >= chunk_bytes:
                yield Chunk(path, path.name, "jsonl", start, position, first_line)
                start, first_line = position, number
            position += size
            number += 1
        yield Chunk(path, path.name, "jsonl", start, None, first_line)


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as handle:
        return handle.read(2) == b"\x1f\x8b"
