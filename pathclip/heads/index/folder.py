"""The embedding folder on disk: clip-retrieval's layout, and index.json that says what it came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathclip.core.errors import UserError
from pathclip.core.files import atomic_path, atomic_write, read_json, write_json
from pathclip.heads.index.build import EMBEDDINGS_SCHEMA, METADATA_SCHEMA, Embeddings

if TYPE_CHECKING:
    import polars as pl

__all__ = ["SEARCHER", "check_target", "read_folder", "write_folder"]

RECORD = "index.json"
IMAGES = "img_emb/img_emb_0.npy"
TEXTS = "text_emb/text_emb_0.npy"
METADATA = "metadata/metadata_0.parquet"
SEARCHER = "image.index"


def write_folder(folder: Path, embeddings: Embeddings, searcher: Any) -> None:
    """Write every file; index.json leaves first and comes last, so that a half-written folder is no index.

    Raises:
        UserError: If the folder holds something else.
    """
    import faiss

    check_target(folder)
    (folder / RECORD).unlink(missing_ok=True)
    _write_array(folder / IMAGES, embeddings.images)
    (folder / TEXTS).unlink(missing_ok=True)
    if embeddings.texts is not None:
        _write_array(folder / TEXTS, embeddings.texts)
    with atomic_path(folder / METADATA) as temporary:
        embeddings.metadata.write_parquet(temporary, metadata={"schema": METADATA_SCHEMA})
    with atomic_path(folder / SEARCHER) as temporary:
        faiss.write_index(searcher, str(temporary))
    write_json(folder / RECORD, embeddings.record)


def check_target(folder: Path) -> None:
    """Refuse to write where something else lies.

    Raises:
        UserError: If ``folder`` is a file, or holds the index.json of a dataset.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; an index needs a folder of its own")
    if (folder / RECORD).is_file():
        _record(folder)


def read_folder(folder: Path) -> Embeddings:
    """Read an embedding folder and check that its parts fit each other.

    Raises:
        UserError: If it is none, incomplete or damaged.
    """
    record = _record(folder)
    images = _read_array(folder / IMAGES, record)
    texts = _read_array(folder / TEXTS, record) if record["has_texts"] else None
    return Embeddings(images, texts, _read_metadata(folder / METADATA, record), record)


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    if not path.is_file():
        raise UserError(f"{folder} is no index: it has no {RECORD} (`pathclip index build` writes it last)")
    record = read_json(path)
    if not isinstance(record, dict) or record.get("schema") != EMBEDDINGS_SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise UserError(
            f"{path}: schema is {found!r}, expected {EMBEDDINGS_SCHEMA!r} (is this a dataset folder?)"
        )
    return record


def _write_array(path: Path, array: NDArray[np.float32]) -> None:
    with atomic_write(path) as handle:
        np.save(handle, array)


def _read_array(path: Path, record: dict[str, Any]) -> NDArray[np.float32]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}; build the index again") from None
    if array.shape != (record["count"], record["dim"]):
        expected = (record["count"], record["dim"])
        raise UserError(f"{path} has shape {array.shape}, {RECORD} says {expected}; build the index again")
    return array


def _read_metadata(path: Path, record: dict[str, Any]) -> pl.DataFrame:
    import polars as pl

    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read: {reason}; build the index again") from None
    if len(table) != record["count"]:
        raise UserError(
            f"{path} has {len(table)} rows, {RECORD} says {record['count']}; build the index again"
        )
    return table
