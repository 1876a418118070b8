"""The parquet files of a dataset's private folder: their columns, and writing them whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pathclip.core.errors import FaultError
from pathclip.core.files import atomic_path
from pathclip.tweets import Fault, Media, Row, Tweet

__all__ = ["SCHEMAS", "items_to_tables", "read_rows", "rows_to_tweets", "write_rows", "writing_items"]

GROUP_ROWS = 20_000
_TEXT, _INT, _BOOL = pa.string(), pa.int64(), pa.bool_()
_TEXTS = pa.list_(_TEXT)
_MEDIA = pa.list_(pa.struct([(f.name, _TEXT) for f in fields(Media)]))
_CAPTIONS = pa.list_(pa.struct([("text", _TEXT), ("source", _TEXT), ("positional", _BOOL)]))
_TWEET_TYPES = {
    "like_count": _INT,
    "hashtags": _TEXTS,
    "edit_history": _TEXTS,
    "media": _MEDIA,
    **{f.name: _BOOL for f in fields(Tweet) if f.type == "bool"},
}

COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "posts": {f.name: _TWEET_TYPES.get(f.name, _TEXT) for f in fields(Tweet)},
    "rows": {f.name: _TEXT for f in fields(Row)},
    "faults": {f.name: _TEXT for f in fields(Fault)},
    "pictures": {
        "root": _INT,
        "file": _TEXT,
        "bytes": _INT,
        "sha256": _TEXT,
        "format": _TEXT,
        "width": _INT,
        "height": _INT,
        "phash": _TEXT,
        "scores": _TEXT,
        "panels": _TEXT,
        "code": _TEXT,
        "detail": _TEXT,
    },
    "rejects": {
        "candidate_id": _TEXT,
        "tweet_id": _TEXT,
        "media_key": _TEXT,
        "stage": _TEXT,
        "code": _TEXT,
        "detail": _TEXT,
        "source": _TEXT,
        "scores": pa.string(),
    },
    "plan": {
        "sample_id": _TEXT,
        "shard": _TEXT,
        "index": _INT,
        "split": _TEXT,
        "group_id": _TEXT,
        "positive_id": _TEXT,
        "captions": _CAPTIONS,
        "hashtag": _TEXT,
        "phash": _TEXT,
        "root": _INT,
        "file": _TEXT,
        "sha256": _TEXT,
        "panels": _INT,
        "panel": _INT,
        "box": pa.list_(_INT),
        "phi": _TEXT,
    },
    "thumbs": {
        "code": _TEXT,
        "candidate_id": _TEXT,
        "source": _TEXT,
        "note": _TEXT,
        "width": _INT,
        "height": _INT,
        "jpg": pa.binary(),
    },
    "provenance": {
        "sample_id": _TEXT,
        "role": _TEXT,
        "caption_index": _INT,
        "tweet_id": _TEXT,
        "media_key": _TEXT,
        "author_id": _TEXT,
        "caption_source": _TEXT,
    },
}

SCHEMAS = {
    name: pa.schema(list(columns.items()), metadata={"schema": f"pathclip.{name}/1"})
    for name, columns in COLUMNS.items()
}


def write_rows(path: Path, table: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as parquet, atomically; returns how many. The file's metadata names the schema."""
    data = pa.Table.from_pylist(list(rows), schema=SCHEMAS[table])
    with atomic_path(path) as temporary:
        pq.write_table(data, temporary, compression="zstd")
    return data.num_rows


@contextmanager
def writing_items(parts: Path, number: int) -> Iterator[Callable[[Tweet | Row | Fault], None]]:
    """Take items one by one and write the parts ``posts|rows|faults-NNNNN.parquet`` in groups of rows.

    However much a chunk holds, no more than a group stays in memory. Files appear at the end, or not at all.
    """
    with ExitStack() as stack:
        writers: dict[str, pq.ParquetWriter] = {}
        held: list[Tweet | Row | Fault] = []

        def flush() -> None:
            for table, rows in items_to_tables(held).items():
                if rows and table not in writers:
                    temporary = stack.enter_context(atomic_path(parts / f"{table}-{number:05d}.parquet"))
                    writer = pq.ParquetWriter(temporary, SCHEMAS[table], compression="zstd")
                    writers[table] = stack.enter_context(writer)
                if rows:
                    writers[table].write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[table]))
            held.clear()

        def take(item: Tweet | Row | Fault) -> None:
            held.append(item)
            if len(held) >= GROUP_ROWS:
                flush()

        yield take
        flush()


def read_rows(paths: Iterable[Path], columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of parquet files, one after the other, read in batches.

    Raises:
        FaultError: If a file is damaged.
    """
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=columns):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise FaultError(f"{path} cannot be read ({error}); run again with --force-new") from None


def items_to_tables(items: Iterable[Tweet | Row | Fault]) -> dict[str, list[dict[str, Any]]]:
    """Read items as rows of ``posts``, ``rows`` and ``faults``."""
    tables: dict[str, list[dict[str, Any]]] = {"posts": [], "rows": [], "faults": []}
    names = {Tweet: "posts", Row: "rows", Fault: "faults"}
    for item in items:
        row = {f.name: getattr(item, f.name) for f in fields(item)}
        if isinstance(item, Tweet):
            row["media"] = [{f.name: getattr(m, f.name) for f in fields(m)} for m in item.media]
        tables[names[type(item)]].append(row)
    return tables


def rows_to_tweets(rows: Iterable[dict[str, Any]]) -> Iterator[Tweet]:
    """The posts again, equal to what was written."""
    for row in rows:
        row["media"] = tuple(Media(**m) for m in row["media"])
        row["hashtags"], row["edit_history"] = tuple(row["hashtags"]), tuple(row["edit_history"])
        yield Tweet(**row)
