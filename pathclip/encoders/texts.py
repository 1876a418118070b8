"""Texts through the text tower, those met before from the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pathclip.core.errors import UserError
from pathclip.encoders.cache import FeatureCache, describe_model, text_key

if TYPE_CHECKING:
    from pathclip.encoders.encoder import DualEncoder

__all__ = ["check_texts", "encode_texts"]


@torch.no_grad()
def encode_texts(
    model: DualEncoder,
    texts: str | Sequence[str],
    *,
    batch_size: int,
    normalize: bool,
    cache: str | Path | None = None,
) -> Tensor:
    """What `DualEncoder.encode_text` does."""
    if cache is not None:
        return _remembered(model, texts, Path(cache), batch_size, normalize)
    tokens = model.tokenize(texts)
    if not len(tokens):
        return torch.zeros(0, model.embed_dim)
    with model.evaluating():
        parts = [model.encode_tokens(part, normalize=normalize).cpu() for part in tokens.split(batch_size)]
    return torch.cat(parts)


def check_texts(texts: Sequence[Any]) -> None:
    """See that all are texts.

    Raises:
        UserError: If an item is none.
    """
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"text {index} is {type(text).__name__}: {text!r:.60}; expected str")


def _remembered(
    model: DualEncoder, texts: str | Sequence[str], cache: Path, batch_size: int, normalize: bool
) -> Tensor:
    texts = [texts] if isinstance(texts, str) else list(texts)
    check_texts(texts)
    store = FeatureCache(cache, describe_model(model, "texts"))
    keys = [text_key(text) for text in texts]
    lacking = {key: text for key, text in zip(keys, texts, strict=True) if store.get(key) is None}
    new = encode_texts(model, list(lacking.values()), batch_size=batch_size, normalize=False)
    store.add(list(lacking), list(new))
    rows = [row for key in keys if (row := store.get(key)) is not None]
    table = torch.stack(rows) if rows else torch.zeros(0, model.embed_dim)
    return F.normalize(table, dim=-1) if normalize else table
