"""The frozen `Pair`: one picture with its ranked captions; `Drop` says why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Box", "Caption", "CaptionSource", "Drop", "Pair", "Split"]

CaptionSource = Literal["tweet", "alt_text", "continuation", "reply", "table"]
Split = Literal["train", "val", "test"]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are one past the end."""


@dataclass(frozen=True, slots=True)
class Caption:
    """A cleaned text and where it came from.

    Attributes:
        text: Cleaned, never empty.
        source: What kind of text it was.
        tweet_id: The post it stood in; None for tables. Never leaves the private folder.
        author_id: Who wrote it; never leaves the private folder.
        positional: Whether it tells several pictures apart by their place ("left: H&E").
    """

    text: str
    source: CaptionSource
    tweet_id: str | None = None
    author_id: str | None = None
    positional: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a candidate is rejected: a code of `pathclip.ingest.codes` and what was met."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture and what was said of it.

    Attributes:
        sample_id: 16 lower-case base32 characters, keyed; the sample's key in the shards.
        group_id: Coarse component for splitting: a group never straddles splits.
        positive_id: Fine component for the loss: samples that share it are never negatives of each other.
        captions: Best first; training may draw any of them.
        image_path: The picture's file, relative to its media folder.
        image_root: Which media folder of the run.
        image_sha256: Of the file's bytes when it was looked at.
        phash: 16 hexadecimal digits (phash_v2), or None for a picture without structure.
        hashtag: The one hashtag the pair is counted under, or None.
        scores: Named figures of the picture and text filters.
        split: train, val or test.
        panels: How many panels the picture's file shows; 0 for a single picture, or where none are asked for.
        panel: Which of them this is, from 1; 0 for the whole file.
        box: The panel's place in the upright picture.
    """

    sample_id: str
    group_id: str
    positive_id: str
    captions: tuple[Caption, ...]
    image_path: str
    image_root: int = 0
    image_sha256: str = ""
    phash: str | None = None
    hashtag: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    panels: int = 0
    panel: int = 0
    box: Box | None = None
    split: Split = "train"
