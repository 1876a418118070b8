"""Make an embedding folder agree with a dataset from which something was taken down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathclip.core.errors import UserError
from pathclip.core.files import sha256_file
from pathclip.heads.index.build import Embeddings
from pathclip.heads.index.folder import read_folder

if TYPE_CHECKING:
    from pathclip.ingest.takedown import Remaining

__all__ = ["remover"]


def remover(folder: str | Path) -> Callable[[Remaining], int]:
    """What `pathclip.ingest.takedown` calls to take rows out of an embedding folder.

    Samples that left the dataset lose their rows of features and metadata, and the FAISS index is built anew.
    A sample that lost its first caption keeps its picture; its text features become zero and its caption
    none, until the index is built again.

    Raises:
        UserError: If the folder is no index, or was not built from a dataset.
    """
    folder = Path(folder)
    record = read_folder(folder).record
    if record["source"]["kind"] != "dataset":
        raise UserError(
            f"{folder} was built from a {record['source']['kind']} of pictures, whose names are no sample "
            "ids; build it again without what was taken down"
        )
    return lambda remaining: _agree(folder, remaining)


def _agree(folder: Path, remaining: Remaining) -> int:
    from pathclip.heads.index.index import Index

    old = read_folder(folder)
    keys = old.metadata["key"].to_list()
    staying = [row for row, key in enumerate(keys) if key not in remaining.gone]
    rows = [_placed(old.metadata.row(row, named=True), remaining) for row in staying]
    captions_before = old.metadata["caption"].to_list()
    silent = [n for n, row in enumerate(staying) if rows[n]["caption"] != captions_before[row]]
    bad = [item for item in old.record["bad"] if item["name"] not in remaining.gone]
    if len(staying) == len(keys) and rows == old.metadata.to_dicts() and bad == old.record["bad"]:
        return 0
    Index(_without(old, staying, rows, silent, bad, remaining)).save(folder)
    return len(keys) - len(staying)


def _placed(row: dict[str, Any], remaining: Remaining) -> dict[str, Any]:
    """The row with where its sample lies now, and without a caption that is no longer its first."""
    if row["key"] not in remaining.places:
        return row
    shard, index, caption = remaining.places[row["key"]]
    return {
        **row,
        "shard": shard,
        "shard_row": index,
        "image_path": f"{shard}/{row['key']}.jpg",
        "caption": row["caption"] if row["caption"] == caption else None,
    }


def _without(
    old: Embeddings,
    staying: list[int],
    rows: list[dict[str, Any]],
    silent: list[int],
    bad: list[dict[str, str]],
    remaining: Remaining,
) -> Embeddings:
    import polars as pl

    texts = None if old.texts is None else np.array(old.texts[staying])
    if texts is not None:
        texts[silent] = 0
    source = old.record["source"]
    if source["path"] == str(remaining.dataset.resolve()):
        source = {**source, "index_sha256": sha256_file(remaining.dataset / "index.json")}
    record = {**old.record, "count": len(staying), "source": source, "bad": bad}
    return Embeddings(
        np.array(old.images[staying]), texts, pl.DataFrame(rows, schema=old.metadata.schema), record
    )
