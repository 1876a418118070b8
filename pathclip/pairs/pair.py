"""The frozen `Pair`: one picture with its ranked captions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Caption", "CaptionSource", "Pair", "Split"]

CaptionSource = Literal["tweet", "reply", "alt_text", "table"]
Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Caption:
    """A cleaned text and where it came from."""

    text: str
    source: CaptionSource


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture and what was said of it.

    Attributes:
        sample_id: 16 lower-case base32 characters, keyed; the sample's key in the shards.
        group_id: Coarse component for splitting: a group never straddles splits.
        positive_id: Fine component for the loss: samples that share it are never negatives of each other.
        captions: Best first; training may draw any of them.
        image_path: The picture's file.
        hashtag: The one hashtag the pair is counted under, or None.
        scores: Named figures of the picture and text filters.
        split: train, val or test.
    """

    sample_id: str
    group_id: str
    positive_id: str
    captions: tuple[Caption, ...]
    image_path: str
    hashtag: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    split: Split = "train"
