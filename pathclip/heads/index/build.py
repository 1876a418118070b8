"""Pictures and captions -> features and the rows that belong to them; what failed is left out by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathclip.core.errors import FaultError
from pathclip.core.files import strict_json
from pathclip.encoders import DualEncoder, encode_pictures
from pathclip.heads.index.sources import COLUMNS, Source

if TYPE_CHECKING:
    import polars as pl

__all__ = ["EMBEDDINGS_SCHEMA", "METADATA_SCHEMA", "Embeddings", "embed"]

EMBEDDINGS_SCHEMA = "pathclip.embeddings/1"
METADATA_SCHEMA = "pathclip.embeddings-metadata/1"


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Everything an embedding folder holds.

    Attributes:
        images: (N, D) float32, unit length.
        texts: (N, D) float32, unit length, zero where there is no caption; None where nothing has one.
        metadata: N rows, a polars table of ``COLUMNS``.
        record: The content of index.json.
    """

    images: NDArray[np.float32]
    texts: NDArray[np.float32] | None
    metadata: pl.DataFrame
    record: dict[str, Any]


def embed(
    model: DualEncoder,
    source: Source,
    *,
    batch_size: int,
    progress: bool,
    cache: str | Path | None = None,
) -> Embeddings:
    """Encode a source.

    Raises:
        FaultError: If no picture can be read, or features are not finite.
    """
    import polars as pl

    features, failed = encode_pictures(
        model, source.pictures, batch_size=batch_size, progress=progress, cache=cache
    )
    bad = [{"name": source.rows[item.index]["key"], "reason": item.reason} for item in failed]
    good = sorted(set(range(len(source.rows))) - {item.index for item in failed})
    if not good:
        raise FaultError(f"none of {len(bad)} pictures could be read; {bad[0]['name']}: {bad[0]['reason']}")
    images = features[good].numpy()
    if not np.isfinite(images).all():
        raise FaultError("the model gives features that are not finite; its weights are damaged")
    table = pl.DataFrame([{**dict.fromkeys(COLUMNS), **source.rows[i]} for i in good], schema=COLUMNS)
    texts = _encode_captions(model, table["caption"].to_list(), cache)
    provenance = model.provenance()
    record = {
        "schema": EMBEDDINGS_SCHEMA,
        "count": len(images),
        "dim": int(images.shape[1]),
        "metric": "inner_product",
        "normalized": True,
        "has_texts": texts is not None,
        "source": source.to_dict(),
        "model": {**provenance, "pretrained": _findable(provenance["pretrained"])},
        "bad": bad,
    }
    record = json.loads(strict_json(record))  # in memory as it will be on disk
    return Embeddings(np.ascontiguousarray(images, dtype=np.float32), texts, table, record)


def _encode_captions(
    model: DualEncoder, captions: list[str | None], cache: str | Path | None
) -> NDArray[np.float32] | None:
    different = list(dict.fromkeys(caption for caption in captions if caption))
    if not different:
        return None
    features = model.encode_text(different, cache=cache).numpy()
    place = {caption: i for i, caption in enumerate(different)}
    texts = np.zeros((len(captions), features.shape[1]), dtype=np.float32)
    for row, caption in enumerate(captions):
        if caption:
            texts[row] = features[place[caption]]
    return texts


def _findable(pretrained: str | None) -> str | None:
    """A path as it is found from anywhere; a hub name as it is."""
    return str(Path(pretrained).resolve()) if pretrained and Path(pretrained).exists() else pretrained
