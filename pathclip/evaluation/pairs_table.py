"""Pictures and captions in a table, as PLIP's retrieval sets are kept (``images``, ``captions``)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pathclip.core.errors import UserError
from pathclip.core.files import sha256_file
from pathclip.evaluation.datasets import CaptionedImages

__all__ = ["read_pairs"]

IMAGE = ("image", "images", "path", "filepath")
CAPTION = ("caption", "captions", "title", "text")


def read_pairs(data: Path, split: str | None = None) -> CaptionedImages:
    """A CSV or TSV of image and caption, and optionally ``split`` and ``group``; a row per pair.

    Paths are relative to the table's folder. A picture in several rows has several captions.

    Raises:
        UserError: If the table cannot be read, lacks a column or the split, or holds an empty cell.
    """
    table, place = _table(data)
    image, caption = (_column(table, data, names) for names in (IMAGE, CAPTION))
    chosen = split
    if "split" in table.columns:
        known = table["split"].drop_nulls().unique().sort().to_list()
        chosen = split or ("test" if "test" in known else None)
        if chosen not in known:
            raise UserError(f"{data} has no split {chosen or 'test'!r}; choose one: {', '.join(known)}")
        table = table.filter(table["split"] == chosen)
    elif split is not None:
        raise UserError(f"{data} has no column 'split' to select {split!r} by; leave --split out")
    rows = table.select(place, image, caption, *(["group"] if "group" in table.columns else [])).rows()
    for line, *cells in rows:
        if any(cell is None or not cell.strip() for cell in cells):
            raise UserError(f"{data}, line {line}: an empty cell; expected a picture and a caption")
    if len(rows) < 2:
        raise UserError(f"{data}: {len(rows)} pictures with captions; retrieval needs at least two")
    names = [row[1] for row in rows]
    return CaptionedImages(
        name="/".join(filter(None, (data.stem, chosen))),
        root=data.parent,
        split=chosen or "",
        keys=_unique(names),
        pictures=tuple(data.parent / name for name in names),
        captions=tuple((row[2].strip(),) for row in rows),
        positives=tuple(names),
        groups=tuple(row[3] for row in rows) if "group" in table.columns else tuple(names),
        index_sha256=sha256_file(data),
    )


def _table(data: Path) -> tuple[Any, str]:
    import polars as pl

    separator = "\t" if data.suffix.lower() in (".tsv", ".tab") else ","
    try:
        table = pl.read_csv(data, infer_schema=False, separator=separator)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise UserError(f"{data} is no table: {str(error).partition(chr(10))[0]}") from None
    return table.with_row_index("line", offset=2), "line"


def _column(table: Any, data: Path, names: tuple[str, ...]) -> str:
    found = next((name for name in names if name in table.columns), None)
    if found is None:
        held = ", ".join(name for name in table.columns if name != "line")
        raise UserError(f"{data} lacks a column {' or '.join(names)}; it has {held}")
    return found


def _unique(names: list[str]) -> tuple[str, ...]:
    """Names of the rows; a picture's further rows are numbered."""
    seen: Counter[str] = Counter()
    keys = []
    for name in names:
        seen[name] += 1
        keys.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(keys)
