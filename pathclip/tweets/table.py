"""Tables as CSV and parquet: pictures with captions, or posts as twarc-csv flattens them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pathclip.core.errors import UserError
from pathclip.tweets.columns import post_of_columns
from pathclip.tweets.fields import as_id, as_text, printable
from pathclip.tweets.tweet import Fault, Row, Tweet
from pathclip.tweets.v2 import flat_posts

__all__ = ["csv_items", "is_row", "parquet_items", "row"]

Items = Iterator[Tweet | Row | Fault]
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
MAX_FIELD = 1 << 20
"""Characters of a cell: a quote that is never closed swallows no more than this."""
ROW_COLUMNS = ("image", "caption", "group", "split")


def is_row(record: Mapping[str, Any]) -> bool:
    """True if the record has the columns of a table row."""
    return "image" in record and "caption" in record


def row(record: Mapping[str, Any], source: str) -> Row | Fault:
    """A row, or a fault that names the empty or unknown value."""
    image, caption = as_text(record.get("image")), as_text(record.get("caption"))
    if image is None or caption is None:
        return Fault("bad_row", f"column {'image' if image is None else 'caption'} is empty", source)
    given = (as_text(record.get("split")) or "").lower()
    if given and given not in SPLITS:
        return Fault("bad_row", printable(f"split is {given!r}; expected train, val or test"), source)
    group = record.get("group")
    return Row(image, caption, as_text(group) or as_id(group), SPLITS.get(given), source)


def csv_items(handle: IO[bytes], name: str) -> Items:
    """Rows of a CSV with a header; the delimiter is a comma, a semicolon or a tab.

    Raises:
        UserError: If the header has neither image and caption nor id and text.
    """
    text = io.TextIOWrapper(handle, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _csv_items(text, name)
    finally:
        text.detach()  # the handle is the caller's to close


def _csv_items(text: io.TextIOWrapper, name: str) -> Items:
    header = text.readline(MAX_FIELD)
    delimiter = max(",;\t", key=header.count)
    names = [n.strip().lower() for n in _next(csv.reader([header], delimiter=delimiter)) or []]
    make = _maker(names, name)
    lines = _Lines(text)
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        first = reader.line_num + 2
        source = f"{name}:{first}"
        try:
            values = _next(reader)
        except csv.Error as error:
            yield Fault("parse_error", f"{error} (lines {first} to {reader.line_num + 1})", source)
            continue
        if values is None:
            return
        if lines.too_long:
            yield Fault("line_too_long", f"{lines.too_long} characters; at most {MAX_FIELD}", source)
            lines.too_long = 0
        elif not all(map(_is_text, values)):
            yield Fault("parse_error", "not UTF-8", source)
        elif len(values) > len(names):
            yield Fault("bad_row", f"{len(values)} values for {len(names)} columns", source)
        elif values:
            yield from make(dict(zip(names, values, strict=False)), source)


def _next(reader: Iterator[list[str]]) -> list[str] | None:
    """The next row, None after the last; `csv`'s limit on a field is the process's, so it is given back."""
    before = csv.field_size_limit(MAX_FIELD)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


class _Lines:
    """The lines of a text; one that is too long to hold is passed over and its length kept."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.too_long = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_FIELD)
        if not line:
            raise StopIteration
        if len(line) < MAX_FIELD or line.endswith("\n"):
            return line
        size = len(line)
        while piece := self._text.readline(MAX_FIELD):
            size += len(piece)
            if piece.endswith("\n"):
                break
        self.too_long = size
        return "\n"


def parquet_items(path: Path, name: str) -> Items:
    """Rows of a parquet file, read in batches; a damaged page ends it with a fault.

    Raises:
        UserError: If the file is damaged or has neither image and caption nor id and text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pathclip.tweets.packed import open_seekable

    number = 0
    with open_seekable(path) as handle:
        try:
            file = pq.ParquetFile(handle)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"table {path} cannot be read as parquet: {printable(str(error))}") from None
        names = file.schema_arrow.names
        make = _maker(names, str(path))
        wanted = [c for c in ROW_COLUMNS if c in names] if is_row(dict.fromkeys(names)) else None
        try:
            for batch in file.iter_batches(batch_size=1024, columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    yield from make(record, f"{name}:{number}")
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            detail = f"parquet damaged after row {number}: {printable(str(error))}"
            yield Fault("parse_error", detail, f"{name}:{number + 1}")


def _maker(names: Iterable[str], name: str) -> Callable[[Mapping[str, Any], str], Items]:
    """What becomes of a row, by the table's columns."""
    columns = dict.fromkeys(names)
    if is_row(columns):
        return lambda record, source: iter((row(record, source),))
    if "id" in columns and "text" in columns:
        return lambda record, source: flat_posts(post_of_columns(record), source)
    known = printable(", ".join(columns))
    raise UserError(f"table {name}: columns are {known}; expected image and caption, or id and text of posts")


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\udc80" <= c <= "\udcff" for c in value)
