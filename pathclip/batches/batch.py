"""What a training step eats, and the ids by which the loss recognises equal pictures and equal captions."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["Batch", "caption_id", "stable_id"]


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of one global batch.

    Attributes:
        images: uint8 (B, 3, H, W), RGB, not normalised; or, where a store of features is read, those,
            float32 (B, D), of unit length.
        tokens: int64 (B, T).
        positive_ids: int64 (B,), from the samples' ``positive_id``.
        caption_ids: int64 (B,), from the captions drawn.
        keys: The samples, in order.
        sampler: Where the stream stands after this batch; what `ShardLoader.load_state_dict` takes.
    """

    images: Tensor
    tokens: Tensor
    positive_ids: Tensor
    caption_ids: Tensor
    keys: list[str]
    sampler: dict[str, int] = field(default_factory=dict)


def stable_id(text: str) -> int:
    """A 63-bit id of a text, the same in every process and on every machine (unlike ``hash``).

    Two of a million different texts agree with probability 5e-8.
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def caption_id(text: str) -> int:
    """The id of a caption's words: case, spacing, width variants and outer punctuation do not count.

    Example:
        >>> caption_id("Signet ring  cells.") == caption_id("signet ring cells")
        True
    """
    return stable_id(" ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .,;:!?"))
