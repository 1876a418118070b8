"""A side file that describes attachments by media key, for dumps that were saved without their includes."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pathclip.core.errors import UserError
from pathclip.tweets.elements import elements
from pathclip.tweets.fields import as_id, as_list, as_mapping, as_text, is_rounded, printable
from pathclip.tweets.packed import open_seekable, open_source
from pathclip.tweets.tweet import Media, Tweet

__all__ = ["described", "read_media_table"]

MAX_ENTRY_BYTES = 1 << 24
FILE_NAMES = ("file", "path", "filename", "image")
URL_NAMES = ("url", "preview_image_url", "media_url_https")


def described(post: Tweet, table: Mapping[str, Media]) -> Tweet:
    """The post with what the table knows of its attachments; the payload's own words win."""
    if not any(m.key in table for m in post.media):
        return post
    return replace(
        post, media=tuple(_completed(m, table[m.key]) if m.key in table else m for m in post.media)
    )


@functools.lru_cache(maxsize=2)
def read_media_table(path: Path) -> Mapping[str, Media]:
    """Media key to its description; of several the first counts. Held in memory, about 500 bytes each.

    JSON (objects with ``media_key`` and ``url``, ``file``, ``type``, ``alt_text``; response pages with
    ``includes.media`` do as well), CSV or parquet with these columns; packed or not.

    Raises:
        UserError: If it cannot be read, or an entry has no media key.
    """
    found: dict[str, Media] = {}
    for place, record in _records(path):
        key = None if is_rounded(record.get("media_key")) else as_id(record.get("media_key"))
        if key is None:
            raise UserError(f"media table {path}, {place}: no media_key; expected one in every entry")
        found.setdefault(key, _media(key, record))
    if not found:
        raise UserError(f"media table {path} is empty; expected entries with media_key and url or file")
    return found


def _media(key: str, record: Mapping[str, Any]) -> Media:
    file = next((f for f in (as_text(record.get(n)) for n in FILE_NAMES) if f), None)
    return Media(
        key=key,
        kind=as_text(record.get("type")) or as_text(record.get("kind")) or "photo",
        url=next((u for u in (as_text(record.get(n)) for n in URL_NAMES) if u), None),
        alt_text=as_text(record.get("alt_text")),
        path=PurePosixPath(file.replace("\\", "/")).name if file else None,
    )


def _completed(media: Media, known: Media) -> Media:
    return Media(
        key=media.key,
        kind=known.kind if media.kind == "unlisted" else media.kind,
        url=media.url or known.url,
        alt_text=media.alt_text or known.alt_text,
        path=media.path or known.path,
    )


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with open_source(path) as handle:
        head = handle.peek(4)[:4] if isinstance(handle, io.BufferedReader) else b""
        if head.startswith(b"PAR1"):
            yield from _of_parquet(path)
        elif head.lstrip(b"\xef\xbb\xbf \n")[:1] in (b"{", b"["):
            yield from _of_json(path, handle)
        else:
            yield from _of_csv(path, handle)


def _of_json(path: Path, handle: IO[bytes]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, element in enumerate(elements(handle, MAX_ENTRY_BYTES), 1):
        place = f"entry {number}"
        try:
            record = as_mapping(
                json.loads(element.decode("utf-8-sig")) if isinstance(element, bytes) else None
            )
        except (ValueError, RecursionError) as error:
            raise UserError(f"media table {path}, {place} is not JSON: {printable(str(error))}") from None
        inside = as_list(as_mapping(record.get("includes")).get("media"))
        yield from ((place, as_mapping(one)) for one in inside or [record])


def _of_csv(path: Path, handle: IO[bytes]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    text = io.TextIOWrapper(handle, encoding="utf-8-sig", errors="strict", newline="")
    header = text.readline(1 << 16)
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
    try:
        for number, values in enumerate(csv.reader(text, delimiter=delimiter), 2):
            if values:
                yield f"line {number}", dict(zip(names, values, strict=False))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"media table {path} cannot be read: {printable(str(error))}") from None
    finally:
        text.detach()


def _of_parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_seekable(path) as handle:
        try:
            rows = pq.read_table(handle).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"media table {path} cannot be read: {printable(str(error))}") from None
    yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))
