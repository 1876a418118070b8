"""Tell a source's shape from its first bytes, packed or not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pathclip.core.errors import UserError
from pathclip.tweets.packed import DamagedError, is_zip, open_source, zipped_names

__all__ = ["Shape", "archive_names", "open_source", "sniff"]

Shape = Literal["jsonl", "json", "csv", "parquet", "archive_js", "archive", "zip"]
HEAD_BYTES = 1 << 16
ARCHIVE_JS = re.compile(rb"\s*(window\.YTD\.\w+\.part\d+|Grailbird\.data\.\w+)\s*=\s*\[")
ARCHIVE_FILE = re.compile(r"((?:.*/)?data/|)(?P<kind>tweets?|deleted-tweets?)(-part\d+)?\.js")
NOT_PUBLIC = re.compile(rb"deleted|circle|direct_message|like|bookmark", re.IGNORECASE)
ID_NAMES = {"id", "tweet_id", "post_id", "id_str"}
TABLES = ({"image", "caption"}, {"id", "text"})
EXPECTED = (
    "expected posts (X API v2 or v1.1 as JSON lines, a personal X archive) or a table with the columns "
    "image and caption (CSV, JSON lines or parquet)"
)
FOREIGN = (
    (b"BZh", "bzip2-compressed (gzip, zstd and zip are read)"),
    (b"\xfd7zXZ\0", "xz-compressed (gzip, zstd and zip are read)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive (gzip, zstd and zip are read)"),
    (b"PK\x03\x04", "a zip within a packed file (unpack the outer one)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\xff\xfe", "UTF-16 text (save it as UTF-8)"),
    (b"\xfe\xff", "UTF-16 text (save it as UTF-8)"),
)


def sniff(path: Path) -> Shape:
    """The shape of a source.

    Raises:
        UserError: If it is missing, empty, or none of the shapes; the message says what it looks like.
    """
    if path.is_dir():
        return _sniff_folder(path)
    if is_zip(path):
        return "archive" if archive_names(zipped_names(path)) else "zip"
    head = _head(path).removeprefix(b"\xef\xbb\xbf")
    if not head.strip():
        raise UserError(f"source {path} is empty; {EXPECTED}")
    if head.startswith(b"PAR1"):
        return "parquet"
    if ARCHIVE_JS.match(head):
        _refuse_private(path, head)
        return "archive_js"
    if foreign := _foreign(head):
        raise UserError(f"source {path} is {foreign}; {EXPECTED}")
    return _sniff_text(path, [line.strip() for line in head.splitlines() if line.strip()])


def _head(path: Path) -> bytes:
    """The first bytes, or those before the damage."""
    head = bytearray()
    with open_source(path) as handle:
        try:
            while len(head) < HEAD_BYTES and (piece := handle.read1(HEAD_BYTES)):  # type: ignore[attr-defined]
                head += piece
        except DamagedError:
            if not head:
                raise
    return bytes(head[:HEAD_BYTES])


def archive_names(names: Iterable[str]) -> list[str]:
    """Of the names in a folder or zip, those of an archive's posts and deleted posts, sorted."""
    return sorted(name for name in names if ARCHIVE_FILE.fullmatch(name))


def _sniff_text(path: Path, lines: list[bytes]) -> Shape:
    if _spans_lines(lines):
        return "json"
    if _table_names(lines[0]) is not None:
        return "csv"
    if any(line.startswith(b"{") for line in lines):
        return "jsonl"
    if _column_names(lines[0]) & ID_NAMES or all(line.isdigit() for line in lines):
        raise UserError(
            f"source {path} holds ids without posts; hydrate them first, or name the list beside the "
            f"hydrated posts with --set ids={path}"
        )
    raise UserError(f"source {path} has no known shape (it starts with {lines[0][:40]!r}); {EXPECTED}")


def _spans_lines(lines: list[bytes]) -> bool:
    """True for a list or for JSON printed over many lines; one broken line before good ones is neither."""
    opens = lines[0].startswith(b"[") or lines[0] == b"{"
    whole = [line[:1] == b"{" and line[-1:] == b"}" for line in lines[1:-1]]
    return opens and not (whole and all(whole))


def _sniff_folder(path: Path) -> Shape:
    data = path / "data" if (path / "data").is_dir() else path
    if archive_names(file.name for file in data.glob("*.js")):
        return "archive"
    raise UserError(
        f"source {path} is a folder without data/tweets.js; name the files in it, or the folder of a "
        "personal X archive"
    )


def _refuse_private(path: Path, head: bytes) -> None:
    name = head[:200].split(b"=")[0]
    if b"deleted" in name or "deleted" in path.name:
        raise UserError(f"source {path} holds deleted posts, which are never ingested; leave it out")
    if found := NOT_PUBLIC.search(name):
        raise UserError(
            f"source {path} holds what is not the author's public posts ({found[0].decode()}); leave it out"
        )


def _foreign(head: bytes) -> str | None:
    if head[257:262] == b"ustar":
        return "a tar archive"
    for magic, name in FOREIGN:
        if head.startswith(magic):
            return name
    return "binary data" if b"\0" in head[:1024] and not any(map(_is_object, head.splitlines())) else None


def _is_object(line: bytes) -> bool:
    """True for a whole JSON object: zeros before or after it are a fault of those lines."""
    try:
        return line.lstrip()[:1] == b"{" and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _table_names(line: bytes) -> set[str] | None:
    names = _column_names(line)
    return names if any(columns <= names for columns in TABLES) else None


def _column_names(line: bytes) -> set[str]:
    return {name.strip().strip('"').lower() for name in re.split(r"[,;\t]", line.decode("utf-8", "replace"))}
