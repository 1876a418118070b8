"""Text towers on captions cut behind the longest: what follows an end mark costs time, and nothing else."""

from __future__ import annotations

from typing import Any

from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn

__all__ = ["encode_short", "used_length"]


def used_length(clip: nn.Module, tokens: Tensor) -> int:
    """How many of the T columns of ``tokens``, int64 (B, T), the text tower's output depends on.

    Known for a causal tower that reads its feature at the end mark, as CLIP's does; T for all others.
    """
    tower = _causal(clip)
    if tower is None or not len(tokens):
        return int(tokens.shape[1])
    pool, end = _pooling(tower)
    places = tokens.argmax(dim=1) if pool == "argmax" else (tokens == end).int().argmax(dim=1)
    return int(places.max()) + 1


def encode_short(clip: Any, tokens: Tensor) -> Tensor:
    """``clip.encode_text`` of fewer tokens per text than the model's context length.

    Args:
        clip: The open_clip model.
        tokens: int64 (B, T'), the first `used_length` columns at least.

    Returns:
        (B, D), not normalised: that of all T columns, to rounding.
    """
    tower = _causal(clip)
    if tower is None or tokens.shape[1] == tower.context_length:
        return clip.encode_text(tokens)  # type: ignore[no-any-return]
    length, dtype = tokens.shape[1], tower.transformer.get_cast_dtype()
    x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)  # (B, T', W)
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
    pool, end = _pooling(tower)
    x = text_global_pool(x, tokens, pool, eos_token_id=end)
    projection = tower.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Linear) else x @ projection


def _causal(clip: nn.Module) -> Any:
    """The tower, if no token sees a later one and the feature is read at the end mark."""
    tower: Any = clip if type(clip) is CLIP else clip.text if type(clip) is CustomTextCLIP else None
    if tower is clip or type(tower) is TextTransformer:
        alone = getattr(tower, "cls_emb", None) is None and not getattr(tower, "use_pad_mask", False)
        if tower is not None and tower.attn_mask is not None and alone:
            return tower if _pooling(tower)[0] in ("argmax", "eos") else None
    return None


def _pooling(tower: Any) -> tuple[str, int | None]:
    """How the feature is read from the tokens' outputs, and the end mark's id."""
    if isinstance(tower, CLIP):
        return tower.text_pool_type, getattr(tower, "text_eos_id", None)
    return tower.pool_type, tower.eos_id
