"""Fields of foreign JSON: the wanted kind of value, or nothing. A payload may omit or null any field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = [
    "as_bool",
    "as_count",
    "as_id",
    "as_list",
    "as_mapping",
    "as_text",
    "basename",
    "is_rounded",
    "looks_cut",
    "looks_retweeted",
    "printable",
    "utc",
]

EMPTY: Mapping[str, Any] = {}
MAX_EXACT_FLOAT = 2**53
RETWEET = re.compile(r"\s*RT @\w{1,20}:", re.ASCII)
ROUNDED = re.compile(r"\d+(\.\d+)?[eE]\+?\d+|\d+\.\d*")
DETAIL_CHARACTERS = 200
CUT = re.compile(r"…(\s*https?://t\.co/\w+)*\s*$")


def as_mapping(value: Any) -> Mapping[str, Any]:
    """The mapping, or an empty one."""
    return value if isinstance(value, Mapping) else EMPTY


def as_list(value: Any) -> Sequence[Any]:
    """The list, or an empty one."""
    return value if isinstance(value, list | tuple) else ()


def as_text(value: Any) -> str | None:
    """The text, stripped, or None where it is no text or empty; lone surrogates are dropped."""
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "ignore").decode().strip() or None


def as_id(value: Any) -> str | None:
    """An id as text. Floats above 2**53 have lost digits and count as absent, written out as text too."""
    if isinstance(value, str):
        if value.isdecimal():
            return value
        text = as_text(value)
        return as_id(float(text)) if text and ROUNDED.fullmatch(text) else text
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) <= MAX_EXACT_FLOAT else None
    return str(value) if isinstance(value, int) else None


def is_rounded(value: Any) -> bool:
    """True for an id that went through a float and lost its last digits, as a number or as text."""
    if isinstance(value, str):
        if value.isdecimal():
            return False
        text = value.strip()
        return ROUNDED.fullmatch(text) is not None and as_id(text) is None
    return isinstance(value, float) and abs(value) > MAX_EXACT_FLOAT


def printable(text: str) -> str:
    """A message in one line that any file can hold: no lone surrogates, at most 200 characters."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return line if len(line) <= DETAIL_CHARACTERS else f"{line[:DETAIL_CHARACTERS]}…"


def as_count(value: Any) -> int:
    """A count that may be a number or digits in a text; 0 where it is neither."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else 0
    return int(value) if isinstance(value, int | float) and abs(value) < 2**62 else 0


def as_bool(value: Any) -> bool:
    """True for true and the text "true"."""
    return value is True or (isinstance(value, str) and value.lower() == "true")


def utc(value: Any) -> str | None:
    """A time in either of the platform's spellings as ISO 8601 in UTC; None where it is none."""
    text = as_text(value)
    if text is None:
        return None
    for parse in (datetime.fromisoformat, lambda t: datetime.strptime(t, "%a %b %d %H:%M:%S %z %Y")):
        try:
            moment = parse(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        except (ValueError, OverflowError):
            continue
    return None


def basename(url: str | None) -> str | None:
    """The file's name in an image URL, ``.../ID.jpg:large`` or ``.../ID?format=jpg&name=orig``."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    name = parts.path.rsplit("/", 1)[-1].partition(":")[0]
    extension = parse_qs(parts.query).get("format", [""])[0]
    if name and extension and "." not in name:
        name = f"{name}.{extension}"
    return name or None


def looks_retweeted(text: str) -> bool:
    """True for the old spelling of a retweet, "RT @name: ..."."""
    return RETWEET.match(text) is not None


def looks_cut(text: str) -> bool:
    """True where the text ends in the platform's ellipsis."""
    return CUT.search(text) is not None
