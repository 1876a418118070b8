"""One sample as it lies in a shard: ``{key}.jpg``, ``{key}.txt`` (first caption), ``{key}.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["SCHEMA", "Sample"]

SCHEMA = "pathclip.sample/1"


@dataclass(frozen=True, slots=True)
class Sample:
    """What one picture and its captions look like on disk (schema ``pathclip.sample/1``).

    Attributes:
        sample_id: 16 characters, lower-case base32, no dots; the webdataset key.
        group_id: Never straddles splits.
        positive_id: Samples that share it are never negatives of each other.
        captions: ``(text, source)``, best first, never empty.
        hashtag: The one hashtag it is counted under, or None.
        width: Pixels of the stored picture.
        height: Pixels of the stored picture.
        phash: 16 hexadecimal digits, or None.
        split: train, val or test.
        jpg: The encoded picture.
        positional: Numbers of the captions that tell several pictures of a post apart by their place.
        panels: How many panels the post's picture shows, where figures are marked or split; else 0.
        panel: Which of them this is, from 1; 0 where it is the whole picture.
    """

    sample_id: str
    group_id: str
    positive_id: str
    captions: tuple[tuple[str, str], ...]
    hashtag: str | None
    width: int
    height: int
    phash: str | None
    split: str
    jpg: bytes
    positional: frozenset[int] = frozenset()
    panels: int = 0
    panel: int = 0

    def to_json(self) -> bytes:
        """The ``{key}.json`` member: stable key order, UTF-8, no spaces."""
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "sample_id": self.sample_id,
            "group_id": self.group_id,
            "positive_id": self.positive_id,
            "captions": [
                {"text": text, "source": source, **({"positional": True} if n in self.positional else {})}
                for n, (text, source) in enumerate(self.captions)
            ],
            "hashtag": self.hashtag,
            "width": self.width,
            "height": self.height,
            "phash": self.phash,
            "split": self.split,
            **({"panels": self.panels} if self.panels else {}),
            **({"panel": self.panel} if self.panel else {}),
        }
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
