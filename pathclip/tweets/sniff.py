"""Tell a source's shape from its first bytes, and open it whether or not it is gzipped."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from pathclip.core.errors import UserError

__all__ = ["Shape", "open_source", "sniff"]

Shape = Literal["jsonl", "json", "csv", "parquet", "archive_js", "archive"]
HEAD_BYTES = 1 << 16
ARCHIVE_JS = re.compile(rb"\s*(window\.YTD\.\w+\.part\d+|Grailbird\.data\.\w+)\s*=")
TABLE_COLUMNS = ({"image", "caption"},)
EXPECTED = (
    "expected posts (X API v2 or v1.1 as JSON lines, a personal X archive) or a table with the columns "
    "image and caption (CSV, JSON lines or parquet)"
)


@contextmanager
def open_source(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed where it is gzipped.

    Raises:
        UserError: If the file is missing or cannot be opened.
    """
    try:
        with open(path, "rb") as handle:
            if handle.read(2) == b"\x1f\x8b":
                handle.seek(0)
                with gzip.open(handle) as unzipped:
                    yield io.BufferedReader(unzipped)  # type: ignore[type-var]
            else:
                handle.seek(0)
                yield handle
    except FileNotFoundError:
        raise UserError(f"source {path} does not exist") from None
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"source {path} cannot be read: {error.strerror}") from None


def sniff(path: Path) -> Shape:
    """The shape of a source.

    Raises:
        UserError: If it is missing, empty, or none of the shapes; the message says what it looks like.
    """
    if path.is_dir():
        return _sniff_folder(path)
    try:
        with open_source(path) as handle:
            head = handle.read(HEAD_BYTES)
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"source {path} is a damaged gzip file: {error}") from None
    head = head.removeprefix(b"\xef\xbb\xbf")
    if not head.strip():
        raise UserError(f"source {path} is empty; {EXPECTED}")
    if head.startswith(b"PAR1"):
        return "parquet"
    if ARCHIVE_JS.match(head):
        _refuse_deleted(path, head)
        return "archive_js"
    if foreign := _foreign(head):
        raise UserError(f"source {path} is {foreign}; {EXPECTED}")
    lines = [line.strip() for line in head.splitlines() if line.strip()]
    if lines[0].startswith(b"["):
        return "json"
    if _has_table_header(lines[0]):
        return "csv"
    if any(line.startswith(b"{") for line in lines):
        return "jsonl"
    raise UserError(f"source {path} has no known shape (it starts with {lines[0][:40]!r}); {EXPECTED}")


def _sniff_folder(path: Path) -> Shape:
    data = path / "data" if (path / "data").is_dir() else path
    if any(data.glob("tweet*.js")):
        return "archive"
    raise UserError(
        f"source {path} is a folder without data/tweets.js; name the files in it, or the folder of a "
        "personal X archive"
    )


def _refuse_deleted(path: Path, head: bytes) -> None:
    if b"deleted" in head[:200].split(b"=")[0] or "deleted" in path.name:
        raise UserError(f"source {path} holds deleted posts, which are never ingested; leave it out")


def _foreign(head: bytes) -> str | None:
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive (unzip it and name the folder)"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd-compressed (decompress it first)"
    return "binary data" if b"\0" in head[:1024] else None


def _has_table_header(line: bytes) -> bool:
    names = {name.strip().strip('"').lower() for name in re.split(r"[,;\t]", line.decode("utf-8", "replace"))}
    return any(columns <= names for columns in TABLE_COLUMNS)
