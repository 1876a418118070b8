"""Tables of pictures and captions: CSV, JSON lines and parquet with ``image, caption[, group, split]``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pathclip.core.errors import UserError
from pathclip.tweets.fields import as_id, as_text
from pathclip.tweets.tweet import Fault, Row

__all__ = ["csv_rows", "is_row", "parquet_rows", "row"]

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
MAX_FIELD = 1 << 24


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
        return Fault("bad_row", f"split is {given!r}; expected train, val or test", source)
    return Row(image, caption, as_id(record.get("group")), SPLITS.get(given), source)


def csv_rows(handle: IO[bytes], name: str) -> Iterator[Row | Fault]:
    """Rows of a CSV with a header; the delimiter is a comma, a semicolon or a tab.

    Raises:
        UserError: If the header lacks image or caption.
    """
    csv.field_size_limit(MAX_FIELD)
    text = io.TextIOWrapper(handle, encoding="utf-8-sig", errors="replace", newline="")
    try:
        yield from _csv_rows(text, name)
    finally:
        text.detach()  # the handle is the caller's to close


def _csv_rows(text: io.TextIOWrapper, name: str) -> Iterator[Row | Fault]:
    header = text.readline()
    delimiter = max(",;\t", key=header.count)
    names = [n.strip().lower() for n in next(csv.reader([header], delimiter=delimiter), [])]
    if not {"image", "caption"} <= set(names):
        raise UserError(f"table {name}: columns are {', '.join(names)}; expected image and caption")
    reader = csv.reader(text, delimiter=delimiter)
    while True:
        source = f"{name}:{reader.line_num + 2}"
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Fault("parse_error", str(error), source)
            continue
        if len(values) > len(names):
            yield Fault("bad_row", f"{len(values)} values for {len(names)} columns", source)
        elif values:
            yield row(dict(zip(names, values, strict=False)), source)


def parquet_rows(path: Path, name: str) -> Iterator[Row | Fault]:
    """Rows of a parquet file, read in batches.

    Raises:
        UserError: If the file is damaged or lacks the columns image and caption.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"table {path} cannot be read as parquet: {error}") from None
    with file:
        columns = [c for c in ("image", "caption", "group", "split") if c in file.schema_arrow.names]
        if not {"image", "caption"} <= set(columns):
            raise UserError(
                f"table {path}: columns are {', '.join(file.schema_arrow.names)}; expected image and caption"
            )
        number = 0
        for batch in file.iter_batches(columns=columns):
            for record in batch.to_pylist():
                number += 1
                yield row(record, f"{name}:{number}")
